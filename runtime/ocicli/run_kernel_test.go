//go:build kernel

package ocicli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/runtime/spec"
)

func TestKernelRunNamespaces(t *testing.T) {
	b := newBundle(t)
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	b.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000000}, "monotonic": {Secs: 1000000}}
	b.spec.Hostname = "inside"
	got := strings.Split(b.sh("for n in pid net ipc uts mnt cgroup time; do readlink /proc/self/ns/$n; done; hostname; cut -d. -f1 /proc/uptime; ip link | grep -c LOOPBACK,UP"), "\n")
	for i, n := range []string{"pid", "net", "ipc", "uts", "mnt", "cgroup", "time"} {
		own, _ := os.Readlink("/proc/self/ns/" + n)
		if got[i] == own || !strings.HasPrefix(got[i], n) {
			t.Errorf("namespace %s is %s, the host's %s", n, got[i], own)
		}
	}
	b.is(got[7], "inside")
	if up, err := strconv.Atoi(got[8]); err != nil || up < 1000000 {
		t.Errorf("the machine inside runs for %s s, want more than 1000000", got[8])
	}
	b.is(got[9], "1")
	b.gone()
}

func TestKernelRunExitCodes(t *testing.T) {
	b := newBundle(t)
	b.spec.Process.Args = []string{"sh", "-c", "exit 42"}
	b.write()
	if _, _, code := b.try("run", b.id); code != 42 {
		t.Errorf("exit code %d, want 42", code)
	}
	b.spec.Process.Args = []string{"sh", "-c", "kill -9 $$"}
	b.spec.Linux.Namespaces = b.spec.Linux.Namespaces[1:] // without a pid namespace, where init may kill itself
	b.write()
	if _, _, code := b.try("run", b.id); code != 137 {
		t.Errorf("exit code %d, want 137", code)
	}
}

func TestKernelRunMissingPrograms(t *testing.T) {
	b := newBundle(t)
	for want, args := range map[string][]string{
		`exec: "nope": executable file not found in $PATH`:               {"nope"},
		`exec: "/nope": stat /nope: no such file or directory`:           {"/nope"},
		`exec: "/etc/plain": permission denied`:                          {"/etc/plain"},
		`exec: "/etc": is a directory: permission denied`:                {"/etc"},
		"exec /etc/script: no such file or directory; the program is":    {"/etc/script"},
		"exec /etc/garbage: exec format error; it is no program of this": {"/etc/garbage"},
	} {
		b.file("etc/plain", "x", 0o644)
		b.file("etc/script", "#!/no/interpreter\n", 0o755)
		b.file("etc/garbage", "garbage", 0o755)
		b.spec.Process.Args = args
		b.fails(want)
	}
}

func TestKernelRunMounts(t *testing.T) {
	b := newBundle(t)
	src := filepath.Join(b.dir, "src")
	os.MkdirAll(filepath.Join(src, "sub"), 0o755)
	os.WriteFile(filepath.Join(src, "f"), []byte("content"), 0o644)
	os.MkdirAll(b.path("up/inner"), 0o750)
	b.file("up/file", "copied", 0o640)
	os.Symlink("/made/by/link", b.path("link"))
	b.mount("/rw", "bind", src, "bind")
	b.mount("/ro/deep/er", "bind", src, "rbind", "ro", "nosuid", "nodev", "noexec")
	b.mount("/etc/one/file", "bind", src+"/f", "bind", "rro")
	b.mount("/up", "tmpfs", "tmpfs", "tmpcopyup", "size=1m", "noexec")
	b.mount("/link", "tmpfs", "tmpfs", "mode=700", "rshared")
	b.mount("/not/there", "tmpfs", "tmpfs")
	got := b.sh("stat -c %a /not /not/there /up; touch /rw/new && echo ok; touch /ro/deep/er/new 2>&1; cat /etc/one/file; echo x 2>&1 >/etc/one/file; cat /up/file; stat -c %a /up/file /made/by/link; grep ' /made/by/link ' /proc/self/mountinfo; grep ' /ro/deep/er ' /proc/self/mounts")
	for _, want := range []string{"755\n1777\n750\n", "ok\n", "touch: /ro/deep/er/new: Read-only file system", "content", "/etc/one/file: Read-only", "copied", "640\n700", "shared:", "ro,nosuid,nodev,noexec"} {
		b.contains(got, want)
	}
	if _, err := os.Stat(filepath.Join(src, "new")); err != nil {
		t.Error("the bind mount did not reach the host's directory")
	}
}

