//go:build kernel

package escape

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// CVE-2019-5736: a container makes the runtime execute itself inside and overwrites the host's binary through
// /proc/PID/exe.
func TestRuntimeBinaryCannotBeOverwritten(t *testing.T) {
	c := newCage(t)
	c.spec.Process.Capabilities.Effective = append(c.spec.Process.Capabilities.Effective, "CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE")
	c.spec.Process.Capabilities.Permitted = c.spec.Process.Capabilities.Effective
	c.spec.Process.Capabilities.Bounding = c.spec.Process.Capabilities.Effective
	c.sh("mkfifo /tmp/config.json; sleep 1000").background()
	before, err := os.ReadFile(runtimeBinary)
	c.must(err)
	// The program of the exec is the runtime itself, as the advisory does it; it then waits for somebody to write the
	// configuration, so that there is all the time to overwrite it.
	for range 3 {
		if out, err := c.run("exec", "--detach", c.id, "/proc/self/exe", "run", "--bundle", "/tmp", "x"); err != nil {
			t.Logf("exec: %v: %s", err, out)
		}
	}
	out, err := c.run("exec", c.id, "/bin/sh", "-c", `for p in /proc/[0-9]*; do
		exe="$(readlink $p/exe)"; case "$exe" in /bin/busybox) ;; *) echo "met $exe"; (echo overwritten >$p/exe) && echo SUCCESS
			(exec 3<$p/exe; echo overwritten >/proc/self/fd/3) && echo SUCCESS;; esac
	done; true`)
	if err != nil || !strings.Contains(out, "met ") || strings.Contains(out, "SUCCESS") {
		t.Errorf("%v: %s", err, out)
	}
	after, err := os.ReadFile(runtimeBinary)
	c.must(err)
	if string(before) != string(after) {
		t.Error("the runtime's binary was overwritten")
	}
	if strings.Contains(out, filepath.Dir(runtimeBinary)) {
		t.Logf("the container can see where the runtime lies: %s", out)
	}
}

// CVE-2019-5736, the other way: the image's first process is /proc/self/exe.
func TestImageCannotStartTheRuntimeItself(t *testing.T) {
	c := newCage(t)
	c.spec.Process.Args = []string{"/proc/self/exe", "--version"}
	out, _ := c.start()
	if strings.Contains(out, runtimeBinary) {
		t.Errorf("the container knows the host's path of the runtime: %s", out)
	}
}

// CVE-2024-21626: the working directory is a descriptor of the host that the runtime left open.
func TestWorkingDirectoryCannotBeADescriptorOfTheHost(t *testing.T) {
	c := newCage(t)
	outside := c.outside()
	for fd := 3; fd < 24; fd++ {
		c.spec.Process.Cwd = "/proc/self/fd/" + string('0'+rune(fd/10)) + string('0'+rune(fd%10))
		if fd < 10 {
			c.spec.Process.Cwd = "/proc/self/fd/" + string('0'+rune(fd))
		}
		c.sh("cat ." + strings.Repeat("/..", 12) + outside + "/ptmx; ls -la " + strings.Repeat("../", 12))
		out, _ := c.start()
		if strings.Contains(out, secret) {
			t.Fatalf("cwd %s reads the host's files: %s", c.spec.Process.Cwd, out)
		}
		c.run("delete", "--force", c.id)
	}
}

// CVE-2024-21626 by exec.
func TestExecWorkingDirectoryCannotBeADescriptorOfTheHost(t *testing.T) {
	c := newCage(t)
	outside := c.outside()
	c.sh("sleep 1000").background()
	for fd := 3; fd < 16; fd++ {
		out, _ := c.run("exec", "--cwd", filepath.Join("/proc/self/fd", itoa(fd)), c.id, "/bin/sh", "-c", "cat ."+strings.Repeat("/..", 12)+outside+"/ptmx")
		if strings.Contains(out, secret) {
			t.Fatalf("descriptor %d reads the host's files: %s", fd, out)
		}
	}
}

