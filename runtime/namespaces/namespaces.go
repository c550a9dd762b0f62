// Package namespaces makes and joins Linux namespaces and starts the process that will be a container's init, or an
// exec in it, inside them. It forks by hand (one raw clone3, or two where a namespace can only be entered by a child),
// so that the child is single-threaded while it joins cgroups and namespaces; after that the child executes the
// runtime again as init. It must not know about root filesystems, privileges or state on disk.
package namespaces

import (
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// kinds lists every namespace type with its clone flag and its name in /proc/PID/ns.
var kinds = []struct {
	Type specs.LinuxNamespaceType
	Flag uintptr
	File string
}{
	{specs.UserNamespace, unix.CLONE_NEWUSER, "user"},
	{specs.IPCNamespace, unix.CLONE_NEWIPC, "ipc"},
	{specs.UTSNamespace, unix.CLONE_NEWUTS, "uts"},
	{specs.NetworkNamespace, unix.CLONE_NEWNET, "net"},
	{specs.PIDNamespace, unix.CLONE_NEWPID, "pid"},
	{specs.CgroupNamespace, unix.CLONE_NEWCGROUP, "cgroup"},
	{specs.TimeNamespace, unix.CLONE_NEWTIME, "time"},
	{specs.MountNamespace, unix.CLONE_NEWNS, "mnt"},
}

// Flag is the CLONE_NEW* flag of a namespace type.
func Flag(t specs.LinuxNamespaceType) (uintptr, bool) {
	for _, k := range kinds {
		if k.Type == t {
			return k.Flag, true
		}
	}
	return 0, false
}

func nameOf(flag uintptr) string {
	var names []string
	for _, k := range kinds {
		if flag&k.Flag != 0 {
			names = append(names, string(k.Type))
		}
	}
	return strings.Join(names, ", ")
}

// Join is a namespace to enter: a file of nsfs and one flag, or a pidfd and the flags of all to take over from it.
type Join struct {
	File *os.File
	Flag uintptr
}

const nsGetType = 0xb703 // NS_GET_NSTYPE of ioctl_ns(2)

// Open opens the namespace at path, which may be a /proc/PID/ns or /proc/self/fd name, and checks that it is one of
// the type asked.
func Open(t specs.LinuxNamespaceType, path string) (Join, error) {
	flag, ok := Flag(t)
	if !ok {
		return Join{}, errs.New(errs.Invalid, "namespace type %q is not known", t)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Join{}, fmt.Errorf("open the %s namespace to join: %w", t, err)
	}
	got, err := unix.IoctlRetInt(int(f.Fd()), nsGetType)
	if err != nil {
		f.Close()
		return Join{}, errs.New(errs.Invalid, "join the %s namespace: %s is not a namespace file: %w", t, path, err)
	}
	if uintptr(got) != flag {
		f.Close()
		return Join{}, errs.New(errs.Invalid, "join the %s namespace: %s is a %s namespace", t, path, nameOf(uintptr(got)))
	}
	return Join{f, flag}, nil
}

// OfProcess says which namespaces of pid differ from this process's own, as CLONE_NEW* flags.
func OfProcess(pid int) (uintptr, error) {
	var flags uintptr
	for _, k := range kinds {
		var own, other unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, k.File), &other); err != nil {
			if k.Flag == unix.CLONE_NEWTIME && err == unix.ENOENT {
				continue // a kernel without time namespaces
			}
			return 0, fmt.Errorf("read the %s namespace of process %d: %w", k.Type, pid, err)
		}
		if err := unix.Stat("/proc/self/ns/"+k.File, &own); err != nil {
			return 0, fmt.Errorf("read the own %s namespace: %w", k.Type, err)
		}
		if own.Ino != other.Ino || own.Dev != other.Dev {
			flags |= k.Flag
		}
	}
	return flags, nil
}
