// Package initproc is the code that runs as a container's first process, or as a further one, between the fork and the
// execution of the container's program: it is inside the namespaces already and makes the rest true. The runtime is on
// the other side of one socket (config_wire.go draws the talk). It must stay light: no configuration file is read here,
// nothing is validated twice, and every package it imports costs every container start.
package initproc

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/hooks"
	"github.com/shoalhq/shoal/runtime/namespaces"
	"github.com/shoalhq/shoal/runtime/privilege"
	"github.com/shoalhq/shoal/runtime/rootfs"
	"github.com/shoalhq/shoal/runtime/seccomp"
)

// Name is argument 0 of an init; argument 1 is the socket's number.
const Name = "shoal-init"

type initProcess struct {
	cfg     *Config
	filter  []byte
	sync    int
	answer  int // where failures are told: sync, later the start connection
	builder *rootfs.Builder
	proc    *procDir
	program string
}

// Main is the whole life of init. It does not return. Call it first thing in main.
func Main(args []string) {
	runtime.LockOSThread()
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	if len(args) != 2 {
		os.Exit(1)
	}
	sync, err := strconv.Atoi(args[1])
	if err != nil {
		os.Exit(1)
	}
	unix.CloseOnExec(sync)
	p := &initProcess{sync: sync, answer: sync}
	if err := p.run(); err != nil {
		p.fail(err)
	}
}

// programError is one about the container's program itself.
type programError struct{ error }

func (e *programError) Unwrap() error { return e.error }

// fail tells the other side. Another thread does it: this one may be under the container's seccomp filter already.
func (p *initProcess) fail(err error) {
	done := make(chan struct{})
	go func() {
		var program *programError
		data, _ := json.Marshal(Failure{errs.KindOf(err), err.Error(), errors.As(err, &program)})
		namespaces.Send(p.answer, namespaces.Message{Kind: MsgFailed, Content: data})
		os.Exit(1)
	}()
	<-done
}

func (p *initProcess) run() error {
	if err := p.receiveConfig(); err != nil {
		return err
	}
	if !p.cfg.NoNewKeyring {
		if err := privilege.JoinKeyring(p.cfg.ID); err != nil {
			return err
		}
	}
	if _, err := unix.Setsid(); err != nil && err != unix.EPERM {
		return fmt.Errorf("start a session: %w", err)
	}
	var err error
	if p.cfg.Exec {
		err = p.prepareExec()
	} else {
		err = p.prepareCreate()
	}
	if err != nil {
		return err
	}
	if err := privilege.RaiseOwnHard(p.cfg.Process.Rlimits); err != nil {
		return err
	}
	completeEnv(p.cfg.Process)
	if len(p.cfg.Process.Args) > 0 { // a container may be created, but not started, without a process
		if p.program, err = lookPath(p.cfg.Process); err != nil {
			return &programError{err}
		}
	}
	if p.cfg.Gate != 0 {
		if err := p.waitForStart(); err != nil {
			return err
		}
	}
	if err := hooks.Run("startContainer", p.cfg.StartContainer, p.cfg.State); err != nil {
		return err
	}
	if p.cfg.Seal && p.cfg.Gate == 0 {
		if err := p.ask(namespaces.Message{Kind: MsgSeal}); err != nil {
			return err
		}
	}
	return p.become()
}

func (p *initProcess) receiveConfig() error {
	m, err := namespaces.Receive(p.sync)
	if err != nil || m.Kind != MsgConfig {
		os.Exit(1) // the runtime is gone; nobody is there to be told
	}
	n := len(m.Content) - int(m.Arg)
	p.cfg, p.filter = &Config{}, m.Content[n:]
	if err := p.cfg.Decode(m.Content[:n]); err != nil {
		return fmt.Errorf("decode init's configuration: %w", err)
	}
	if len(m.Files) > 0 {
		p.cfg.Rootfs.Tree = m.Files[0]
	}
	return nil
}

