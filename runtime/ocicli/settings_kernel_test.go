//go:build kernel

package ocicli

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func namespace(s *specs.Spec, typ specs.LinuxNamespaceType, path string) {
	for i, n := range s.Linux.Namespaces {
		if n.Type == typ {
			s.Linux.Namespaces[i].Path = path
			return
		}
	}
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: typ, Path: path})
}

// Each of the eight kinds is joined by its path, alone and all together.
func TestKernelJoinEachNamespace(t *testing.T) {
	a := newBundle(t)
	namespace(a.spec, specs.TimeNamespace, "")
	namespace(a.spec, specs.UserNamespace, "")
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	a.spec.Linux.UIDMappings, a.spec.Linux.GIDMappings = maps, maps
	a.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 5000000}}
	a.chown(100000)
	a.create("sleep", "100")
	a.must("start", a.id)
	of := fmt.Sprintf("/proc/%d/ns/", int(a.state()["pid"].(float64)))
	kinds := []struct {
		typ  specs.LinuxNamespaceType
		file string
	}{{specs.PIDNamespace, "pid"}, {specs.NetworkNamespace, "net"}, {specs.IPCNamespace, "ipc"}, {specs.UTSNamespace, "uts"},
		{specs.CgroupNamespace, "cgroup"}, {specs.TimeNamespace, "time"}, {specs.MountNamespace, "mnt"}, {specs.UserNamespace, "user"}}
	check := func(b *bundle, joined ...string) {
		t.Helper()
		got := b.sh("for n in pid net ipc uts cgroup time mnt user; do readlink /proc/self/ns/$n; done; cut -d. -f1 /proc/uptime")
		for _, k := range kinds {
			link, err := os.Readlink(of + k.file)
			if err != nil {
				t.Fatal(err)
			}
			if in := strings.Contains(got, link); in != slices.Contains(joined, k.file) {
				t.Errorf("with %v joined: in %s is %v:\n%s", joined, link, in, got)
			}
		}
	}
	for _, k := range kinds {
		if k.typ == specs.UserNamespace || k.typ == specs.MountNamespace {
			continue // below: what belongs to a user namespace, and what mounts there, is not for others
		}
		b := newBundle(t)
		namespace(b.spec, k.typ, of+k.file)
		if k.typ == specs.UTSNamespace {
			b.spec.Hostname = ""
		}
		check(b, k.file)
	}
	b := newBundle(t)
	b.chown(100000)
	namespace(b.spec, specs.UserNamespace, of+"user")
	check(b, "user")
	b = newBundle(t)
	b.chown(100000)
	for _, k := range kinds {
		if k.typ != specs.MountNamespace {
			namespace(b.spec, k.typ, of+k.file)
		}
	}
	b.spec.Hostname = ""
	check(b, "pid", "net", "ipc", "uts", "cgroup", "time", "user")
}

// A mount namespace of others is used as it is: the root is looked up there, and mounted there.
func TestKernelJoinMountNamespace(t *testing.T) {
	keeper := exec.Command("sleep", "100")
	keeper.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if err := keeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { keeper.Process.Kill(); keeper.Wait() }()
	path := fmt.Sprintf("/proc/%d/ns/mnt", keeper.Process.Pid)
	of, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	b := newBundle(t)
	namespace(b.spec, specs.MountNamespace, path)
	b.is(b.sh("readlink /proc/self/ns/mnt; ls -d /bin /root 2>/dev/null; true"), of+"\n/bin")
	if mounts, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(mounts), b.dir) {
		t.Error("the host has mounts of the container")
	}
}

func TestKernelRecursiveOptions(t *testing.T) {
	b := newBundle(t)
	src := filepath.Join(b.dir, "src")
	if err := os.MkdirAll(src+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("x", src+"/sub", "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(src+"/sub", unix.MNT_DETACH) })
	for i, o := range []struct{ option, want string }{{"rro", "ro"}, {"rnosuid", "nosuid"}, {"rnodev", "nodev"}, {"rnoexec", "noexec"},
		{"rnoatime", "noatime"}, {"rnodiratime", "nodiratime"}, {"rnosymfollow", "nosymfollow"}} {
		dest := fmt.Sprintf("/mnt/d%d", i)
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: dest, Type: "bind", Source: src, Options: []string{"rbind", o.option}})
	}
	b.mount("/mnt/plain", "bind", src, "rbind", "ro", "rprivate")
	b.mount("/mnt/back", "bind", src, "rbind", "rro", "rnoexec", "rexec", "rrw")
	b.mount("/mnt/strict", "bind", src, "rbind", "rstrictatime")
	got := b.sh("grep /mnt/ /proc/self/mountinfo | cut -d' ' -f5,6")
	lines := strings.Split(got, "\n")
	has := func(where, word string) bool {
		i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, where+" ") })
		if i < 0 {
			t.Fatalf("%s is not mounted:\n%s", where, got)
		}
		_, options, _ := strings.Cut(lines[i], " ")
		return slices.Contains(strings.Split(options, ","), word)
	}
	for i, want := range []string{"ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"} {
		for _, at := range []string{"", "/sub"} {
			if where := fmt.Sprintf("/mnt/d%d%s", i, at); !has(where, want) {
				t.Errorf("%s has not %s:\n%s", where, want, got)
			}
		}
	}
	if !has("/mnt/plain", "ro") || has("/mnt/plain/sub", "ro") || has("/mnt/back", "ro") || has("/mnt/back/sub", "noexec") || has("/mnt/strict/sub", "relatime") {
		t.Errorf("plain, back or strict are wrong:\n%s", got)
	}
}

