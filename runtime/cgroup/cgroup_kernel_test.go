//go:build kernel

package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

func ptr[T any](v T) *T { return &v }

func kernelManager(t *testing.T, res *specs.LinuxResources) *Manager {
	t.Helper()
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	m, err := h.New(Config{Path: fmt.Sprintf("/shoal-test-%d/%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Create(res); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.KillAll(); err != nil && m.Exists() {
			t.Error(err)
		}
		if err := m.Destroy(); err != nil {
			t.Error(err)
		}
		if m.Exists() {
			t.Error("groups are left")
		}
		for _, d := range m.dirs {
			_ = rmdir(d[:strings.LastIndex(d, "/")])
		}
	})
	return m
}

// spawn starts a program born in the groups; its end is collected at the end of the test.
func spawn(t *testing.T, m *Manager, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(args[0], args[1:]...)
	err := m.Spawn(func(fd int) error {
		c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: fd >= 0, CgroupFD: fd}
		return c.Start()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.KillAll(); _ = c.Wait() })
	return c
}

func TestKernelSpawnIsBornInEveryGroup(t *testing.T) {
	m := kernelManager(t, nil)
	before, _ := os.ReadFile("/proc/thread-self/cgroup")
	c := spawn(t, m, "sleep", "1000")
	got, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(got)), "\n") {
		if !strings.HasSuffix(line, ":"+m.Path()) {
			t.Errorf("not in the group: %s", line)
		}
	}
	after, _ := os.ReadFile("/proc/thread-self/cgroup")
	if string(before) != string(after) {
		t.Errorf("the calling thread was moved:\n%s", after)
	}
	pids, err := m.Pids()
	if err != nil || len(pids) != 1 || pids[0] != c.Process.Pid {
		t.Errorf("pids = %v, %v; want [%d]", pids, err, c.Process.Pid)
	}
}

func TestKernelLimitsAreInForce(t *testing.T) {
	res := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(64 << 20))},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Cpus: "0"},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(100))},
	}
	m := kernelManager(t, res)
	if m.host.Mode == V2 {
		t.Skip("the file names below are v1's")
	}
	check := func(controller, file, want string) {
		t.Helper()
		got, err := readFile(m.dirs[m.host.find(controller)] + "/" + file)
		if err != nil || strings.TrimSpace(got) != want {
			t.Errorf("%s = %q, %v; want %q", file, got, err, want)
		}
	}
	check("memory", "memory.limit_in_bytes", "67108864")
	check("memory", "memory.memsw.limit_in_bytes", "67108864")
	check("cpu", "cpu.shares", "512")
	check("cpu", "cpu.cfs_quota_us", "50000")
	check("cpuset", "cpuset.cpus", "0")
	check("pids", "pids.max", "100")
	// Up and down again: each needs the other order of memory and sum.
	for _, n := range []int64{256 << 20, 32 << 20} {
		if err := m.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &n, Swap: &n}}); err != nil {
			t.Fatal(err)
		}
		check("memory", "memory.limit_in_bytes", fmt.Sprint(n))
		check("memory", "memory.memsw.limit_in_bytes", fmt.Sprint(n))
	}
	// Half a change is no change.
	err := m.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(700)), Cpus: "4000"}})
	if err == nil || !strings.Contains(err.Error(), "cpuset.cpus") || !errs.Is(err, errs.Invalid) {
		t.Errorf("err = %v", err)
	}
	check("cpu", "cpu.shares", "512")
}

func TestKernelDevices(t *testing.T) {
	fuse := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: ptr(int64(10)), Minor: ptr(int64(229)), Access: "rwm"}
	m := kernelManager(t, &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}, fuse}})
	tryOpen := func(dev string) string {
		c := exec.Command("/bin/sh", "-c", "exec 3<"+dev)
		var out strings.Builder
		c.Stderr = &out
		if err := m.Spawn(func(fd int) error {
			c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: fd >= 0, CgroupFD: fd}
			return c.Start()
		}); err != nil {
			t.Fatal(err)
		}
		if c.Wait() == nil {
			return "open"
		}
		return out.String()
	}
	kmsg := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(11)), Access: "r"}
	if got := tryOpen("/dev/null"); got != "open" {
		t.Error("null:", got)
	}
	if got := tryOpen("/dev/kmsg"); got == "open" {
		t.Error("kmsg could be opened")
	}
	if err := m.Set(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}, kmsg}}); err != nil {
		t.Fatal(err)
	}
	if got := tryOpen("/dev/kmsg"); got != "open" {
		t.Error("kmsg:", got)
	}
	if err := m.Set(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}); err != nil {
		t.Fatal(err)
	}
	if got := tryOpen("/dev/kmsg"); got != "open" {
		t.Error("kmsg:", got)
	}
}

