// Package cgroup makes, limits, watches and removes the control groups of one container, on cgroup v1 (separate and
// co-mounted hierarchies), on hybrid hosts (v1 controllers beside a cgroup2 mount) and on cgroup v2. It reads and
// writes the kernel's files itself: no program, no systemd, no goroutine that lives on, no polling where the kernel
// can tell. It knows the OCI runtime specification's LinuxResources and nothing of images, networks or the engine.
//
// # Life of a container's groups
//
//	host, err := cgroup.Detect()                     // once per process, ~50 µs
//	m, err := host.New(cgroup.Config{Path: spec.Linux.CgroupsPath, ID: id})
//	err = m.Create(spec.Linux.Resources)             // directories and limits; undone when it fails
//	err = m.Spawn(func(fd int) error {               // what fn clones is BORN in the groups
//	        return clone(..., CLONE_INTO_CGROUP fd)  // fd is -1 on pure v1: nothing to pass
//	})
//	err = m.Seal()                                   // right before exec: the limits that would have hurt our own set-up
//	... m.Set, m.Freeze, m.Thaw, m.Stats, m.OOMCount, m.Pids ...
//	err = m.KillAll(); err = m.Destroy()
//
// # Why Spawn and not AddProcess
//
// Writing a pid into cgroup.procs makes the kernel take cgroup_threadgroup_rwsem for writing. When nobody did so
// recently this waits for an RCU grace period: 8 to 15 ms on the reference machine, more than the whole rest of a
// container's start (measured: first write 11.3 ms, the eight that follow 6 µs each). A thread which moves only
// ITSELF, by writing "0" to a v1 tasks file, needs no such lock (cgroup_procs_write_start: "if we migrate a single
// thread, we don't care about threadgroup stability"), and a child starts in the groups of the thread that cloned it.
// So Spawn locks a thread, moves it into the v1 groups (5 µs each), lets the caller clone, and moves it back; for the
// cgroup2 hierarchy the caller passes the file descriptor to clone3 (CLONE_INTO_CGROUP), which takes no such lock
// either. AddProcess is there for processes that exist already.
package cgroup