func (p *initProcess) prepareCreate() error {
	cfg := p.cfg
	if cfg.NewNet {
		if err := loopbackUp(); err != nil {
			return err
		}
	}
	b, err := rootfs.Begin(cfg.Rootfs)
	if err != nil {
		return err
	}
	p.builder = b
	if err := p.names(); err != nil {
		return err
	}
	if err := b.Mount(); err != nil {
		return err
	}
	if err := b.Devices(); err != nil {
		return err
	}
	if cfg.RuntimeHooks {
		if err := p.ask(namespaces.Message{Kind: MsgHooks}); err != nil {
			return err
		}
	}
	if err := hooks.Run("createContainer", cfg.CreateContainer, cfg.State); err != nil {
		return err
	}
	if err := b.Pivot(); err != nil {
		return err
	}
	// As engines expect, a missing working directory is made. An error shows when it is entered.
	os.MkdirAll(path.Clean(cfg.Process.Cwd), 0o755)
	if err := p.sysctls(); err != nil {
		return err
	}
	if cfg.Process.Terminal {
		if err := p.terminal(b.Root()); err != nil {
			return err
		}
	}
	return b.Finish()
}

func (p *initProcess) prepareExec() error {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the container's root: %w", err)
	}
	defer unix.Close(root)
	if p.cfg.Process.Terminal {
		return p.terminal(root)
	}
	return nil
}

func (p *initProcess) names() error {
	if h := p.cfg.Hostname; h != "" {
		if err := unix.Sethostname([]byte(h)); err != nil {
			return fmt.Errorf("set host name %q: %w", h, err)
		}
	}
	if d := p.cfg.Domainname; d != "" {
		if err := unix.Setdomainname([]byte(d)); err != nil {
			return fmt.Errorf("set domain name %q: %w", d, err)
		}
	}
	return nil
}

// ask sends a message and waits for the runtime to say go.
func (p *initProcess) ask(m namespaces.Message) error {
	if err := namespaces.Send(p.sync, m); err != nil {
		return fmt.Errorf("tell the runtime: %w", err)
	}
	answer, err := namespaces.Receive(p.sync)
	if err != nil || answer.Kind != MsgGo {
		os.Exit(1) // the runtime gave up and knows why
	}
	return nil
}

func (p *initProcess) terminal(root int) error {
	master, slave, err := rootfs.OpenTerminal(root)
	if err != nil {
		return err
	}
	if box := p.cfg.Process.ConsoleSize; box != nil && box.Height <= 0xffff && box.Width <= 0xffff {
		size := unix.Winsize{Row: uint16(box.Height), Col: uint16(box.Width)}
		if err := unix.IoctlSetWinsize(slave, unix.TIOCSWINSZ, &size); err != nil {
			return fmt.Errorf("set the terminal's size: %w", err)
		}
	}
	if err := unix.Fchown(slave, int(p.cfg.Process.User.UID), -1); err != nil && err != unix.EPERM && err != unix.EINVAL {
		return fmt.Errorf("give the terminal to the user: %w", err)
	}
	if p.builder != nil {
		if err := p.builder.Console(slave); err != nil {
			return err
		}
	}
	err = namespaces.Send(p.sync, namespaces.Message{Kind: MsgConsole, Content: []byte{0}, Files: []int{master}})
	if err != nil {
		return fmt.Errorf("hand over the terminal: %w", err)
	}
	unix.Close(master)
	for fd := range 3 {
		if err := unix.Dup3(slave, fd, 0); err != nil {
			return fmt.Errorf("use the terminal as standard stream %d: %w", fd, err)
		}
	}
	if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("make the terminal the controlling one: %w", err)
	}
	return nil
}

// waitForStart says ready and waits until the start socket is connected to; then failures go to that connection.
func (p *initProcess) waitForStart() error {
	if err := namespaces.Send(p.sync, namespaces.Message{Kind: MsgReady}); err != nil {
		return fmt.Errorf("tell the runtime that init is ready: %w", err)
	}
	unix.Close(p.sync)
	for {
		conn, _, err := unix.Accept4(p.cfg.Gate, unix.SOCK_CLOEXEC)
		if err == unix.EINTR || err == unix.ECONNABORTED {
			continue
		}
		if err != nil {
			os.Exit(1)
		}
		p.answer, p.sync = conn, conn
		unix.Close(p.cfg.Gate)
		return nil
	}
}