func TestKernelRunMountRefusals(t *testing.T) {
	for want, m := range map[string]specs.Mount{
		"is inside a procfs":                 {Destination: "/proc/sys", Type: "tmpfs", Source: "tmpfs"},
		"no such file or directory":          {Destination: "/x", Type: "bind", Source: "/no/such/dir", Options: []string{"bind"}},
		"Unknown parameter 'nonsense'":       {Destination: "/x", Type: "tmpfs", Source: "tmpfs", Options: []string{"nonsense=1"}},
		`"nofs" is not known to this kernel`: {Destination: "/x", Type: "nofs", Source: "x"},
		"is not a directory":                 {Destination: "/plink", Type: "proc", Source: "proc"},
	} {
		b := newBundle(t)
		os.Symlink("/proc", b.path("plink"))
		b.spec.Mounts = append(b.spec.Mounts, m)
		b.fails(want)
	}
}

func TestKernelRunDestinationStaysInside(t *testing.T) {
	b := newBundle(t)
	outside := filepath.Join(b.dir, "outside")
	os.Mkdir(outside, 0o755)
	os.Symlink("../../../../../../.."+outside, b.path("escape"))
	b.mount("/escape/made", "tmpfs", "tmpfs")
	b.sh("true")
	if _, err := os.Stat(filepath.Join(outside, "made")); err == nil {
		t.Error("a link in the image led a mount out of the root")
	}
	if _, err := os.Stat(filepath.Join(b.path(outside), "made")); err != nil {
		t.Error("the link's target was not made inside the root")
	}
}

func TestKernelRunMaskedAndReadonly(t *testing.T) {
	b := newBundle(t)
	b.file("etc/secret", "secret", 0o644)
	b.file("etc/fixed", "fixed", 0o644)
	b.spec.Linux.MaskedPaths = append(b.spec.Linux.MaskedPaths, "/etc/secret", "/mnt")
	b.spec.Linux.ReadonlyPaths = append(b.spec.Linux.ReadonlyPaths, "/etc/fixed")
	b.file("mnt/hidden", "x", 0o644)
	b.spec.Root.Readonly = true
	got := b.sh("cat /etc/secret; ls /mnt; (echo x >/etc/fixed) 2>&1; (echo x >/proc/sys/kernel/domainname) 2>&1; (echo x >/bin/x) 2>&1; cat /proc/keys; ls /sys/firmware; touch /dev/shm/ok")
	for _, not := range []string{"secret\n", "hidden"} {
		if strings.Contains(got, not) {
			t.Errorf("%q is not masked: %s", not, got)
		}
	}
	b.is(fmt.Sprint(strings.Count(got, "Read-only file system")), "3")
}

func TestKernelRunOverlay(t *testing.T) {
	b := newBundle(t)
	for _, d := range []string{"top", "upper", "work", "merged"} {
		os.Mkdir(filepath.Join(b.dir, d), 0o755)
	}
	os.WriteFile(filepath.Join(b.dir, "top", "fromtop"), []byte("top"), 0o644)
	b.spec.Root.Path = "merged"
	b.spec.Annotations = map[string]string{spec.RootfsAnnotation: fmt.Sprintf(`{"lower":[%q,%q],"upper":%q,"work":%q}`,
		filepath.Join(b.dir, "top"), b.path(""), filepath.Join(b.dir, "upper"), filepath.Join(b.dir, "work"))}
	got := b.sh("cat /fromtop; echo w >/written; grep -c ' / overlay' /proc/mounts")
	_ = got
	if data, err := os.ReadFile(filepath.Join(b.dir, "upper", "written")); err != nil || string(data) != "w\n" {
		t.Errorf("the write is not in the upper directory: %v", err)
	}
	b.contains(got, "top")
	if data, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(data), "merged") {
		t.Error("the host's mount table has the container's root")
	}
}

