package namespaces

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
	_ "unsafe" // for go:linkname

	"golang.org/x/sys/unix"
)

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()

// cloneArgs is struct clone_args of clone3(2), first version.
type cloneArgs struct {
	flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls, setTid, setTidSize, cgroup uint64
}

const (
	maxJoins = 10
	maxKeep  = 4096
)

// plan is all that the forked child needs, made beforehand: the child must not allocate, lock, or grow its stack.
type plan struct {
	first, second cloneArgs
	twoSteps      bool
	sharesMemory  bool
	unshareCgroup bool

	join joinPlan
	set  setPlan
	user userPlan
	exec execPlan

	sync   uintptr
	report header
	answer [1]byte
}

type joinPlan struct {
	list   [maxJoins]struct{ fd, flag uintptr }
	n      int
	failed uint64 // bit per join whose first try was refused
}

type setPlan struct {
	timeOffsets    *byte
	timeOffsetsLen uintptr
	timeFile       *byte
	affinity       *uint64
	affinityLen    uintptr
}

type userPlan struct {
	mapIDs        bool
	mapsOwn       bool // the mappings are written by a user without rights over others' processes
	becomeRoot    bool
	denySetgroups bool
}

type execPlan struct {
	stdio [3]uintptr
	keep  []int32
	exe   uintptr
	empty *byte
	argv  **byte
	envp  **byte
}

// Steps of the child, for messages.
const (
	stepClone = iota + 1
	stepAffinity
	stepTime
	stepJoin
	stepSecondClone
	stepUnshareCgroup
	stepMapIDs
	stepSetID
	stepFiles
	stepExec
)

var stepNames = map[uint32]string{
	stepClone:         "create the namespaces",
	stepAffinity:      "set the CPU affinity",
	stepTime:          "set the time namespace's offsets",
	stepJoin:          "join a namespace",
	stepSecondClone:   "create the namespaces",
	stepUnshareCgroup: "create the cgroup namespace",
	stepMapIDs:        "wait for the id mappings",
	stepSetID:         "become root of the user namespace",
	stepFiles:         "hand over the standard streams",
	stepExec:          "execute the runtime as init",
}

// fork clones and, in the child, runs it to its exec. Nothing in the child's part may allocate, split the stack or call
// anything but raw system calls: all other threads of the Go runtime are gone there.
//
//go:noinline
//go:norace
//go:nosplit
func fork(p *plan) (pid uintptr, errno syscall.Errno) {
	runtimeBeforeFork()
	if p.sharesMemory {
		pid, errno = rawVforkClone3(uintptr(unsafe.Pointer(&p.first)), unsafe.Sizeof(p.first))
	} else {
		pid, _, errno = syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&p.first)), unsafe.Sizeof(p.first), 0)
	}
	if errno != 0 || pid != 0 {
		runtimeAfterFork()
		return pid, errno
	}
	runtimeAfterForkInChild()
	childMain(p)
	return 0, 0
}

//go:noinline
//go:norace
//go:nosplit
func childMain(p *plan) {
	if !p.sharesMemory && !p.user.mapsOwn {
		// The memory of the runtime, with its open files, must not be looked into from inside the container.
		syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0)
	}
	if p.set.affinity != nil {
		_, _, e := syscall.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, p.set.affinityLen, uintptr(unsafe.Pointer(p.set.affinity)))
		if e != 0 {
			childFail(p, stepAffinity, e, 0)
		}
	}
	if p.set.timeFile != nil {
		childTime(p)
	}
	if p.join.n > 0 {
		childJoin(p)
	}
	if p.twoSteps {
		childSecond(p)
	}
	if p.unshareCgroup {
		_, _, e := syscall.RawSyscall(unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP, 0, 0)
		if e != 0 {
			childFail(p, stepUnshareCgroup, e, 0)
		}
	}
	if p.user.mapIDs || p.user.becomeRoot {
		childUser(p)
	}
	childExec(p)
}

//go:noinline
//go:norace
//go:nosplit
func childTime(p *plan) {
	_, _, e := syscall.RawSyscall(unix.SYS_UNSHARE, unix.CLONE_NEWTIME, 0, 0)
	if e != 0 {
		childFail(p, stepTime, e, 0)
	}
	if p.set.timeOffsetsLen == 0 {
		return
	}
	fd, _, e := syscall.RawSyscall6(unix.SYS_OPENAT, atFdcwd, uintptr(unsafe.Pointer(p.set.timeFile)), unix.O_WRONLY|unix.O_CLOEXEC, 0, 0, 0)
	if e == 0 {
		_, _, e = syscall.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(p.set.timeOffsets)), p.set.timeOffsetsLen)
	}
	if e != 0 {
		childFail(p, stepTime, e, 1)
	}
}

const atFdcwd = ^uintptr(99) // -100, AT_FDCWD

// childJoin enters the namespaces. The privileged can enter all with the user namespace last; the unprivileged need the
// user namespace first: what was refused is tried again after it.
//
//go:noinline
//go:norace
//go:nosplit
func childJoin(p *plan) {
	user := false
	for i := 0; i < p.join.n; i++ {
		if p.join.list[i].flag == unix.CLONE_NEWUSER {
			user = true
			continue
		}
		_, _, e := syscall.RawSyscall(unix.SYS_SETNS, p.join.list[i].fd, p.join.list[i].flag, 0)
		if e == syscall.EPERM {
			p.join.failed |= 1 << uint(i)
		} else if e != 0 {
			childFail(p, stepJoin, e, uint64(p.join.list[i].flag))
		}
	}
	for i := 0; user && i < p.join.n; i++ {
		if p.join.list[i].flag == unix.CLONE_NEWUSER {
			_, _, e := syscall.RawSyscall(unix.SYS_SETNS, p.join.list[i].fd, p.join.list[i].flag, 0)
			if e != 0 {
				childFail(p, stepJoin, e, uint64(p.join.list[i].flag))
			}
		}
	}
	for i := 0; i < p.join.n; i++ {
		if p.join.failed&(1<<uint(i)) != 0 {
			_, _, e := syscall.RawSyscall(unix.SYS_SETNS, p.join.list[i].fd, p.join.list[i].flag, 0)
			if e != 0 {
				childFail(p, stepJoin, e, uint64(p.join.list[i].flag))
			}
		}
	}
}

