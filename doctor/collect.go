package doctor

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Options tell Collect where to look.
type Options struct {
	DataRoot string // the nearest directory above it that exists is looked at; "" is /var/lib/shoal
	AskDNS   bool   // send each name server a question; takes seconds where one is silent
}

// Collect finds the facts out. It takes about 50 ms, changes nothing that stays, and gives what it has when
// something cannot be found out. Probes which need root are left out without it.
func Collect(ctx context.Context, o Options) Facts {
	if o.DataRoot == "" {
		o.DataRoot = "/var/lib/shoal"
	}
	f := Facts{Kernel: kernel(), Process: process(), Sysctls: sysctls(), Clock: clockFacts(), MemoryBytes: memory()}
	f.Cgroups = cgroups()
	f.Security = security()
	f.Emulators = emulators("/proc/sys/fs/binfmt_misc")
	f.Network = network()
	f.Network.Bridges = bridges()
	// What waits for the kernel waits at the same time: taking an overlay down costs 40 ms, namespaces 10.
	var wait sync.WaitGroup
	wait.Go(func() { f.Storage = storage(o.DataRoot); f.Storage.Damaged = damaged(o.DataRoot) })
	var quiet []string // not in f yet: another probe writes there
	if o.AskDNS {
		wait.Go(func() { quiet = silent(ctx, f.Network.Resolvers) })
	}
	if f.Process.UID == 0 && ctx.Err() == nil {
		wait.Go(func() { f.Namespaces = namespaces() })
		wait.Go(func() { probeInPrivate(&f) })
	}
	wait.Wait()
	f.Network.Silent = quiet
	return f
}

func kernel() Kernel {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return Kernel{}
	}
	k := Kernel{Release: unix.ByteSliceToString(u.Release[:]), Machine: unix.ByteSliceToString(u.Machine[:])}
	k.Major, k.Minor = parseRelease(k.Release)
	return k
}

// parseRelease reads "6.18.44-x" and "6.1-rc3".
func parseRelease(s string) (major, minor int) {
	a, rest, _ := strings.Cut(s, ".")
	major, _ = strconv.Atoi(a)
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		rest = rest[:end]
	}
	minor, _ = strconv.Atoi(rest)
	return major, minor
}

var usedCaps = []struct {
	name string
	bit  uint
}{
	{"CAP_CHOWN", unix.CAP_CHOWN}, {"CAP_DAC_OVERRIDE", unix.CAP_DAC_OVERRIDE}, {"CAP_FOWNER", unix.CAP_FOWNER}, {"CAP_KILL", unix.CAP_KILL},
	{"CAP_SETGID", unix.CAP_SETGID}, {"CAP_SETUID", unix.CAP_SETUID}, {"CAP_SETPCAP", unix.CAP_SETPCAP}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN},
	{"CAP_NET_RAW", unix.CAP_NET_RAW}, {"CAP_SYS_CHROOT", unix.CAP_SYS_CHROOT}, {"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE},
	{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN}, {"CAP_SYS_RESOURCE", unix.CAP_SYS_RESOURCE}, {"CAP_MKNOD", unix.CAP_MKNOD}, {"CAP_SETFCAP", unix.CAP_SETFCAP},
}

func process() Process {
	p := Process{UID: os.Geteuid()}
	effective, err := strconv.ParseUint(statusLine("CapEff"), 16, 64)
	if err == nil {
		for _, c := range usedCaps {
			if effective&(1<<c.bit) == 0 {
				p.MissingCaps = append(p.MissingCaps, c.name)
			}
		}
	}
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) == nil {
		p.FilesSoft, p.FilesHard = r.Cur, r.Max
	}
	return p
}

// statusLine reads one line of /proc/self/status.
func statusLine(key string) string {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

var wantedSysctls = []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.bridge.bridge-nf-call-iptables",
	"net.netfilter.nf_conntrack_max", "kernel.pid_max", "fs.inotify.max_user_instances", "fs.inotify.max_user_watches", "user.max_user_namespaces"}

func sysctls() map[string]int64 {
	out := map[string]int64{}
	for _, n := range wantedSysctls {
		b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(n, ".", "/"))
		if err != nil {
			continue
		}
		if v, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
			out[n] = v
		}
	}
	return out
}

func clockFacts() Clock {
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	const timeError = 5 // TIME_ERROR: not synchronized
	c := Clock{Synchronized: err == nil && state != timeError}
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME, &ts) == nil {
		c.Unix = ts.Sec
	}
	return c
}

func memory() uint64 {
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) != nil {
		return 0
	}
	return uint64(s.Totalram) * uint64(s.Unit)
}

