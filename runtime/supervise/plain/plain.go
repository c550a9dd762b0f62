// Package plain is a Runner for tests: it runs the program of a configuration as an ordinary child process, without
// namespaces, root filesystem or cgroup, so that supervisors can be tested without root. It must not be used for containers.
package plain

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/runtime/supervise"
)

// InitVerb is the first argument with which this program calls itself; its main must call Init then.
const InitVerb = "plain-init"

// Init waits for a byte on fd 3 and becomes the program that its arguments name.
func Init(args []string) int {
	unix.CloseOnExec(3)
	var b [1]byte
	if n, _ := os.NewFile(3, "start").Read(b[:]); n != 1 {
		return 1
	}
	unix.Exec(args[0], args[1:], os.Environ())
	return 127
}

// Pick chooses this runner whatever is configured.
func Pick(*spec.SupervisorConfig) (supervise.Runner, error) { return runner{}, nil }

type runner struct{}

type process struct {
	pid     int
	console *os.File
}

func (p *process) Pid() int          { return p.pid }
func (p *process) Console() *os.File { return p.console }

type container struct {
	process
	start *os.File
	path  string
	gate  error
}

func (runner) Create(o supervise.CreateOptions) (supervise.Container, error) {
	if err := o.Spaces(); err != nil {
		return nil, err
	}
	c := &container{}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var oci specs.Spec
	data, err := os.ReadFile(filepath.Join(o.Dir, spec.ConfigFile))
	if err == nil {
		err = json.Unmarshal(data, &oci)
	}
	if err != nil {
		return nil, err
	}
	args := oci.Process.Args
	path, err := lookup(args[0])
	c.gate = err
	c.process, err = spawn("/proc/self/exe", append([]string{"self", InitVerb, path}, args...), oci.Process.Env, o.Stdio, o.Tty, o.Config.ConsoleSize, r)
	c.start = w
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Resume needs the pid only.
func (runner) Resume(dir string, cfg *spec.SupervisorConfig, pid int, saved []byte) supervise.Container {
	return &container{process: process{pid: pid}}
}

func (c *container) Save() ([]byte, bool) { return []byte("{}"), true }

func (runner) Reap(dir string, cfg *spec.SupervisorConfig) error { return reapState(dir) }

func lookup(name string) (string, error) {
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path, nil
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return "", &supervise.Failure{Code: 127, Err: errs.New(errs.Invalid, "exec: %q: executable file not found in $PATH", name)}
	}
	return "", &supervise.Failure{Code: 126, Err: errs.New(errs.Invalid, "exec: %q: %w", name, err)}
}

func spawn(path string, args, env []string, stdio [3]*os.File, tty bool, size [2]uint, extra *os.File) (process, error) {
	attr := &os.ProcAttr{Dir: "/", Env: env, Files: []*os.File{stdio[0], stdio[1], stdio[2]}, Sys: &syscall.SysProcAttr{Setsid: true}}
	var p process
	if tty {
		master, slave, err := openPty()
		if err != nil {
			return p, err
		}
		defer slave.Close()
		p.console = master
		unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(size[0]), Col: uint16(size[1])})
		attr.Files = []*os.File{slave, slave, slave}
		attr.Sys.Setctty = true
	}
	if extra != nil {
		attr.Files = append(attr.Files, extra)
	}
	proc, err := os.StartProcess(path, args, attr)
	if err != nil {
		return p, err
	}
	p.pid = proc.Pid
	proc.Release()
	return p, nil
}

func openPty() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	return master, slave, err
}

func (c *container) Ready() error { return nil }

func (c *container) Start() error {
	defer c.start.Close()
	if c.gate != nil {
		return c.gate
	}
	_, err := c.start.Write([]byte{1})
	return err
}

func (c *container) Exec(o supervise.ExecOptions) (supervise.Process, error) {
	path, err := lookup(o.Process.Args[0])
	if err != nil {
		return nil, err
	}
	p, err := spawn(path, o.Process.Args, o.Process.Env, o.Stdio, o.Tty, o.Size, nil)
	return &p, err
}

func (c *container) Control() supervise.Control { return control{c.pid} }
func (c *container) Destroy() error {
	unix.Kill(c.pid, unix.SIGKILL)
	return nil
}

// control knows the processes of the session that init leads only.
type control struct{ pid int }

func (c control) Signal(sig syscall.Signal, all bool) error {
	if all {
		return unix.Kill(-c.pid, sig)
	}
	return unix.Kill(c.pid, sig)
}

func (c control) Freeze(on bool) error {
	if on {
		return unix.Kill(-c.pid, unix.SIGSTOP)
	}
	return unix.Kill(-c.pid, unix.SIGCONT)
}
func (c control) Update(*specs.LinuxResources) error {
	return errs.New(errs.Unsupported, "plain processes have no limits")
}
func (c control) Stats() (model.Stats, error) {
	return model.Stats{Pids: model.PidsStats{Current: 1}}, nil
}
func (c control) Pids() ([]int, error)     { return []int{c.pid}, nil }
func (c control) KillAll() error           { return nil }
func (c control) Paths() map[string]string { return nil }
func (c control) OOM() supervise.OOM       { return noOOM{} }

type noOOM struct{}

func (noOOM) Count() uint64                        { return 0 }
func (noOOM) Watch() (int, func() (uint64, error)) { return -1, nil }

// reapState kills the process that state.json names, if it is still the same.
func reapState(dir string) error {
	state, err := supervise.ReadState(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !supervise.SameProcess(state) {
		return nil
	}
	fd, err := unix.PidfdOpen(state.Pid, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	unix.Kill(-state.Pid, unix.SIGKILL)
	unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000)
	return err
}