// Mounts with mapped ids: by the container's own mapping, by one of the mount's, and with all that is mounted below.
func TestKernelMappedMounts(t *testing.T) {
	b := newBundle(t)
	src := filepath.Join(b.dir, "data")
	for _, dir := range []string{src + "/sub", b.dir + "/below"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Of the same file system: tmpfs can be mapped since Linux 6.3 only.
	if err := unix.Mount(b.dir+"/below", src+"/sub", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(src+"/sub", unix.MNT_DETACH) })
	for _, name := range []string{"/f", "/sub/f"} {
		if err := os.WriteFile(src+name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(src+name, 1000, 1000); err != nil {
			t.Fatal(err)
		}
	}
	maps := []specs.LinuxIDMapping{{ContainerID: 1000, HostID: 3000, Size: 1}} // what is 1000 on disk is seen as 3000
	for dest, options := range map[string][]string{"/one": {"rbind", "idmap"}, "/all": {"rbind", "ridmap"}} {
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: dest, Type: "bind", Source: src, Options: options, UIDMappings: maps, GIDMappings: maps})
	}
	b.is(b.sh("stat -c %u:%g /one/f /one/sub/f /all/f /all/sub/f"), "3000:3000\n1000:1000\n3000:3000\n3000:3000")
}

func TestKernelRootPropagation(t *testing.T) {
	for _, p := range []struct{ option, want string }{{"private", ""}, {"slave", "master:"}, {"shared", "shared:"}, {"unbindable", "unbindable"}, {"rslave", "master:"}} {
		b := newBundle(t)
		// The host's mount of the root is a peer group of its own, or a slave would have no master.
		root := b.path("")
		for _, step := range []uintptr{unix.MS_BIND, unix.MS_SHARED} {
			if err := unix.Mount(root, root, "", step, ""); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { unix.Unmount(root, unix.MNT_DETACH) })
		b.spec.Linux.RootfsPropagation = p.option
		if line := firstRoot(b.sh("cat /proc/self/mountinfo")); p.want != "" && !strings.Contains(line, p.want) || p.want == "" && strings.Contains(line, "shared:") {
			t.Errorf("%s: %s", p.option, line)
		}
		b.create("sleep", "100")
		inside := fmt.Sprintf("/proc/%d/mountinfo", int(b.state()["pid"].(float64)))
		if err := unix.Mount("x", b.path("mnt"), "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
		mounts, err := os.ReadFile(inside)
		if err != nil {
			t.Fatal(err)
		}
		if in := strings.Contains(string(mounts), " /mnt "); in != (p.want == "master:") {
			t.Errorf("%s: what the host mounts below the root appears in the container: %v", p.option, in)
		}
		unix.Unmount(b.path("mnt"), 0)
		b.must("delete", "--force", b.id)
	}
	b := newBundle(t)
	b.spec.Linux.RootfsPropagation = "upwards"
	b.fails("rootfsPropagation")
}

func firstRoot(mountinfo string) string {
	for line := range strings.Lines(mountinfo) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/" {
			return line
		}
	}
	return ""
}

func TestKernelNoPivot(t *testing.T) {
	b := newBundle(t)
	b.spec.Process.Args = []string{"sh", "-c", "ls -d /bin /rootfs 2>/dev/null; readlink /proc/self/root"}
	b.write()
	b.is(b.must("run", "--no-pivot", b.id), "/bin\n/\n")
}