// cgroups reads the mounts; the runtime's cgroup package has the full story, which this room may not import.
func cgroups() Cgroups {
	c := Cgroups{Mode: "none", Controllers: map[string]bool{}}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return c
	}
	v1, v2, anyDir := false, false, ""
	for line := range bytes.Lines(b) {
		sep := bytes.Index(line, []byte(" - cgroup"))
		if sep < 0 {
			continue
		}
		pre, post := strings.Fields(string(line[:sep])), strings.Fields(string(line[sep+3:]))
		if len(pre) < 5 || len(post) < 3 {
			continue
		}
		dir := pre[4]
		if post[0] == "cgroup2" {
			v2 = true
			list, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
			for _, name := range strings.Fields(string(list)) {
				c.Controllers[name] = true
				if name == "memory" {
					// The files are in groups only, and only after somebody has passed the controller on to them.
					c.SwapLimit = existsAny(dir, "*/memory.swap.max") || !existsAny(dir, "*/memory.max") && existsAny("/proc", "swaps")
				}
			}
			anyDir = dir
			continue
		}
		v1 = true
		for name := range strings.SplitSeq(post[2], ",") {
			c.Controllers[name] = true
			switch name {
			case "memory":
				_, err := os.Stat(filepath.Join(dir, "memory.memsw.limit_in_bytes"))
				c.SwapLimit = err == nil
			case "pids":
				anyDir = dir
			}
		}
		if anyDir == "" {
			anyDir = dir
		}
	}
	switch {
	case v1 && v2:
		c.Mode = "hybrid"
	case v1:
		c.Mode = "v1"
	case v2:
		c.Mode = "v2"
	}
	if anyDir != "" && os.Geteuid() == 0 {
		dir := filepath.Join(anyDir, fmt.Sprintf("shoal-doctor-%d", os.Getpid()))
		c.Writable = probed(os.Mkdir(dir, 0o755))
		_ = os.Remove(dir)
	}
	return c
}

func existsAny(dir, pattern string) bool {
	m, _ := filepath.Glob(filepath.Join(dir, pattern))
	return len(m) > 0
}

func probed(err error) Probe {
	if err != nil {
		return Probe{Tried: true, Error: err.Error()}
	}
	return Probe{Tried: true, OK: true}
}

func security() Security {
	s := Security{NoNewPrivs: statusLine("NoNewPrivs") == "1"}
	// A filter that cannot be read: EFAULT means that filters are there, EINVAL that they are not.
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, 0)
	if e == unix.EFAULT || e == unix.EACCES {
		s.Seccomp = probed(nil)
	} else {
		s.Seccomp = probed(e)
	}
	if b, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail"); err == nil {
		s.SeccompActions = strings.Fields(string(b))
	}
	if b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err == nil && len(b) > 0 && b[0] == 'Y' {
		_, err := os.Stat("/sys/kernel/security/apparmor")
		s.AppArmor = err == nil
	}
	_, err := exec.LookPath("apparmor_parser")
	s.AppArmorParser = err == nil
	_, err = os.Stat("/sys/fs/selinux/enforce")
	s.SELinux = err == nil
	return s
}

// emulators lists QEMU's handlers that are switched on. Where the kernel's directory is not mounted there may be some that
// cannot be seen; hosts with systemd have it.
func emulators(dir string) (out []Emulator) {
	files, _ := filepath.Glob(filepath.Join(dir, "qemu-*"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(text), "enabled") {
			continue
		}
		e := Emulator{Name: filepath.Base(file)}
		for line := range strings.Lines(string(text)) {
			switch key, value, _ := strings.Cut(strings.TrimSpace(line), " "); key {
			case "interpreter":
				e.Program = value
			case "flags:":
				e.Fixed = strings.Contains(value, "F")
			}
		}
		out = append(out, e)
	}
	return out
}

var fileSystems = map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.NFS_SUPER_MAGIC: "nfs", 0x2fc12fc1: "zfs", unix.F2FS_SUPER_MAGIC: "f2fs", unix.FUSE_SUPER_MAGIC: "fuse",
	0xca451a4e: "bcachefs"}

func fileSystem(fs *unix.Statfs_t) string {
	if name := fileSystems[int64(fs.Type)]; name != "" {
		return name
	}
	return fmt.Sprintf("file system %#x", fs.Type)
}

// FileSystem names the kind of file system that a path is on; "" when there is no such path.
func FileSystem(path string) string {
	var fs unix.Statfs_t
	if unix.Statfs(path, &fs) != nil {
		return ""
	}
	return fileSystem(&fs)
}

func storage(dataRoot string) Storage {
	dir := filepath.Clean(dataRoot)
	for dir != "/" {
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			break
		}
		dir = filepath.Dir(dir)
	}
	s := Storage{DataRoot: dataRoot}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return s
	}
	s.FileSystem = fileSystem(&fs)
	size := uint64(fs.Frsize)
	if size == 0 {
		size = uint64(fs.Bsize)
	}
	s.Total, s.Free, s.Files, s.FilesFree = fs.Blocks*size, fs.Bavail*size, fs.Files, fs.Ffree
	flags := int64(fs.Flags)
	s.ReadOnly, s.NoExec = flags&unix.ST_RDONLY != 0, flags&unix.ST_NOEXEC != 0
	s.NoSUID, s.NoDev = flags&unix.ST_NOSUID != 0, flags&unix.ST_NODEV != 0
	if os.Geteuid() == 0 && !s.ReadOnly {
		s.Overlay, s.Xattr = probeOverlay(dir)
	}
	return s
}

func network() Network {
	n := Network{Links: map[string]Probe{}, LegacyIPv4: lines("/proc/net/ip_tables_names"), LegacyIPv6: lines("/proc/net/ip6_tables_names")}
	for _, l := range lines("/etc/resolv.conf") {
		if f := strings.Fields(l); len(f) >= 2 && f[0] == "nameserver" {
			if _, err := netip.ParseAddr(f[1]); err == nil {
				n.Resolvers = append(n.Resolvers, f[1])
			}
		}
	}
	for _, l := range lines("/proc/net/route") {
		f := strings.Fields(l)
		n.DefaultIPv4 = n.DefaultIPv4 || len(f) > 7 && f[1] == "00000000" && f[7] == "00000000"
	}
	return n
}

func lines(file string) []string {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if l := strings.TrimSpace(s.Text()); l != "" {
			out = append(out, l)
		}
	}
	return slices.Clip(out)
}
