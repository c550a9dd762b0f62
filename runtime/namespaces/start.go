package namespaces

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// Child says how to start a process in namespaces. Exe is executed with Args and Env when the process is where it
// belongs; its end of the socket that Start returns has the number that the argument SyncPlaceholder is replaced by.
type Child struct {
	New         uintptr  // CLONE_NEW* flags of namespaces to create
	Joins       []Join   // namespaces to enter
	TimeOffsets string   // lines for /proc/self/timens_offsets, with CLONE_NEWTIME
	Cgroup      int      // directory of the v2 cgroup to be born in, when > 0; v1 cgroups are inherited from the caller's thread
	Affinity    []uint64 // CPU mask while starting; nil leaves it
	Identity    Identity

	Stdio [3]*os.File // nil is /dev/null
	Keep  []int       // descriptors to hand over at their own number

	Exe  *os.File
	Args []string
	Env  []string
}

// Identity says what the child becomes in a user namespace. The zero value leaves ids alone.
type Identity struct {
	Map           func(pid int) error // called when a new user namespace waits for its mappings
	BecomeRoot    bool                // set uid and gid 0 of the user namespace
	DenySetgroups bool                // setgroups(2) is forbidden there
}

// SyncPlaceholder among Args stands for the number of the child's end of the socket.
const SyncPlaceholder = "@sync@"

// Process is a started child. Sync speaks Send and Receive with it; whoever called Start owns all.
type Process struct {
	Pid   int
	PidFD *os.File
	Sync  *os.File
}

// Start forks the child and returns when it is about to execute Exe, or when it has failed. Errors say the step.
func Start(c *Child) (*Process, error) {
	parent, child, err := SocketPair()
	if err != nil {
		return nil, err
	}
	defer child.Close()
	p, keepAlive, err := c.plan(child)
	if err != nil {
		parent.Close()
		return nil, err
	}
	defer keepAlive()
	pidfd := int32(-1)
	if !p.twoSteps {
		p.first.flags |= unix.CLONE_PIDFD
		p.first.pidfd = uint64(uintptr(unsafe.Pointer(&pidfd)))
	}
	restoreOpenFilesLimit()
	pid, err := clone(p)
	runtime.KeepAlive(&pidfd)
	if err != nil {
		parent.Close()
		return nil, err
	}
	child.Close()
	proc := &Process{Pid: pid, Sync: parent}
	if !p.twoSteps {
		proc.PidFD = os.NewFile(uintptr(pidfd), "pidfd")
	}
	if err := proc.follow(c, p); err != nil {
		proc.Abort()
		return nil, err
	}
	return proc, nil
}

// follow answers the forked child until it may execute. Failures after that, of the exec itself too, come in Receive
// as an error made by Failure.
func (p *Process) follow(c *Child, plan *plan) error {
	if plan.twoSteps {
		first := p.Pid
		m, err := p.next()
		wait4(first)
		p.Pid = 0
		if err != nil {
			return err
		}
		if m.Kind != kindPid {
			return errs.New(errs.Internal, "the forked process sent message %d instead of its pid", m.Kind)
		}
		p.Pid = int(binary.LittleEndian.Uint64(m.Content))
		fd, err := unix.PidfdOpen(p.Pid, 0)
		if err != nil {
			return fmt.Errorf("open the pidfd of process %d: %w", p.Pid, err)
		}
		p.PidFD = os.NewFile(uintptr(fd), "pidfd")
		if err := p.goOn(); err != nil {
			return err
		}
	}
	if !plan.user.mapIDs {
		return nil
	}
	m, err := p.next()
	if err != nil {
		return err
	}
	if m.Kind != kindMapIDs {
		return errs.New(errs.Internal, "the forked process sent message %d instead of waiting for its id mappings", m.Kind)
	}
	if err := c.Identity.Map(p.Pid); err != nil {
		return err
	}
	return p.goOn()
}

// goOn lets the forked child go on, which waits for one byte.
func (p *Process) goOn() error {
	if _, err := unix.Write(int(p.Sync.Fd()), []byte{1}); err != nil {
		return fmt.Errorf("let the forked process go on: %w", err)
	}
	return nil
}

func (p *Process) next() (Message, error) {
	m, err := Receive(int(p.Sync.Fd()))
	if err == io.EOF {
		return m, errs.New(errs.Internal, "the forked process ended before it executed init")
	}
	if err != nil {
		return m, err
	}
	return m, Failure(m)
}

// Failure is the error that a message of the forked child reports, or nil for any other message.
func Failure(m Message) error {
	if m.Kind != kindFailed || len(m.Content) != 8 {
		return nil
	}
	v := binary.LittleEndian.Uint64(m.Content)
	errno, detail := syscall.Errno(v&0xffff), v>>16
	what := stepNames[m.Arg]
	switch m.Arg {
	case stepJoin:
		what = fmt.Sprintf("join the %s namespace", nameOf(uintptr(detail)))
	case stepSecondClone:
		return fmt.Errorf("%s: %w%s", what, errno, cloneHint(errno))
	case stepMapIDs:
		if errno == 0 {
			return errs.New(errs.Internal, "%s: the runtime went away", what)
		}
	}
	return fmt.Errorf("%s: %w", what, errno)
}