func TestKernelRunCapabilities(t *testing.T) {
	b := newBundle(t)
	b.spec.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{8, 7, 8}}
	caps := []string{"CAP_NET_RAW", "CAP_CHOWN", "CAP_NOT_INVENTED_YET"}
	b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps, Inheritable: caps, Ambient: caps[:1]}
	b.spec.Process.NoNewPrivileges = false
	got := b.sh("grep -E '^(Cap|NoNew|Groups|Uid|Gid)' /proc/self/status")
	for _, want := range []string{"CapInh:\t0000000000002001", "CapPrm:\t0000000000002000", "CapEff:\t0000000000002000", "CapBnd:\t0000000000002001",
		"CapAmb:\t0000000000002000", "NoNewPrivs:\t0", "Groups:\t7 8", "Uid:\t1000\t1000\t1000\t1000", "Gid:\t1001\t1001"} {
		b.contains(got, want)
	}
	b.spec.Process.NoNewPrivileges = true
	b.contains(b.sh("cat /proc/self/status"), "NoNewPrivs:\t1")
}

func TestKernelRunSeccomp(t *testing.T) {
	b := newBundle(t)
	for _, nnp := range []bool{true, false} {
		b.spec.Process.NoNewPrivileges = nnp
		errno := uint(95)
		b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchAARCH64},
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &errno}}}
		got := b.sh("mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status")
		b.contains(got, "Operation not supported")
		b.contains(got, "Seccomp:\t2")
	}
}

func TestKernelRunUserNamespace(t *testing.T) {
	b := newBundle(t)
	const base = 100000
	b.chown(base)
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: base, Size: 65536}}
	b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings = maps, maps
	src := filepath.Join(b.dir, "data")
	os.Mkdir(src, 0o700)
	os.WriteFile(filepath.Join(src, "mine"), []byte("root's"), 0o600)
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/mapped", Type: "bind", Source: src, Options: []string{"bind", "idmap"}},
		specs.Mount{Destination: "/unmapped", Type: "bind", Source: src, Options: []string{"bind"}})
	b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	all := []string{"CAP_SYS_ADMIN", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID"}
	b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	b.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 512, Hard: 1024}}
	got := b.sh("id -u; cat /proc/self/uid_map; cat /mapped/mine; echo; stat -c %u /mapped/mine; cat /unmapped/mine 2>&1; touch /mapped/new; ls /dev/null /dev/pts/ptmx; echo x >/dev/null; cat /proc/sys/net/ipv4/ip_forward; grep open /proc/self/limits")
	for _, want := range []string{"0\n", "100000", "root's\n0\n", "cat: can't open '/unmapped/mine'", "/dev/null\n", "\n1\n", "512"} {
		b.contains(got, want)
	}
	if st, err := os.Stat(filepath.Join(src, "new")); err != nil || fmt.Sprint(st.Sys()) == "" {
		t.Errorf("write through the mapped mount: %v", err)
	}
}