// The eBPF program works on any cgroup2 hierarchy, also on hybrid hosts: it is tested there beside the v1 rules.
func TestKernelDeviceProgram(t *testing.T) {
	m := kernelManager(t, &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}})
	u := m.host.unified()
	if u < 0 {
		t.Skip("no cgroup2 here")
	}
	try := func(dev string, flags string) bool {
		c := exec.Command("/bin/sh", "-c", "exec 3"+flags+dev)
		if err := m.Spawn(func(fd int) error {
			c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
			return c.Start()
		}); err != nil {
			t.Fatal(err)
		}
		return c.Wait() == nil
	}
	for round, k := range []struct {
		rules      []deviceRule
		kmsg, zero bool
	}{
		{defaultDevices[:], false, true},
		{append([]deviceRule{{true, 'a', -1, -1, accAll}}, deviceRule{false, 'c', 1, 11, accRead}), false, true},
		{[]deviceRule{{true, 'c', 1, -1, accAll}, {false, 'c', 1, 5, accWrite}}, true, true},
	} {
		if err := attachDevices(m.dirs[u], k.rules); err != nil {
			t.Fatal(err)
		}
		if got := try("/dev/kmsg", "<"); got != k.kmsg {
			t.Errorf("round %d: kmsg opened: %v", round, got)
		}
		if got := try("/dev/zero", "<"); got != k.zero {
			t.Errorf("round %d: zero opened: %v", round, got)
		}
		if round == 2 && try("/dev/zero", ">") {
			t.Error("zero could be opened for writing")
		}
		fd, _ := unix.Open(m.dirs[u], unix.O_RDONLY, 0)
		ids, err := attached(fd)
		unix.Close(fd)
		if err != nil || len(ids) != 1 {
			t.Errorf("programs attached: %v, %v", ids, err)
		}
	}
}

func TestKernelFreezeKillDestroy(t *testing.T) {
	m := kernelManager(t, nil)
	c := spawn(t, m, "sh", "-c", "sleep 1000 & sleep 1000 & wait")
	if err := m.Freeze(); err != nil {
		t.Fatal(err)
	}
	if f, err := m.Frozen(); err != nil || !f {
		t.Fatal("not frozen", err)
	}
	if err := m.Thaw(); err != nil {
		t.Fatal(err)
	}
	if f, err := m.Frozen(); err != nil || f {
		t.Fatal("frozen", err)
	}
	if err := m.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := m.KillAll(); err != nil {
		t.Fatal(err)
	}
	if err := m.Destroy(); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("ended with %v", err)
	}
}

func TestKernelOOM(t *testing.T) {
	m := kernelManager(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(16 << 20)), Swap: ptr(int64(16 << 20))}})
	w, err := m.WatchOOM()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	c := spawn(t, m, "sh", "-c", "head -c 100000000 /dev/zero | tail >/dev/null")
	fds := []unix.PollFd{{Fd: int32(w.FD()), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 60000); n != 1 {
		t.Fatal("no news of the kill", err)
	}
	_ = c.Wait()
	if n, err := w.Read(); err != nil || n == 0 {
		t.Fatalf("kills = %d, %v", n, err)
	}
}

func TestKernelTakenGroupIsRefused(t *testing.T) {
	m := kernelManager(t, nil)
	spawn(t, m, "sleep", "1000")
	other, _ := m.host.New(Config{Path: m.Path()})
	if err := other.Create(nil); !errs.Is(err, errs.Conflict) {
		t.Fatalf("err = %v", err)
	}
	if !m.Exists() {
		t.Fatal("the refused one removed the first one's groups")
	}
}

// What a start pays for: not a benchmark with a limit in it, but the number is in the log.
func TestKernelCosts(t *testing.T) {
	h, _ := Detect()
	var create, spawn, destroy time.Duration
	const rounds = 20
	for i := range rounds {
		t0 := time.Now()
		m, err := h.New(Config{Path: fmt.Sprintf("/shoal-test-%d-cost/%d", os.Getpid(), i)})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Create(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
			Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}, CPU: &specs.LinuxCPU{Shares: ptr(uint64(512))}}); err != nil {
			t.Fatal(err)
		}
		t1 := time.Now()
		if err := m.Spawn(func(int) error { return nil }); err != nil {
			t.Fatal(err)
		}
		t2 := time.Now()
		if err := m.Destroy(); err != nil {
			t.Fatal(err)
		}
		create, spawn, destroy = create+t1.Sub(t0), spawn+t2.Sub(t1), destroy+time.Since(t2)
	}
	m, _ := h.New(Config{Path: fmt.Sprintf("/shoal-test-%d-cost", os.Getpid())})
	_ = m.Destroy()
	t.Logf("each: create %v, join and leave %v, destroy %v", create/rounds, spawn/rounds, destroy/rounds)
}

func TestKernelStats(t *testing.T) {
	m := kernelManager(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(30))}})
	c := spawn(t, m, "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; sleep 1000")
	_ = c
	r := m.NewReader()
	defer r.Close()
	for range 2 {
		s, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		if s.Pids.Current == 0 || s.Pids.Limit != 30 || s.Memory.Limit != Unlimited {
			t.Errorf("%+v", s)
		}
		if m.host.unified() >= 0 && s.PSI == nil {
			t.Error("no pressure figures")
		}
	}
	if err := m.KillAll(); err != nil {
		t.Fatal(err)
	}
	if err := m.Destroy(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(); !errs.Is(err, errs.NotFound) {
		t.Errorf("after the end: %v", err)
	}
}

func TestKernelNestedGroupsGoToo(t *testing.T) {
	m := kernelManager(t, nil)
	for _, d := range m.dirs {
		if err := os.MkdirAll(d+"/docker/inner", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Destroy(); err != nil || m.Exists() {
		t.Fatal(err)
	}
}

func TestKernelSmallPidsLimitWaitsForSeal(t *testing.T) {
	m := kernelManager(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(1))}})
	spawn(t, m, "sleep", "1000")
	if err := m.Seal(); err != nil {
		t.Fatal(err)
	}
	err := m.Spawn(func(fd int) error {
		c := exec.Command("true")
		c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: fd >= 0, CgroupFD: fd}
		err := c.Start()
		if err == nil {
			_ = c.Wait()
		}
		return err
	})
	if !errs.Is(err, errs.Exhausted) || !strings.Contains(err.Error(), "at most 1 processes") {
		t.Fatal(err)
	}
}