// Abort kills the child, waits for its end and closes everything.
func (p *Process) Abort() {
	if p.Pid > 0 {
		unix.Kill(p.Pid, unix.SIGKILL)
		wait4(p.Pid)
	}
	p.Sync.Close()
	if p.PidFD != nil {
		p.PidFD.Close()
	}
}

func wait4(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != unix.EINTR {
			return
		}
	}
}

const userPidTime = unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWTIME

// plan lays out memory for the child. keepAlive must be called after the fork.
func (c *Child) plan(sync *os.File) (*plan, func(), error) {
	p := &plan{}
	if len(c.Joins) > maxJoins || len(c.Keep) > maxKeep {
		return nil, nil, errs.New(errs.Invalid, "too many namespaces (%d) or descriptors (%d) to start a process with", len(c.Joins), len(c.Keep))
	}
	create := c.New &^ (unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME)
	p.unshareCgroup = c.New&unix.CLONE_NEWCGROUP != 0
	var joined uintptr
	for i, j := range c.Joins {
		p.join.list[i].fd, p.join.list[i].flag = j.File.Fd(), j.Flag
		joined |= j.Flag
	}
	p.join.n = len(c.Joins)
	p.twoSteps = joined&(userPidTime) != 0 || c.New&unix.CLONE_NEWTIME != 0 || create&unix.CLONE_NEWUSER != 0 && p.join.n > 0
	p.user.mapIDs = create&unix.CLONE_NEWUSER != 0
	p.user.mapsOwn = p.user.mapIDs && os.Geteuid() != 0
	p.user.becomeRoot = c.Identity.BecomeRoot
	p.user.denySetgroups = c.Identity.DenySetgroups
	p.first.exitSignal = uint64(unix.SIGCHLD)
	if p.twoSteps {
		p.second.flags = uint64(create) | unix.CLONE_PARENT
	} else {
		p.first.flags = uint64(create)
		p.sharesMemory = haveVfork && !p.user.mapIDs
		if p.sharesMemory {
			p.first.flags |= unix.CLONE_VM | unix.CLONE_VFORK
		}
	}
	if c.Cgroup > 0 {
		p.first.flags |= unix.CLONE_INTO_CGROUP
		p.first.cgroup = uint64(c.Cgroup)
	}
	if len(c.Affinity) > 0 {
		p.set.affinity, p.set.affinityLen = &c.Affinity[0], uintptr(8*len(c.Affinity))
	}
	closeFiles, err := c.planFiles(p, sync)
	if err != nil {
		return nil, nil, err
	}
	if err := c.planStrings(p); err != nil {
		closeFiles()
		return nil, nil, err
	}
	return p, func() { closeFiles(); runtime.KeepAlive(c); runtime.KeepAlive(p) }, nil
}

// planFiles arranges the descriptors. Standard streams that lie on each other's numbers are duplicated away first.
func (c *Child) planFiles(p *plan, sync *os.File) (func(), error) {
	var opened []*os.File
	closeAll := func() {
		for _, f := range opened {
			f.Close()
		}
	}
	for i, f := range c.Stdio {
		var err error
		if f == nil {
			f, err = os.OpenFile("/dev/null", os.O_RDWR, 0)
			if err == nil {
				opened = append(opened, f)
			}
		}
		if err == nil && f.Fd() < 3 && f.Fd() != uintptr(i) {
			f, err = dupHigh(f, 3)
			if err == nil {
				opened = append(opened, f)
			}
		}
		if err != nil {
			closeAll()
			return nil, fmt.Errorf("prepare standard stream %d: %w", i, err)
		}
		p.exec.stdio[i] = f.Fd()
	}
	p.sync, p.exec.exe = sync.Fd(), c.Exe.Fd()
	p.exec.keep = append(p.exec.keep, int32(p.sync))
	for _, fd := range c.Keep {
		p.exec.keep = append(p.exec.keep, int32(fd))
	}
	return closeAll, nil
}

func (c *Child) planStrings(p *plan) error {
	args := make([]string, len(c.Args))
	for i, a := range c.Args {
		args[i] = strings.ReplaceAll(a, SyncPlaceholder, fmt.Sprint(p.sync))
	}
	argv, err := syscall.SlicePtrFromStrings(args)
	if err != nil {
		return errs.New(errs.Invalid, "an argument contains a zero byte: %w", err)
	}
	envp, err := syscall.SlicePtrFromStrings(c.Env)
	if err != nil {
		return errs.New(errs.Invalid, "an environment variable contains a zero byte: %w", err)
	}
	p.exec.argv, p.exec.envp = &argv[0], &envp[0]
	if p.exec.empty, err = syscall.BytePtrFromString(""); err != nil {
		return err
	}
	if c.New&unix.CLONE_NEWTIME != 0 {
		p.set.timeFile, err = syscall.BytePtrFromString("/proc/self/timens_offsets")
		if b := []byte(c.TimeOffsets); len(b) > 0 {
			p.set.timeOffsets, p.set.timeOffsetsLen = &b[0], uintptr(len(b))
		}
	}
	return err
}