func itoa(n int) string {
	if n >= 10 {
		return itoa(n/10) + itoa(n%10)
	}
	return string('0' + rune(n))
}

// CVE-2024-21626, CVE-2016-9962: nothing but the standard streams is open in the container.
func TestNoDescriptorLeaks(t *testing.T) {
	c := newCage(t)
	// ls itself opens the directory as 3.
	out, err := c.sh("ls /proc/self/fd").start()
	if err != nil || !strings.HasPrefix(out, "0\n1\n2\n3\n") || strings.HasPrefix(out, "0\n1\n2\n3\n4\n") {
		t.Errorf("descriptors: %q, %v", out, err)
	}
}

// CVE-2021-30465, CVE-2019-18837 (crun): the image's link leads a mount to a directory of the host.
func TestMountTargetStaysInside(t *testing.T) {
	c := newCage(t)
	outside := c.outside()
	// Not names that TMPDIR may begin with: the link would lead to itself.
	c.must(os.Symlink(outside, filepath.Join(c.rootfs, "absolute")))
	c.must(os.Symlink("../../../../../../../../.."+outside, filepath.Join(c.rootfs, "relative")))
	source := filepath.Join(c.dir, "source")
	c.must(os.MkdirAll(source, 0o755))
	c.spec.Mounts = append(c.spec.Mounts, specs.Mount{Destination: "/absolute/new", Type: "bind", Source: source, Options: []string{"rbind"}},
		specs.Mount{Destination: "/relative/new2", Type: "tmpfs", Source: "tmpfs"})
	out, err := c.sh("echo in >/absolute/new/file && ls " + outside).start()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(source, "file")); err != nil {
		t.Error("the mount is not where the container sees /absolute/new")
	}
	if strings.Contains(out, "ptmx") {
		t.Error("the container sees the host's directory")
	}
}

// CVE-2021-30465, CVE-2024-45310, CVE-2019-19921, CVE-2026-41568, CVE-2026-42306: another container exchanges a
// directory of a shared volume for a link to the host while the mounts of this one are made below it.
func TestMountTargetRace(t *testing.T) {
	c := newCage(t)
	outside := c.outside()
	volume := filepath.Join(c.dir, "volume")
	c.must(os.MkdirAll(filepath.Join(volume, "a/sub"), 0o755))
	c.must(os.Symlink(outside, filepath.Join(volume, "b")))
	c.spec.Mounts = append(c.spec.Mounts, specs.Mount{Destination: "/vol", Type: "bind", Source: volume, Options: []string{"rbind"}},
		specs.Mount{Destination: "/vol/a/x/y", Type: "tmpfs", Source: "tmpfs"},
		specs.Mount{Destination: "/vol/a/sub/z", Type: "bind", Source: c.rootfs, Options: []string{"bind"}})
	var stop atomic.Bool
	done := make(chan int)
	go func() {
		n := 0
		for ; !stop.Load(); n++ {
			_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(volume, "a"), unix.AT_FDCWD, filepath.Join(volume, "b"), unix.RENAME_EXCHANGE)
		}
		done <- n
	}()
	c.sh("echo x >/vol/a/x/y/file; echo x >/vol/b/x/y/file; echo; true")
	for range 40 {
		out, _ := c.start()
		c.run("delete", "--force", c.id)
		if strings.Contains(out, secret) {
			t.Fatal(out)
		}
	}
	stop.Store(true)
	t.Logf("%d exchanges during 40 starts", <-done)
}

// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: /proc of the image is a link, so that what the runtime writes there
// goes to files of the image.
func TestProcMustNotBeALink(t *testing.T) {
	c := newCage(t)
	c.must(os.Remove(filepath.Join(c.rootfs, "proc")))
	c.must(os.Mkdir(filepath.Join(c.rootfs, "tmp/fake"), 0o755))
	c.must(os.Symlink("/tmp/fake", filepath.Join(c.rootfs, "proc")))
	out, err := c.sh("echo started").start()
	refused(t, out, err, "/proc")
}