// become changes this process into the container's and executes its program. Each step may forbid the one before it.
func (p *initProcess) become() error {
	process := p.cfg.Process
	if err := p.scheduling(); err != nil {
		return err
	}
	if process.ApparmorProfile != "" || process.SelinuxLabel != "" {
		proc, err := p.procfs()
		if err != nil {
			return err
		}
		if err := privilege.SetExecLabels(proc, process.ApparmorProfile, process.SelinuxLabel); err != nil {
			return err
		}
	}
	caps, _ := privilege.ParseCaps(process.Capabilities)
	if _, err := caps.Limit(); err != nil {
		return err
	}
	cwdErr := enter(process.Cwd)
	privilege.Umask(&process.User)
	first := uint(3 + p.cfg.PreserveFDs)
	if err := unix.CloseRange(first, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close the runtime's descriptors: %w", err)
	}
	namespaces.Send(p.sync, namespaces.Message{Kind: MsgExec})
	// From here on no new thread is needed, and as little as can be is done that a filter made for the container's
	// program, not for this one, could refuse.
	if err := privilege.SetRlimits(process.Rlimits); err != nil {
		return err
	}
	if process.NoNewPrivileges {
		if err := privilege.NoNewPrivileges(); err != nil {
			return err
		}
	} else if err := p.seccomp(); err != nil {
		return err // without no_new_privs it takes CAP_SYS_ADMIN, which the next step drops
	}
	if err := privilege.SetUser(&process.User, &caps, p.cfg.DenySetgroups); err != nil {
		return err
	}
	if cwdErr != nil { // on some file systems only the user may enter
		if err := enter(process.Cwd); err != nil {
			return err
		}
	}
	if process.NoNewPrivileges {
		if err := p.seccomp(); err != nil {
			return err
		}
	}
	return &programError{execErr(p.program, execute(p.program, process.Args, process.Env))}
}

func (p *initProcess) scheduling() error {
	if err := privilege.SetPersonality(p.cfg.Personality); err != nil {
		return err
	}
	if err := privilege.SetScheduler(p.cfg.Process.Scheduler); err != nil {
		return err
	}
	if err := privilege.SetMemoryPolicy(p.cfg.Memory); err != nil {
		return err
	}
	if a := p.cfg.Process.ExecCPUAffinity; a != nil && a.Final != "" {
		if err := privilege.SetAffinity(a.Final); err != nil {
			return err
		}
	}
	return privilege.SetIOPriority(p.cfg.Process.IOPriority)
}

// enter goes to the working directory and makes sure that it is inside the container.
func enter(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return errs.New(errs.Invalid, "change to the working directory %s: %w", dir, err)
	}
	return rootfs.CheckCwd()
}

// seccomp loads the filter on this thread, the only one that will live on.
func (p *initProcess) seccomp() error {
	if len(p.filter) == 0 {
		return nil
	}
	var f seccomp.Filter
	if err := f.UnmarshalBinary(p.filter); err != nil {
		return err
	}
	f.Flags &^= unix.SECCOMP_FILTER_FLAG_TSYNC
	listener, err := f.Load()
	if err != nil || !f.Notify {
		return err
	}
	// The filter may stop any call of this thread, so another one tells the runtime, which takes the listener by pidfd.
	answer := make(chan error)
	go func() { answer <- p.ask(namespaces.Message{Kind: MsgListener, Arg: uint32(listener)}) }()
	return <-answer
}

// maxRetries of an exec that meets "text file busy": something still writes the program, as a build step just did.
const maxRetries = 40

func execute(program string, args, env []string) error {
	for range maxRetries {
		err := unix.Exec(program, args, env)
		if err != unix.ETXTBSY && err != unix.EINTR {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return unix.ETXTBSY
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		if err == unix.EAFNOSUPPORT {
			return nil
		}
		return fmt.Errorf("bring up the loopback interface: %w", err)
	}
	defer unix.Close(fd)
	var req [40]byte // struct ifreq
	copy(req[:], "lo")
	binary.NativeEndian.PutUint16(req[16:], unix.IFF_UP|unix.IFF_RUNNING|unix.IFF_LOOPBACK)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&req[0]))); e != 0 {
		return fmt.Errorf("bring up the loopback interface: %w", e)
	}
	return nil
}
