// Package privilege turns a process of the runtime into one of the container: user and groups, capabilities,
// no_new_privs, limits, scheduling, security labels. Everything acts on the calling thread, which must be the locked
// main thread about to execute the container's program. It must not touch mounts or namespaces.
package privilege

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// SetUser drops the bounding set, becomes the user and applies the capabilities. denyGroups says that setgroups(2) is
// forbidden in this user namespace.
func SetUser(u *specs.User, caps *Caps, denyGroups bool) error {
	if err := caps.dropBounding(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep capabilities over the change of user: %w", err)
	}
	if err := setIDs(u, denyGroups); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("stop keeping capabilities: %w", err)
	}
	return caps.set()
}

// keepID is -1: setresuid(2) and its like then keep the id that is there (compare CVE-2024-40635).
const keepID = ^uint32(0)

// raw system calls: those of package syscall would change all threads, which is slower and no use before an exec.
func setIDs(u *specs.User, denyGroups bool) error {
	for _, id := range append([]uint32{u.UID, u.GID}, u.AdditionalGids...) {
		if id == keepID {
			return errs.New(errs.Invalid, "%d is no user or group id: the kernel reads it as \"leave it\", which would leave root", id)
		}
	}
	if denyGroups {
		if len(u.AdditionalGids) > 0 {
			return errs.New(errs.Unsupported, "additional groups %v cannot be set: setgroups is denied in this user namespace (rootless without newgidmap)", u.AdditionalGids)
		}
	} else if err := setGroups(slices.Compact(slices.Sorted(slices.Values(u.AdditionalGids)))); err != nil {
		return fmt.Errorf("set additional groups %v: %w%s", u.AdditionalGids, err, idHint(err))
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(u.GID), uintptr(u.GID), uintptr(u.GID)); e != 0 {
		return fmt.Errorf("set group id %d: %w%s", u.GID, e, idHint(e))
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(u.UID), uintptr(u.UID), uintptr(u.UID)); e != 0 {
		return fmt.Errorf("set user id %d: %w%s", u.UID, e, idHint(e))
	}
	return nil
}

func idHint(err error) string {
	if err == unix.EINVAL {
		return "; the id is not mapped in the container's user namespace"
	}
	if err == unix.EAGAIN {
		return "; that user has reached RLIMIT_NPROC"
	}
	return ""
}

// Umask is set when asked, else the usual.
func Umask(u *specs.User) {
	mask := 0o022
	if u.Umask != nil {
		mask = int(*u.Umask)
	}
	unix.Umask(mask)
}

// NoNewPrivileges is for good.
func NoNewPrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}

var personalities = map[specs.LinuxPersonalityDomain]uintptr{specs.PerLinux: 0, specs.PerLinux32: 8}

// SetPersonality sets the execution domain.
func SetPersonality(p *specs.LinuxPersonality) error {
	if p == nil {
		return nil
	}
	value, ok := personalities[p.Domain]
	if !ok || len(p.Flags) > 0 {
		return errs.New(errs.Invalid, "personality %q with flags %v: want LINUX or LINUX32 and no flags", p.Domain, p.Flags)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, value, 0, 0); e != 0 {
		return fmt.Errorf("set personality %s: %w", p.Domain, e)
	}
	return nil
}

var ioClasses = map[specs.IOPriorityClass]int{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}

// SetIOPriority sets the I/O class and level of this process.
func SetIOPriority(p *specs.LinuxIOPriority) error {
	if p == nil {
		return nil
	}
	class, ok := ioClasses[p.Class]
	if !ok {
		return errs.New(errs.Invalid, "I/O priority class %q: want IOPRIO_CLASS_RT, _BE or _IDLE", p.Class)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_IOPRIO_SET, 1, 0, uintptr(class<<13|p.Priority)); e != 0 {
		return fmt.Errorf("set I/O priority %s %d: %w", p.Class, p.Priority, e)
	}
	return nil
}

var policies = map[specs.LinuxSchedulerPolicy]uint32{specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2,
	specs.SchedBatch: 3, specs.SchedISO: 4, specs.SchedIdle: 5, specs.SchedDeadline: 6}

var schedFlags = map[specs.LinuxSchedulerFlag]uint64{specs.SchedFlagResetOnFork: 1, specs.SchedFlagReclaim: 2,
	specs.SchedFlagDLOverrun: 4, specs.SchedFlagKeepPolicy: 8, specs.SchedFlagKeepParams: 16, specs.SchedFlagUtilClampMin: 32, specs.SchedFlagUtilClampMax: 64}

// SetScheduler sets policy, nice value and the parameters of real-time and deadline scheduling.
func SetScheduler(s *specs.Scheduler) error {
	if s == nil {
		return nil
	}
	policy, ok := policies[s.Policy]
	if !ok {
		return errs.New(errs.Invalid, "scheduler policy %q is not known", s.Policy)
	}
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Nice: s.Nice, Priority: uint32(s.Priority),
		Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period}
	for _, f := range s.Flags {
		bit, ok := schedFlags[f]
		if !ok {
			return errs.New(errs.Invalid, "scheduler flag %q is not known", f)
		}
		attr.Flags |= bit
	}
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		return fmt.Errorf("set scheduler %s: %w", s.Policy, err)
	}
	return nil
}

// JoinKeyring gives the container a session keyring of its own, so that it does not share its creator's keys.
func JoinKeyring(id string) error {
	_, err := unix.KeyctlJoinSessionKeyring("_ses." + id)
	switch err {
	case nil, unix.ENOSYS:
		return nil // a kernel without keys has none to share
	case unix.EDQUOT:
		return errs.New(errs.Exhausted, "make a session keyring: %w; raise /proc/sys/kernel/keys/maxkeys, or use --no-new-keyring", err)
	}
	return fmt.Errorf("make a session keyring: %w", err)
}

// setGroups sets the thread's additional groups.
func setGroups(gids []uint32) error {
	var e syscall.Errno
	if len(gids) == 0 {
		_, _, e = unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
	} else {
		e = rawSetGroups(gids)
	}
	runtime.KeepAlive(gids)
	if e != 0 {
		return e
	}
	return nil
}

// ProcFS is what labels are written through: a directory of a procfs that was verified to be one.
type ProcFS interface {
	Write(name, value string) error
}

// SetExecLabels asks the security modules for the labels of the program to be executed.
func SetExecLabels(proc ProcFS, apparmor, selinux string) error {
	if apparmor != "" && apparmor != "unconfined" {
		err := proc.Write("thread-self/attr/apparmor/exec", "exec "+apparmor)
		if err != nil {
			err = proc.Write("thread-self/attr/exec", "exec "+apparmor)
		}
		if err != nil {
			if errors.Is(err, unix.ENOENT) { // not the kernel's words: clients read "no such file" as a program that is missing
				return errs.New(errs.Invalid, "AppArmor profile %q is not loaded; load it with apparmor_parser, or choose another one", apparmor)
			}
			return errs.New(errs.Unsupported, "apply AppArmor profile %q: %w; AppArmor may be off on this host or the profile not loaded", apparmor, err)
		}
	}
	if selinux != "" {
		if err := proc.Write("thread-self/attr/exec", selinux); err != nil {
			return errs.New(errs.Unsupported, "apply SELinux label %q: %w; SELinux may be off on this host", selinux, err)
		}
	}
	return nil
}
