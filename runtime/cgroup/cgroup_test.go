package cgroup

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
)

func p[T any](v T) *T { return &v }

const hybridMounts = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 /inner /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/uni\040fied rw,relatime - cgroup2 cgroup2 rw
50 31 0:29 / /elsewhere rw,relatime - cgroup cgroup rw,cpu,cpuacct
`

const hybridOwn = "5:name=systemd:/init\n4:pids:/inner/me\n3:memory:/process/x\n2:cpu,cpuacct:/\n0::/init\n"

func TestParseHost(t *testing.T) {
	h, err := parseHost([]byte(hybridMounts), []byte(hybridOwn))
	if err != nil {
		t.Fatal(err)
	}
	if h.Mode != Hybrid || len(h.Hierarchies) != 5 {
		t.Fatalf("%v %+v", h.Mode, h.Hierarchies)
	}
	for i, own := range []string{"/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory/process/x", "/sys/fs/cgroup/pids/me",
		"/sys/fs/cgroup/systemd/init", "/sys/fs/cgroup/uni fied/init"} {
		if got := h.Hierarchies[i].OwnDir(); got != own {
			t.Errorf("%s: own = %s, want %s", h.Hierarchies[i].label(), got, own)
		}
	}
	if h.find("cpuacct") != 0 || h.find("io") != -1 || !h.Has("memory") || h.Has("rdma") {
		t.Error("controllers are found wrong")
	}
	if got := h.Apart("/shoal-supervisors"); got != "/sys/fs/cgroup/uni fied/shoal-supervisors" {
		t.Errorf("apart: %s", got)
	}
	if h, err := parseHost([]byte(hybridMounts), []byte("2:cpu,cpuacct:/x\n0::/\n")); err != nil || h.Apart("/shoal-supervisors") != "" {
		t.Error("apart of the root, which nobody manages")
	}
	if _, err := parseHost([]byte("23 1 0:28 / / rw - ext4 x rw\n"), nil); !errs.Is(err, errs.Unsupported) {
		t.Error(err)
	}
}

func TestContainerMounts(t *testing.T) {
	h, _ := parseHost([]byte(hybridMounts), []byte(hybridOwn))
	m, _ := h.New(Config{ID: "web"})
	got := m.ContainerMounts()
	want := ContainerMount{Dir: "cpu,cpuacct", FSType: "cgroup", Data: "cpu,cpuacct", Source: "/sys/fs/cgroup/cpu,cpuacct/shoal/web", Links: []string{"cpu", "cpuacct"}}
	if d := cmp.Diff(want, got[0]); d != "" {
		t.Error(d)
	}
	if got[3].Data != "none,name=systemd" || got[3].Dir != "systemd" || got[4].FSType != "cgroup2" {
		t.Errorf("%+v", got)
	}
}

func TestResolvePath(t *testing.T) {
	for in, want := range map[Config]string{
		{ID: "a"}:                                "/shoal/a",
		{ID: "a", Path: "/docker/a"}:             "/docker/a",
		{ID: "a", Path: "x/y"}:                   "/shoal/x/y",
		{ID: "a", Path: "x", Parent: "/p"}:       "/p/x",
		{ID: "a", Path: "../../x"}:               "/shoal/x",
		{ID: "a", Path: "/../x/"}:                "/x",
		{ID: "a", Path: "/"}:                     "",
		{ID: "a", Path: "x\ny"}:                  "",
		{ID: ".."}:                               "",
		{ID: ""}:                                 "",
		{ID: "a", Parent: "rel"}:                 "/rel/a",
		{ID: "a", Path: "system.slice:docker:a"}: "/shoal/system.slice:docker:a",
	} {
		got, err := resolvePath(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%+v: %q, %v; want %q", in, got, err, want)
		}
	}
}

func hostOf(v2 bool, controllers ...string) *Host {
	if v2 {
		return &Host{Mode: V2, Hierarchies: []Hierarchy{{Unified: true, Mount: "/c", Controllers: controllers}}}
	}
	h := &Host{Mode: V1}
	for _, c := range controllers {
		h.Hierarchies = append(h.Hierarchies, Hierarchy{Name: c, Mount: "/c/" + c, Controllers: []string{c}})
	}
	return h
}

func everything() *specs.LinuxResources {
	dev := specs.LinuxBlockIODevice{Major: 8, Minor: 16}
	throttle := []specs.LinuxThrottleDevice{{LinuxBlockIODevice: dev, Rate: 1000}}
	return &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: p(int64(1000)), Swap: p(int64(3000)), Reservation: p(int64(500)), CheckBeforeUpdate: p(true)},
		CPU: &specs.LinuxCPU{Shares: p(uint64(1024)), Quota: p(int64(5000)), Period: p(uint64(10000)), Burst: p(uint64(100)), Idle: p(int64(1)),
			Cpus: "0-1", Mems: "0"},
		Pids: &specs.LinuxPids{Limit: p(int64(50))},
		BlockIO: &specs.LinuxBlockIO{Weight: p(uint16(500)), WeightDevice: []specs.LinuxWeightDevice{{LinuxBlockIODevice: dev, Weight: p(uint16(10))}},
			ThrottleReadBpsDevice: throttle, ThrottleWriteIOPSDevice: throttle},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}},
		Rdma:           map[string]specs.LinuxRdma{"mlx5": {HcaHandles: p(uint32(2)), HcaObjects: p(uint32(9))}},
	}
}

func render(pl *plan) string {
	var b strings.Builder
	for _, w := range pl.writes {
		b.WriteString(w.controller + " " + w.file + "=" + w.value)
		if w.check != "" {
			b.WriteString(" if above " + w.check)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestPlan(t *testing.T) {
	all := []string{"cpu", "cpuset", "memory", "pids", "blkio", "io", "hugetlb", "rdma", "net_cls", "net_prio"}
	v1, err := hostOf(false, append(all[:5:5], all[6:]...)...).plan(everything(), true)
	if err != nil {
		t.Fatal(err)
	}
	want := `memory memory.limit_in_bytes=1000 if above memory.usage_in_bytes