// Personality, schedulers, affinity, memory policy: what the kernel says that the program has.
func TestKernelProcessSettings(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*specs.Spec)
		script string
		want   string
	}{
		"personality":    {func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} }, "cat /proc/self/personality", "00000008"},
		"no personality": {func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux} }, "cat /proc/self/personality", "00000000"},
		"batch":          {func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 3} }, "sed 's/.*) //' /proc/self/stat | cut -d' ' -f17,39", "3 3"},
		"idle":           {func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedIdle} }, "sed 's/.*) //' /proc/self/stat | cut -d' ' -f39", "5"},
		"fifo": {func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO, Priority: 7}
			parent := "/sys/fs/cgroup/cpu" + cgroupParent // with CONFIG_RT_GROUP_SCHED, it must have a share for its children to have one
			if _, err := os.Stat("/sys/fs/cgroup/cpu/cpu.rt_runtime_us"); err == nil && os.MkdirAll(parent, 0o755) == nil && os.WriteFile(parent+"/cpu.rt_runtime_us", []byte("20000"), 0) == nil {
				runtime, period := int64(10000), uint64(1000000)
				s.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimeRuntime: &runtime, RealtimePeriod: &period}}
			}
		}, "sed 's/.*) //' /proc/self/stat | cut -d' ' -f38,39", "7 1"},
		"reset on fork": {func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: 4, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
		}, "sed 's/.*) //' /proc/$$/stat | cut -d' ' -f17", "4"},
		"memory policy": {func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0"} }, "grep -c bind:0 /proc/self/numa_maps | grep -qv '^0$' && echo bound", "bound"},
		"io idle":       {func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE} }, "echo ok", "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBundle(t)
			c.change(b.spec)
			b.is(b.sh(c.script), c.want)
		})
	}
	for want, change := range map[string]func(*specs.Spec){
		"intelRdt":           func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "x", L3CacheSchema: "L3:0=f"} },
		"memory policy mode": func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_NOPE", Nodes: "0"} },
		"personality":        func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "NOPE"} },
		"scheduler":          func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "NOPE"} },
		"I/O priority class": func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "NOPE"} },
		"net.ipv4.ip_forward": func(s *specs.Spec) {
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
		},
		"kernel.shmmax": func(s *specs.Spec) {
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.IPCNamespace })
			s.Linux.Sysctl = map[string]string{"kernel.shmmax": "1"}
		},
		"kernel/../vm":  func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel/../vm/swappiness": "1"} },
		"oom_score_adj": func(s *specs.Spec) { n := -999; s.Process.OOMScoreAdj = &n },
		"line break":    func(s *specs.Spec) { s.Hostname = "a\nb" },
	} {
		t.Run("refused "+want, func(t *testing.T) {
			if want == "oom_score_adj" && mayLowerOOMScore(t) {
				t.Skip("allowed to who has CAP_SYS_RESOURCE")
			}
			b := newBundle(t)
			change(b.spec)
			b.fails(want)
		})
	}
}

// mayLowerOOMScore says whether this process has CAP_SYS_RESOURCE.
func mayLowerOOMScore(t *testing.T) bool {
	var data [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

func TestKernelExecAffinity(t *testing.T) {
	last := strconv.Itoa(min(runtime.NumCPU(), 2) - 1)
	b := newBundle(t)
	b.spec.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: last}
	b.create("sleep", "100")
	b.must("start", b.id)
	b.contains(b.must("exec", b.id, "grep", "Cpus_allowed_list", "/proc/self/status"), "\t"+last+"\n")
}

// The listener of a filter gets its descriptor and the container's state over a socket, and answers for the system call.
func TestKernelSeccompListener(t *testing.T) {
	b := newBundle(t)
	socket := filepath.Join(b.dir, "seccomp.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type told struct {
		state specs.ContainerProcessState
		err   error
	}
	got := make(chan told, 1)
	go func() {
		var r told
		defer func() { got <- r }()
		conn, err := l.Accept()
		if err != nil {
			r.err = err
			return
		}
		defer conn.Close()
		data, oob := make([]byte, 64<<10), make([]byte, 100)
		n, oobn, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(data, oob)
		if err != nil {
			r.err = err
			return
		}
		if r.err = json.Unmarshal(data[:n], &r.state); r.err != nil {
			return
		}
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(msgs) != 1 {
			r.err = fmt.Errorf("%d messages: %w", len(msgs), err)
			return
		}
		fds, err := unix.ParseUnixRights(&msgs[0])
		if err != nil || len(fds) != 1 {
			r.err = fmt.Errorf("%d descriptors: %w", len(fds), err)
			return
		}
		os.NewFile(uintptr(fds[0]), "listener").Close() // nobody answers: the kernel does, with ENOSYS
	}()
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: socket, ListenerMetadata: "for whom it is",
		Flags:    []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}}}
	b.contains(b.sh("mkdir /tmp/x 2>&1; echo $?"), "not implemented")
	r := <-got
	if r.err != nil || r.state.Metadata != "for whom it is" || r.state.State.ID != b.id || !slices.Equal(r.state.Fds, []string{specs.SeccompFdName}) || r.state.Pid == 0 {
		t.Errorf("%v, %+v", r.err, r.state)
	}
	b = newBundle(t)
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}}
	b.fails("listenerPath")
	b = newBundle(t)
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/no/socket", Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}}
	b.fails("/no/socket")
	for action, want := range map[specs.LinuxSeccompAction]string{specs.ActKillProcess: "159", specs.ActTrap: "159", specs.ActErrno: "1", specs.ActLog: "0"} {
		b := newBundle(t)
		b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: action}}}
		b.is(b.sh("mkdir /tmp/x 2>/dev/null; echo $?"), want)
	}
}