// CVE-2019-16884: a volume of the image covers /proc, so that labels are written into its files.
func TestNothingIsMountedOverProc(t *testing.T) {
	for _, dest := range []string{"/proc", "/proc/self/attr", "/proc/sys/kernel"} {
		c := newCage(t)
		fake := filepath.Join(c.dir, "fake")
		c.must(os.MkdirAll(fake, 0o755))
		c.spec.Mounts = append(c.spec.Mounts, specs.Mount{Destination: dest, Type: "bind", Source: fake, Options: []string{"rbind"}})
		out, err := c.sh("echo started").start()
		refused(t, out, err, dest)
	}
}

// CVE-2025-52881: the write of a sysctl is led to another file of procfs, or to a file of the image.
func TestSysctlIsNotLedElsewhere(t *testing.T) {
	c := newCage(t)
	outside := c.outside()
	c.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_default_ttl": "77"}
	c.spec.Mounts = append(c.spec.Mounts, specs.Mount{Destination: "/proc/sys/net/ipv4/ip_default_ttl", Type: "bind", Source: filepath.Join(outside, "ptmx"), Options: []string{"bind"}})
	out, err := c.sh("cat /proc/sys/net/ipv4/ip_default_ttl").start()
	refused(t, out, err, "procfs")
	for _, key := range []string{"../../etc/x", "kernel/../../self/attr/exec", "net/../kernel.core_pattern"} {
		c := newCage(t)
		c.spec.Linux.Sysctl = map[string]string{key: "x"}
		if out, err := c.sh("true").start(); err == nil {
			t.Errorf("sysctl %q was written: %s", key, out)
		}
	}
}

// CVE-2025-31133: the image's /dev/null is something else, which then covers, or opens, a masked path.
func TestMaskIsTheRealNullDevice(t *testing.T) {
	for name, spoil := range map[string]func(c *cage){
		"link to a writable file": func(c *cage) { c.must(os.Symlink("/proc/sysrq-trigger", filepath.Join(c.rootfs, "dev/null"))) },
		"regular file":            func(c *cage) { c.must(os.WriteFile(filepath.Join(c.rootfs, "dev/null"), []byte("x"), 0o666)) },
		"link to nothing":         func(c *cage) { c.must(os.Symlink("/tmp/nothing", filepath.Join(c.rootfs, "dev/null"))) },
		"link to another device":  func(c *cage) { c.must(os.Symlink("/dev/zero", filepath.Join(c.rootfs, "dev/null"))) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCage(t)
			c.dropMount("/dev")
			spoil(c)
			out, err := c.sh("dd if=/proc/kcore bs=1 count=4 2>/dev/null; echo =; (: >>/proc/sysrq-trigger) 2>/dev/null && echo OPENED; echo end").start()
			t.Logf("%v: %q", err, out)
			if err == nil && out != "=\nend\n" {
				t.Errorf("a masked path can be read, or a read-only one opened: %q", out)
			}
		})
	}
}

// CVE-2026-41579 (runc), CVE-2026-47766 (crun): /dev of the image is a link to the host, where ptmx is deleted and
// links are made.
func TestDevLinkStaysInside(t *testing.T) {
	c := newCage(t)
	outside := c.outside()
	c.dropMount("/dev")
	c.must(os.Remove(filepath.Join(c.rootfs, "dev")))
	c.must(os.Symlink(outside, filepath.Join(c.rootfs, "dev")))
	out, err := c.sh("ls /dev/").start() // outside checks the host's side
	t.Logf("%v: %s", err, out)
}