memory memory.memsw.limit_in_bytes=3000
memory memory.soft_limit_in_bytes=500
cpu cpu.shares=1024
cpu cpu.cfs_period_us=10000
cpu cpu.cfs_quota_us=5000
cpu cpu.cfs_burst_us=100
cpu cpu.idle=1
cpuset cpuset.cpus=0-1
cpuset cpuset.mems=0
pids pids.max=50
blkio blkio.bfq.weight=500
blkio blkio.bfq.weight_device=8:16 10
blkio blkio.throttle.read_bps_device=8:16 1000
blkio blkio.throttle.write_iops_device=8:16 1000
hugetlb hugetlb.2MB.limit_in_bytes=4194304
hugetlb hugetlb.2MB.rsvd.limit_in_bytes=4194304
rdma rdma.max=mlx5 hca_handle=2 hca_object=9
`
	if d := cmp.Diff(want, render(v1)); d != "" {
		t.Error(d)
	}
	res := everything()
	res.Unified = map[string]string{"memory.high": "900", "io.max": "8:0 rbps=1\n8:1 rbps=2"}
	v2, err := hostOf(true, "cpu", "cpuset", "memory", "pids", "io", "hugetlb", "rdma").plan(res, true)
	if err != nil {
		t.Fatal(err)
	}
	want = `memory memory.max=1000 if above memory.current
