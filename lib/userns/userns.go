// Package userns makes user namespaces that hold id mappings, and other namespaces that belong to them, without a process
// that lives in them. It knows nothing of containers.
package userns

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// New makes a user namespace with these mappings and, by flags (CLONE_NEW*), further namespaces that it owns. It opens
// those named as in /proc/PID/ns: "user", "net". They live as long as the files, or what is mounted or run in them. It is done
// by a child that is stopped as it would execute something, and killed.
func New(uids, gids []syscall.SysProcIDMap, flags uintptr, names ...string) (files []*os.File, err error) {
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	// Should this process be killed meanwhile, the child must neither go on nor, if it does, begin to serve.
	child, err := os.StartProcess("/proc/self/exe", []string{"shoal-mappings", "--version"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{
		Pdeathsig: unix.SIGKILL, Cloneflags: unix.CLONE_NEWUSER | flags, UidMappings: uids, GidMappings: gids, GidMappingsEnableSetgroups: true, Ptrace: true}})
	if err != nil {
		return nil, fmt.Errorf("make a user namespace with the mappings: %w", err)
	}
	defer func() { child.Kill(); child.Wait() }()
	for _, name := range names {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", child.Pid, name))
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// Owner opens the user namespace that owns another namespace.
func Owner(ns *os.File) (*os.File, error) {
	fd, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return nil, fmt.Errorf("find the user namespace that owns %s: %w", ns.Name(), err)
	}
	return os.NewFile(uintptr(fd), "user"), nil
}

// ActAs makes the calling thread own what it creates by uid and gid of the host, and keep its capabilities: where ids are mapped,
// the host's root is nobody and can create nothing. The thread must be thrown away afterwards.
func ActAs(uid, gid int) error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&head, &caps[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	if err := unix.Setfsgid(gid); err != nil {
		return os.NewSyscallError("setfsgid", err)
	}
	if err := unix.Setfsuid(uid); err != nil { // takes capabilities out of the effective ones
		return os.NewSyscallError("setfsuid", err)
	}
	return os.NewSyscallError("capset", unix.Capset(&head, &caps[0]))
}