// CVE-2022-24769, CVE-2022-29162, CVE-2022-27650 (crun): inheritable capabilities come back by file capabilities.
func TestNoInheritableCapabilities(t *testing.T) {
	c := newCage(t)
	c.sh("sleep 1000").background()
	for _, args := range [][]string{{"exec", c.id}, {"exec", "--cap", "CAP_NET_RAW", c.id}} {
		out, err := c.run(append(args, "/bin/grep", "CapInh", "/proc/self/status")...)
		if err != nil || !strings.Contains(out, "CapInh:\t0000000000000000") {
			t.Errorf("%v: %s%v", args, out, err)
		}
	}
}

// CVE-2026-30892 (crun): exec --user 1 ran as root. CVE-2022-36109 and CVE-2023-25173: supplementary groups of root stay.
func TestExecUserIsTheOneAskedFor(t *testing.T) {
	c := newCage(t)
	c.sh("sleep 1000").background()
	for user, want := range map[string]string{"1": "uid=1 gid=0", "1:2": "uid=1 gid=2", "1000:1000": "uid=1000 gid=1000"} {
		out, err := c.run("exec", "--user", user, c.id, "/bin/id")
		if err != nil || !strings.HasPrefix(out, want) {
			t.Errorf("--user %s: %q, %v", user, out, err)
		}
		if strings.Contains(out, "groups=") && strings.Contains(strings.Split(out, "groups=")[1], ",") {
			t.Errorf("--user %s: supplementary groups: %s", user, out)
		}
	}
	for _, user := range []string{"-1", "4294967296", "4294967295", "root", "1:", "1:x", ""} {
		if out, err := c.run("exec", "--user", user, c.id, "/bin/id"); err == nil && strings.Contains(out, "uid=0") && user != "" {
			t.Errorf("--user %q is root: %s", user, out)
		}
	}
}

// CVE-2024-40635: a user id out of range becomes root. 4294967295 is "leave it" to setuid(2): also root.
func TestUserIDDoesNotOverflow(t *testing.T) {
	c := newCage(t)
	c.spec.Process.User.UID = 4294967295
	out, err := c.sh("id").start()
	refused(t, out, err, "4294967295")
	c = newCage(t)
	c.spec.Process.User.AdditionalGids = []uint32{4294967295}
	if out, err := c.sh("id").start(); err == nil {
		t.Errorf("additional gid 4294967295: %s", out)
	}
}

// CVE-2022-0492, CVE-2023-25809: a container mounts or writes control groups and has the host run its release agent.
func TestControlGroupsAreReadOnly(t *testing.T) {
	c := newCage(t)
	out, err := c.sh(`for d in /sys/fs/cgroup /sys/fs/cgroup/*; do
		mkdir $d/escape 2>/dev/null && echo "MADE $d/escape"
		(echo /x >$d/release_agent) 2>/dev/null && echo "WROTE $d/release_agent"
		(echo 1 >$d/notify_on_release) 2>/dev/null && echo "WROTE $d/notify_on_release"
	done
	mkdir /tmp/cg; mount -t cgroup -o memory none /tmp/cg 2>/dev/null && echo MOUNTED; mount -t cgroup2 none /tmp/cg 2>/dev/null && echo MOUNTED
	echo end`).start()
	if err != nil || out != "end\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// A container with CAP_MKNOD makes the host's disk and reads it: the device rules forbid to open it.
func TestHostDisksCannotBeOpened(t *testing.T) {
	c := newCage(t)
	caps := append(c.spec.Process.Capabilities.Effective, "CAP_MKNOD", "CAP_DAC_OVERRIDE")
	c.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	var st unix.Stat_t
	c.must(unix.Stat("/", &st))
	dev := itoa(int(unix.Major(st.Dev))) + " " + itoa(int(unix.Minor(st.Dev)))
	out, err := c.sh("mknod /tmp/disk b " + dev + "; dd if=/tmp/disk of=/dev/null bs=512 count=1 2>/dev/null && echo READ; mknod /tmp/kmsg c 1 11; (cat /tmp/kmsg >/dev/null) 2>/dev/null && echo READ; echo end").start()
	if err != nil || !strings.HasSuffix(out, "end\n") || strings.Contains(out, "READ") {
		t.Errorf("%v: %s", err, out)
	}
}

// CVE-2020-15257: the supervisor listens on an abstract socket, which host-network containers reach.
func TestNoAbstractSockets(t *testing.T) {
	c := newCage(t)
	kept := c.spec.Linux.Namespaces[:0]
	for _, n := range c.spec.Linux.Namespaces {
		if n.Type != specs.NetworkNamespace {
			kept = append(kept, n)
		}
	}
	c.spec.Linux.Namespaces = kept
	for i := range c.spec.Mounts {
		if m := &c.spec.Mounts[i]; m.Destination == "/sys" {
			*m = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "ro"}}
		}
	}
	out, err := c.sh("cat /proc/net/unix").start()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(out) {
		if i := strings.IndexByte(line, '@'); i >= 0 && (strings.Contains(line[i:], "shoal") || strings.Contains(line[i:], c.id)) {
			t.Errorf("an abstract socket: %s", line)
		}
	}
}