memory memory.swap.max=2000
memory memory.low=500
cpu cpu.weight=100
cpu cpu.max=5000 10000
cpu cpu.max.burst=100
cpu cpu.idle=1
cpuset cpuset.cpus=0-1
cpuset cpuset.mems=0
pids pids.max=50
io io.bfq.weight=500
io io.bfq.weight=8:16 10
io io.max=8:16 rbps=1000
io io.max=8:16 wiops=1000
hugetlb hugetlb.2MB.max=4194304
hugetlb hugetlb.2MB.rsvd.max=4194304
rdma rdma.max=mlx5 hca_handle=2 hca_object=9
io io.max=8:0 rbps=1
io io.max=8:1 rbps=2
memory memory.high=900
`
	if d := cmp.Diff(want, render(v2)); d != "" {
		t.Error(d)
	}
}

func TestPlanRefuses(t *testing.T) {
	v1 := hostOf(false, "cpu", "cpuset", "memory", "pids", "blkio")
	v2 := hostOf(true, "cpu", "cpuset", "memory", "pids", "io")
	for _, k := range []struct {
		h    *Host
		res  specs.LinuxResources
		kind errs.Kind
		says string
	}{
		{v1, specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: p(uint32(1))}}, errs.Unsupported, "no net_cls controller"},
		{v1, specs.LinuxResources{Unified: map[string]string{"memory.high": "1"}}, errs.Unsupported, "no cgroup v2"},
		{v2, specs.LinuxResources{Unified: map[string]string{"../x": "1"}}, errs.Invalid, "../x"},
		{v2, specs.LinuxResources{Unified: map[string]string{"cgroup.procs": "1"}}, errs.Invalid, "not a limit"},
		{v2, specs.LinuxResources{Unified: map[string]string{"misc.max": "1"}}, errs.Unsupported, "misc controller"},
		{v2, specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: p(uint64(10))}}, errs.Unsupported, "swappiness"},
		{v2, specs.LinuxResources{Memory: &specs.LinuxMemory{DisableOOMKiller: p(true)}}, errs.Unsupported, "OOM killer"},
		{v2, specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: p(int64(10))}}, errs.Invalid, "without a memory.limit"},
		{v1, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(10)), Swap: p(int64(5))}}, errs.Invalid, "less than memory.limit"},
		{v1, specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: p(uint64(101))}}, errs.Invalid, "0 to 100"},
		{v2, specs.LinuxResources{Memory: &specs.LinuxMemory{KernelTCP: p(int64(10))}}, errs.Unsupported, "memory of sockets"},
		{v1, specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: p(uint64(1))}}, errs.Invalid, "cpu-shares"},
		{v1, specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: p(int64(2))}}, errs.Invalid, "0 or 1"},
		{v2, specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimeRuntime: p(int64(2))}}, errs.Unsupported, "realtime"},
		{v1, specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: p(uint16(5))}}, errs.Invalid, "10 to 1000"},
		{v1, specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{LeafWeight: p(uint16(50))}}, errs.Unsupported, "leafWeight"},
		{v1, specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 1}}}, errs.Unsupported, "hugetlb"},
	} {
		_, err := k.h.plan(&k.res, true)
		if !errs.Is(err, k.kind) || !strings.Contains(err.Error(), k.says) {
			t.Errorf("%v; want %v saying %q", err, k.kind, k.says)
		}
	}
	// The limit of kernel memory went from kernels; it is told, and no reason to fail.
	kernel := &specs.LinuxResources{Memory: &specs.LinuxMemory{Kernel: p(int64(10)), KernelTCP: p(int64(20))}}
	pl, err := v1.plan(kernel, true)
	if err != nil || render(pl) != "memory memory.kmem.tcp.limit_in_bytes=20\n" {
		t.Errorf("kernel memory: %v, %v", render(pl), err)
	}
	if got := Ignored(kernel); len(got) != 1 || !strings.Contains(got[0], "memory.kernel") {
		t.Errorf("told of ignored resources: %q", got)
	}
	// What is not asked for is not missed.
	if _, err := hostOf(false, "cpu").plan(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: p(int64(-1))}, Memory: &specs.LinuxMemory{}}, true); err != nil {
		t.Error(err)
	}
}

// fakeV2 is a cgroup2 mount of ordinary files, as far as one can be made.
func fakeV2(t *testing.T, group string, files map[string]string) *Manager {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, group)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for n, v := range files {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(v), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h := &Host{Mode: V2, Hierarchies: []Hierarchy{{Unified: true, Mount: root, Root: "/", Controllers: []string{"cpu", "memory", "pids", "io"}}}}
	m, err := h.New(Config{Path: group})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSetV2KeepsQuotaWhenOnlyThePeriodChanges(t *testing.T) {
	m := fakeV2(t, "/g", map[string]string{"cpu.max": "5000 10000\n"})
	if err := m.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Period: p(uint64(20000))}}); err != nil {
		t.Fatal(err)
	}
	if got, _ := readFile(m.dirs[0] + "/cpu.max"); !strings.HasPrefix(got, "5000 20000") {
		t.Errorf("cpu.max = %q", got)
	}
}

func TestSetMessages(t *testing.T) {
	m := fakeV2(t, "/g", map[string]string{"memory.current": "500\n", "memory.max": "max\n"})
	err := m.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(100)), CheckBeforeUpdate: p(true)}})
	if !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "500 bytes") {
		t.Error(err)
	}
	err = m.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(1000)), Swap: p(int64(1000))}})
	if !errs.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "swapaccount=1") || !strings.Contains(err.Error(), "memory.swap.max") {
		t.Error(err)
	}
	if got, _ := readFile(m.dirs[0] + "/memory.max"); strings.TrimSpace(got) != "max\n" && !strings.HasPrefix(got, "max") {
		t.Errorf("memory.max = %q was not taken back", got)
	}
}

func TestStatsV2(t *testing.T) {
	m := fakeV2(t, "/g", map[string]string{
		"cpu.stat":       "usage_usec 1000\nuser_usec 600\nsystem_usec 400\nnr_periods 5\nnr_throttled 2\nthrottled_usec 70\n",
		"memory.current": "5000\n", "memory.max": "max\n", "memory.peak": "6000\n", "memory.swap.current": "7\n", "memory.swap.max": "0\n",
		"memory.stat": "anon 100\nfile 4000\ninactive_file 1500\n", "memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n",
		"pids.current": "4\n", "pids.max": "50\n",
		"io.stat":      "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n7:1\n",
		"cpu.pressure": "some avg10=1.50 avg60=0.00 avg300=0.10 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
	})
	r := m.NewReader()
	defer r.Close()
	for range 2 {
		s, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		if s.CPU.Usage != 1_000_000 || s.CPU.ThrottledPeriods != 2 || s.CPU.Throttled != 70_000 {
			t.Errorf("cpu %+v", s.CPU)
		}
		if s.Memory.Usage != 5000 || s.Memory.Limit != Unlimited || s.Memory.WorkingSet() != 3500 || s.Memory.OOMKills != 2 || s.Memory.FailCount != 3 {
			t.Errorf("memory %+v", s.Memory)
		}
		if s.Pids != (PidsStats{4, 50}) {
			t.Errorf("pids %+v", s.Pids)
		}
		if len(s.IO) != 1 || s.IO[0].WriteBytes != 20 || s.IO[0].Reads != 1 {
			t.Errorf("io %+v", s.IO)
		}
		if s.PSI == nil || s.PSI.CPU.Some.Avg10 != 1.5 || s.PSI.CPU.Some.Total.Microseconds() != 12 {
			t.Errorf("psi %+v", s.PSI)
		}
	}
}

func TestStateRoundTrip(t *testing.T) {
	h, _ := parseHost([]byte(hybridMounts), []byte(hybridOwn))
	m, _ := h.New(Config{ID: "web"})
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var s State
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	back, err := h.Load(s)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(m.Paths(), back.Paths()); d != "" {
		t.Error(d)
	}
	if _, err := h.Load(State{Version: 9, Path: "/x"}); !errs.Is(err, errs.Damaged) {
		t.Error(err)
	}
}

func TestSharesToWeight(t *testing.T) {
	for in, want := range map[uint64]uint64{0: 0, 1: 1, 2: 1, 1024: 100, 262144: 10000, 512: 59, 2048: 174} {
		if got := SharesToWeight(in); got != want {
			t.Errorf("%d → %d, want %d", in, got, want)
		}
	}
}