// childSecond makes the final child, whose parent is the runtime, tells the runtime its pid, and ends the first child.
//
//go:noinline
//go:norace
//go:nosplit
func childSecond(p *plan) {
	pid, _, e := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&p.second)), unsafe.Sizeof(p.second), 0)
	if e != 0 {
		childFail(p, stepSecondClone, e, 0)
	}
	if pid == 0 {
		// Not before the runtime knows the pid: what this child says must not overtake the first child's message.
		n, _, e := syscall.RawSyscall(unix.SYS_READ, p.sync, uintptr(unsafe.Pointer(&p.answer[0])), 1)
		if e != 0 || n != 1 {
			childFail(p, stepSecondClone, e, 0)
		}
		return
	}
	p.report.Kind, p.report.Arg, p.report.Value = kindPid, 0, uint64(pid)
	childSend(p)
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

//go:noinline
//go:norace
//go:nosplit
func childUser(p *plan) {
	if p.user.mapIDs {
		p.report.Kind, p.report.Arg, p.report.Value = kindMapIDs, 0, 0
		childSend(p)
		n, _, e := syscall.RawSyscall(unix.SYS_READ, p.sync, uintptr(unsafe.Pointer(&p.answer[0])), 1)
		if e != 0 || n != 1 {
			childFail(p, stepMapIDs, e, 0)
		}
		if p.user.mapsOwn { // until here /proc/PID/uid_map had to belong to the user
			syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0)
		}
	}
	var e syscall.Errno
	if !p.user.denySetgroups {
		_, _, e = syscall.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
	}
	if e == 0 {
		_, _, e = syscall.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0)
	}
	if e == 0 {
		_, _, e = syscall.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0)
	}
	if e != 0 {
		childFail(p, stepSetID, e, 0)
	}
}

//go:noinline
//go:norace
//go:nosplit
func childExec(p *plan) {
	var e syscall.Errno
	for i := uintptr(0); i < 3; i++ {
		if p.exec.stdio[i] == i {
			_, _, e = syscall.RawSyscall(unix.SYS_FCNTL, i, unix.F_SETFD, 0)
		} else {
			_, _, e = syscall.RawSyscall(unix.SYS_DUP3, p.exec.stdio[i], i, 0)
		}
		if e != 0 {
			childFail(p, stepFiles, e, uint64(i))
		}
	}
	for i := 0; i < len(p.exec.keep); i++ {
		_, _, e = syscall.RawSyscall(unix.SYS_FCNTL, uintptr(p.exec.keep[i]), unix.F_SETFD, 0)
		if e != 0 {
			childFail(p, stepFiles, e, uint64(p.exec.keep[i]))
		}
	}
	_, _, e = syscall.RawSyscall6(unix.SYS_EXECVEAT, p.exec.exe, uintptr(unsafe.Pointer(p.exec.empty)),
		uintptr(unsafe.Pointer(p.exec.argv)), uintptr(unsafe.Pointer(p.exec.envp)), unix.AT_EMPTY_PATH, 0)
	childFail(p, stepExec, e, 0)
}

// childFail reports the step and ends the child.
//
//go:noinline
//go:norace
//go:nosplit
func childFail(p *plan, step uint32, e syscall.Errno, detail uint64) {
	p.report.Kind, p.report.Arg, p.report.Value = kindFailed, step, detail<<16|uint64(e)
	childSend(p)
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
	}
}

//go:noinline
//go:norace
//go:nosplit
func childSend(p *plan) {
	syscall.RawSyscall(unix.SYS_WRITE, p.sync, uintptr(unsafe.Pointer(&p.report)), headerSize)
}

// restoreOpenFilesLimit takes back what the Go runtime did at start: it raised the soft limit of open files, which a
// container must not inherit. The standard library keeps the old value to itself but restores it in front of every
// exec, so an exec that cannot succeed does it.
func restoreOpenFilesLimit() {
	syscall.Exec("/proc/self/fd/-", []string{""}, nil)
}

func clone(p *plan) (int, error) {
	syscall.ForkLock.Lock()
	pid, errno := fork(p)
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(p)
	if errno != 0 {
		return 0, fmt.Errorf("%s (%s): %w%s", stepNames[stepClone], nameOf(uintptr(p.first.flags)), errno, cloneHint(errno))
	}
	return int(pid), nil
}

func cloneHint(errno syscall.Errno) string {
	switch errno {
	case unix.EPERM:
		return "; the caller lacks CAP_SYS_ADMIN, or user namespaces are forbidden here (kernel.unprivileged_userns_clone, user.max_user_namespaces, apparmor_restrict_unprivileged_userns)"
	case unix.ENOSPC, unix.EUSERS:
		return "; a limit in /proc/sys/user/max_*_namespaces is reached, or namespaces are nested too deep"
	case unix.ENOSYS:
		return "; Linux 5.12 or newer is needed"
	case unix.EINVAL:
		return "; this kernel lacks one of these namespaces"
	}
	return ""
}

func dupHigh(f *os.File, least int) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, least)
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