// CVE-2021-41091, CVE-2021-41103, CVE-2024-25621: other users of the host walk into the runtime's directories.
func TestStateIsClosedToOtherUsers(t *testing.T) {
	c := newCage(t)
	c.sh("sleep 1000").background()
	// Others may pass through (a user-namespaced init must), but neither list nor read nor write.
	err := filepath.Walk(filepath.Join(c.dir, "state"), func(p string, st os.FileInfo, err error) error {
		if err == nil && st.Mode().Perm()&0o066 != 0 && st.Mode()&os.ModeSymlink == 0 {
			t.Errorf("%s has mode %v", p, st.Mode())
		}
		return err
	})
	c.must(err)
}

// CVE-2025-52565: what lies at /dev/console or /dev/pts of the image is used for the terminal.
func TestImageTerminalsAreNotUsed(t *testing.T) {
	c := newCage(t)
	outside := c.outside()
	c.dropMount("/dev")
	c.must(os.Mkdir(filepath.Join(c.rootfs, "dev/pts"), 0o755))
	c.must(os.Symlink("/proc/sysrq-trigger", filepath.Join(c.rootfs, "dev/pts/ptmx")))
	c.must(os.Symlink(outside+"/ptmx", filepath.Join(c.rootfs, "dev/console")))
	c.spec.Process.Terminal = true
	out, err := c.sh("true").startTerminal()
	refused(t, out, err, "devpts")
	// With a devpts of its own it starts, and the terminal is mounted on a file inside.
	c.run("delete", "--force", c.id)
	c.spec.Mounts = append(c.spec.Mounts, specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}})
	out, err = c.sh("echo to the console >/dev/console; ls -l /proc/self/fd/0").startTerminal()
	if err != nil || !strings.Contains(out, "to the console") || !strings.Contains(out, "/dev/pts/") {
		t.Errorf("%v: %s", err, out)
	}
}

// A program of the container reads the memory or descriptors of the runtime's init that is still in its namespaces.
func TestInitIsNotDumpable(t *testing.T) {
	c := newCage(t)
	c.sh(`while :; do for p in /proc/[0-9]*; do case "$(readlink $p/exe 2>/dev/null)" in /bin/busybox|"") ;;
		*) ls $p/fd/ >/dev/null 2>&1 && ls -l $p/fd/ >>/tmp/log 2>&1;; esac; done; done`)
	c.background()
	for range 10 {
		c.run("exec", c.id, "/bin/echo")
	}
	log, _ := os.ReadFile(filepath.Join(c.rootfs, "tmp/log"))
	if strings.Contains(string(log), "/") && strings.Contains(string(log), c.dir) {
		t.Errorf("descriptors of the runtime could be listed:\n%s", log)
	}
}