func TestKernelRunLimitsAndSettings(t *testing.T) {
	b := newBundle(t)
	mask := uint32(0o077)
	score := 500
	b.spec.Process.User.Umask = &mask
	b.spec.Process.OOMScoreAdj = &score
	b.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 0}, {Type: "RLIMIT_NPROC", Soft: 50, Hard: 60}}
	b.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_default_ttl": "77", "kernel.shmmax": "123456"}
	b.spec.Process.Cwd = "/made/here"
	b.spec.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
	b.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 5}
	b.spec.Domainname = "example.test"
	b.spec.Process.Env = append(b.spec.Process.Env, "GREETING=hello world")
	limit := int64(64 << 20)
	pids := int64(7)
	b.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}, Pids: &specs.LinuxPids{Limit: &pids}}
	got := b.sh("umask; pwd; cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shmmax /proc/sys/kernel/domainname; grep -E 'open|processes' /proc/self/limits; echo $GREETING $HOME; sed 's/.*) //' /proc/self/stat; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true")
	for _, want := range []string{"0077\n/made/here\n500\n77\n123456\nexample.test", "100                  200", "50                   60", "hello world /\n", " 25 5 ", "67108864", "\n7"} {
		b.contains(got, want)
	}
}

func TestKernelRunRefusals(t *testing.T) {
	for want, change := range map[string]func(*specs.Spec){
		"it would change the host": func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.panic": "1"} },
		"raising it needs CAP_SYS_RE": func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1 << 29, Hard: 1 << 29}}
		},
		"names no program":            func(s *specs.Spec) { s.Process.Args = nil },
		"is not an absolute path":     func(s *specs.Spec) { s.Process.Cwd = "relative" },
		"working directory /etc/file": func(s *specs.Spec) { s.Process.Cwd = "/etc/file" },
		"is not a namespace file":     func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "/etc/passwd" },
		"the root file system":        func(s *specs.Spec) { s.Root.Path = "nowhere" },
		"AppArmor profile":            func(s *specs.Spec) { s.Process.ApparmorProfile = "some-profile" },
		"SELinux":                     func(s *specs.Spec) { s.Process.SelinuxLabel = "a:b:c:d" },
	} {
		b := newBundle(t)
		b.file("etc/file", "", 0o644)
		change(b.spec)
		b.fails(want)
	}
}

func TestKernelRunLeaksNoDescriptors(t *testing.T) {
	b := newBundle(t)
	f, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b.spec.Process.Args = []string{"sh", "-c", "ls /proc/self/fd; ls -l /proc/$$/fd | grep -c passwd"}
	b.write()
	for preserve, want := range map[string]string{"0": "0\n1\n2\n3\n0\n", "1": "0\n1\n2\n3\n4\n1\n"} {
		cmd := b.command("run", "--preserve-fds", preserve, b.id)
		cmd.ExtraFiles = []*os.File{f}
		out, _ := cmd.Output()
		b.is(string(out), want)
	}
}

// Without a mount namespace everything is mounted below the root, and goes with the container.
func TestKernelRunWithoutMountNamespace(t *testing.T) {
	b := newBundle(t)
	b.spec.Linux.Namespaces = slices.DeleteFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace })
	b.spec.Linux.RootfsPropagation = ""
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	got := b.sh("readlink /proc/self/ns/mnt; cat /proc/mounts | grep -c ' /proc '; ls /")
	b.contains(got, own)
	if mounts, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(mounts), b.dir) {
		t.Errorf("mounts are left behind:\n%s", mounts)
	}
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/nosuch", Options: []string{"bind"}})
	b.fails("/nosuch")
	if mounts, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(mounts), b.dir) {
		t.Errorf("a create that failed leaves mounts:\n%s", mounts)
	}
}

func TestKernelRunHostNamespacesShared(t *testing.T) {
	b := newBundle(t)
	b.spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	b.spec.Hostname = ""
	for i, m := range b.spec.Mounts {
		if m.Destination == "/sys" {
			b.spec.Mounts[i] = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "ro"}}
		}
	}
	got := b.sh("readlink /proc/self/ns/pid; readlink /proc/self/ns/net; cat /proc/self/cgroup")
	for _, n := range []string{"pid", "net"} {
		own, _ := os.Readlink("/proc/self/ns/" + n)
		b.contains(got, own)
	}
	b.contains(got, b.id)
}
