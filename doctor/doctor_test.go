package doctor

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/observe/health"
)

// good is a host that has everything.
func good() Facts {
	ok := Probe{Tried: true, OK: true}
	return Facts{
		Kernel:  Kernel{Release: "6.12.0", Major: 6, Minor: 12},
		Process: Process{FilesHard: 1 << 20},
		Cgroups: Cgroups{Mode: "v2", SwapLimit: true, Writable: ok, Controllers: map[string]bool{"memory": true, "pids": true, "cpu": true,
			"cpuset": true, "io": true, "hugetlb": true}},
		Storage:     Storage{DataRoot: "/var/lib/shoal", FileSystem: "ext4", Total: 100 << 30, Free: 50 << 30, Files: 1000, FilesFree: 900, Overlay: ok, Xattr: ok},
		Security:    Security{Seccomp: ok, SeccompActions: []string{"kill_process", "log", "user_notif"}, AppArmor: true, AppArmorParser: true},
		Network:     Network{NFTables: ok, Links: map[string]Probe{"bridge": ok, "veth": ok}, Resolvers: []string{"9.9.9.9"}, DefaultIPv4: true},
		Namespaces:  map[string]Probe{"user": ok, "mount": ok},
		Sysctls:     map[string]int64{"net.ipv4.ip_forward": 1, "kernel.pid_max": 4194304},
		Clock:       Clock{Unix: 1_800_000_000, Synchronized: true},
		MemoryBytes: 4 << 30,
	}
}

func TestGoodHostHasNoFindings(t *testing.T) {
	if got := Evaluate(good()); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	if got := Evaluate(Facts{Network: Network{Resolvers: []string{"x"}, DefaultIPv4: true}, Security: Security{SELinux: true}, Cgroups: Cgroups{Mode: "v2",
		Controllers: good().Cgroups.Controllers, SwapLimit: true}}); len(got) != 0 {
		t.Errorf("what was not tried is not missing: %+v", got)
	}
}

// cases has for each code what makes a good host have it, and a word that its text must have.
var cases = map[string]struct {
	spoil func(*Facts)
	says  string
}{
	"kernel-too-old":              {func(f *Facts) { f.Kernel = Kernel{"5.4.0-generic", 5, 4, ""} }, "5.4.0-generic"},
	"kernel-old":                  {func(f *Facts) { f.Kernel = Kernel{"5.10.0", 5, 10, ""} }, "5.10.0"},
	"not-root":                    {func(f *Facts) { f.Process.UID = 1000 }, "1000"},
	"capability-missing":          {func(f *Facts) { f.Process.MissingCaps = []string{"CAP_NET_ADMIN", "CAP_X"} }, "CAP_NET_ADMIN (networks"},
	"resource-capability-missing": {func(f *Facts) { f.Process.MissingCaps = []string{"CAP_SYS_RESOURCE"} }, "oom_score_adj"},
	"open-files-low":              {func(f *Facts) { f.Process.FilesHard = 1024 }, "1024"},
	"no-new-privs":                {func(f *Facts) { f.Security.NoNewPrivs = true }, "set-uid"},
	"cgroup-none":                 {func(f *Facts) { f.Cgroups.Mode = "none" }, "cgroup2"},
	"cgroup-read-only":            {func(f *Facts) { f.Cgroups.Writable = Probe{true, false, "read-only file system"} }, "read-only file system"},
	"cgroup-controller-missing":   {func(f *Facts) { delete(f.Cgroups.Controllers, "pids") }, "pids controller"},
	"cgroup-v1": {func(f *Facts) {
		f.Cgroups.Mode = "hybrid"
		for _, c := range []string{"blkio", "devices", "freezer", "cpuacct"} {
			f.Cgroups.Controllers[c] = true
		}
	}, "hybrid"},
	"engine-exposed": {func(f *Facts) {
		f.Engine = &Engine{Exposed: []Exposure{{Container: "spy", Source: "/run", What: "the engine's socket"}}}
	}, "container spy sees"},
	"client-key-exposed": {func(f *Facts) {
		f.Engine = &Engine{Exposed: []Exposure{{Container: "spy", Source: "/certs", What: "a client certificate", Key: true}}}
	}, "/certs"},
	"api-open":                 {func(f *Facts) { f.Engine = &Engine{Open: []string{"tcp://0.0.0.0:2375"}} }, "tcp://0.0.0.0:2375"},
	"socket-not-served":        {func(f *Facts) { f.Engine = &Engine{Sockets: []BrokenSocket{{"web", "no group"}}} }, "no group"},
	"daemon-down":              {func(f *Facts) { f.Engine = &Engine{Down: "connection refused"} }, "connection refused"},
	"cgroup-swap-missing":      {func(f *Facts) { f.Cgroups.SwapLimit = false }, "swapaccount"},
	"data-root-read-only":      {func(f *Facts) { f.Storage.ReadOnly = true }, "/var/lib/shoal"},
	"data-root-noexec":         {func(f *Facts) { f.Storage.NoExec = true }, "noexec"},
	"data-root-nodev":          {func(f *Facts) { f.Storage.NoDev = true }, "nodev"},
	"overlay-missing":          {func(f *Facts) { f.Storage.Overlay = Probe{true, false, "no such device"} }, "no such device"},
	"xattr-missing":            {func(f *Facts) { f.Storage.Xattr = Probe{true, false, "not supported"} }, "not supported"},
	"disk-full":                {func(f *Facts) { f.Storage.Free = 1 << 20 }, "1 MiB of 100.0 GiB"},
	"disk-low":                 {func(f *Facts) { f.Storage.Free = 1 << 30 }, "1.0 GiB of 100.0 GiB"},
	"inodes-low":               {func(f *Facts) { f.Storage.FilesFree = 3 }, "3 of 1000"},
	"namespace-missing":        {func(f *Facts) { f.Namespaces["mount"] = Probe{true, false, "EINVAL"} }, "mount namespace"},
	"user-namespace-missing":   {func(f *Facts) { f.Namespaces["user"] = Probe{true, false, "EPERM"} }, "EPERM"},
	"seccomp-missing":          {func(f *Facts) { f.Security.Seccomp = Probe{true, false, "EINVAL"} }, "EINVAL"},
	"seccomp-actions-missing":  {func(f *Facts) { f.Security.SeccompActions = []string{"log", "kill_process"} }, "user_notif"},
	"no-mac":                   {func(f *Facts) { f.Security.AppArmor = false }, "AppArmor"},
	"apparmor-parser-missing":  {func(f *Facts) { f.Security.AppArmorParser = false }, "install the package apparmor"},
	"emulator-not-fixed":       {func(f *Facts) { f.Emulators = []Emulator{{"qemu-arm", "/q", true}, {"qemu-s390x", "/q", false}} }, "qemu-s390x is"},
	"nftables-missing":         {func(f *Facts) { f.Network.NFTables = Probe{true, false, "protocol not supported"} }, "protocol not supported"},
	"link-missing":             {func(f *Facts) { f.Network.Links["veth"] = Probe{true, false, "not supported"} }, "modprobe veth"},
	"link-kind-missing":        {func(f *Facts) { f.Network.Links["ipvlan"] = Probe{true, false, "not supported"} }, "modprobe ipvlan"},
	"ip-forward-off":           {func(f *Facts) { f.Sysctls["net.ipv4.ip_forward"] = 0 }, "ip_forward"},
	"firewall-drops-forward":   {func(f *Facts) { f.Network.Chains = []Chain{{"ip", "filter", "FORWARD", "forward", true, false}} }, "nft insert rule ip filter FORWARD"},
	"legacy-iptables":          {func(f *Facts) { f.Network.LegacyIPv6 = []string{"filter"} }, "filter"},
	"bridge-netfilter-missing": {func(f *Facts) { f.Sysctls["net.bridge.bridge-nf-call-iptables"] = 0 }, "bridge-nf-call"},
	"no-resolver":              {func(f *Facts) { f.Network.Resolvers = nil }, "resolv.conf"},
	"resolver-silent":          {func(f *Facts) { f.Network.Silent = f.Network.Resolvers }, "9.9.9.9"},
	"leftover-bridge": {func(f *Facts) {
		f.Engine, f.Network.Bridges = &Engine{Owner: "shoal:a"}, map[string]string{"shoal0": "shoal:a", "old0": "shoal:b"}
	}, "ip link delete old0"},
	"record-damaged":       {func(f *Facts) { f.Storage.Damaged = []string{"/d/damaged/abc"} }, "/d/damaged/abc"},
	"no-default-route":     {func(f *Facts) { f.Network.DefaultIPv4 = false }, "default route"},
	"conntrack-low":        {func(f *Facts) { f.Sysctls["net.netfilter.nf_conntrack_max"] = 1000 }, "1000"},
	"pid-max-low":          {func(f *Facts) { f.Sysctls["kernel.pid_max"] = 32768 }, "32768"},
	"inotify-low":          {func(f *Facts) { f.Sysctls["fs.inotify.max_user_instances"] = 128 }, "128"},
	"clock-wrong":          {func(f *Facts) { f.Clock.Unix = 100 }, "second 100"},
	"clock-unsynchronized": {func(f *Facts) { f.Clock.Synchronized = false }, "synchronized"},
	"network-repaired": {func(f *Facts) {
		f.Engine = &Engine{Repairs: []Repair{{Code: "network-repaired", What: "bridge shoal0", How: "was removed by x", Times: 3}}}
	}, "3 times"},
	"network-route-clash": {func(f *Facts) {
		f.Engine = &Engine{Repairs: []Repair{{Code: "network-route-clash", What: "network a", How: "overlaps"}}}
	}, "--subnet"},
	"network-endpoint": {func(f *Facts) {
		f.Engine = &Engine{Repairs: []Repair{{Code: "network-endpoint", What: "endpoint", How: "driver says"}}}
	}, "connect it again"},
	"memory-low": {func(f *Facts) { f.MemoryBytes = 100 << 20 }, "100 MiB"},
}

func TestEveryRule(t *testing.T) {
	for code, c := range cases {
		f := good()
		c.spoil(&f)
		got := Evaluate(f)
		if len(got) != 1 || got[0].Code != code {
			t.Errorf("%s: %+v", code, got)
			continue
		}
		g := got[0]
		if !strings.Contains(g.Cause+g.Fix, c.says) || g.Fix == "" || len(g.Affects) == 0 || g.Affects[0] == "" {
			t.Errorf("%s: does not say %q: %+v", code, c.says, g)
		}
	}
	for _, code := range Codes() {
		if _, ok := cases[code]; !ok {
			t.Errorf("code %s has no case here", code)
		}
	}
	if len(cases) != len(Codes()) {
		t.Errorf("%d cases, %d codes", len(cases), len(Codes()))
	}
}

// TestEveryCodeIsInTheList of known troubles.
func TestEveryCodeIsInTheList(t *testing.T) {
	for code, tc := range cases {
		f := good()
		tc.spoil(&f)
		tr, ok := health.Find(code)
		for _, g := range Evaluate(f) {
			if ok = ok && (g.Code != code || g.Severity == tr.Severity); !ok {
				t.Errorf("observe/health lacks %s with severity %s", code, g.Severity)
				break
			}
		}
	}
	for _, tr := range health.All() {
		if strings.HasPrefix(tr.Area, "host: ") && !slices.Contains(Codes(), tr.Code) {
			t.Errorf("observe/health has %s, which no rule gives", tr.Code)
		}
	}
}

func TestWorstComesFirst(t *testing.T) {
	f := good()
	for _, c := range cases {
		c.spoil(&f)
	}
	got := Evaluate(f)
	if !slices.IsSortedFunc(got, func(a, b Finding) int { return order[a.Severity] - order[b.Severity] }) {
		t.Error("not sorted")
	}
	var text, js bytes.Buffer
	if err := WriteText(&text, Report{Findings: got}); err != nil || !strings.HasPrefix(text.String(), "error ") {
		t.Error(text.String())
	}
	if err := WriteJSON(&js, Report{Findings: got, Facts: f}); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(js.Bytes(), &back); err != nil || len(back.Findings) != len(got) {
		t.Error(err)
	}
	text.Reset()
	if _ = WriteText(&text, Report{}); !strings.Contains(text.String(), "everything") {
		t.Error(text.String())
	}
}

func TestParseRelease(t *testing.T) {
	for in, want := range map[string][2]int{"6.18.44-fc": {6, 18}, "5.4-rc1": {5, 4}, "6.1": {6, 1}, "junk": {0, 0}, "": {0, 0}} {
		if a, b := parseRelease(in); a != want[0] || b != want[1] {
			t.Errorf("%q: %d.%d", in, a, b)
		}
	}
}

func FuzzParseRelease(f *testing.F) {
	f.Add("6.1.0")
	f.Fuzz(func(_ *testing.T, s string) { parseRelease(s) })
}

func TestEmulators(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"status": "enabled\n", "python3.11": "enabled\ninterpreter /usr/bin/python3.11\nflags: \n", "qemu-arm": "disabled\ninterpreter /x\nflags: F\n",
		"qemu-aarch64": "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: POF\noffset 0\n", "qemu-s390x": "enabled\ninterpreter /q\nflags: \n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := emulators(dir)
	if want := []Emulator{{"qemu-aarch64", "/usr/bin/qemu-aarch64-static", true}, {"qemu-s390x", "/q", false}}; !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	var text strings.Builder
	if err := WriteText(&text, Report{Facts: Facts{Emulators: got}}); err != nil || !strings.Contains(text.String(), "emulation: aarch64, s390x.") {
		t.Error(err, text.String())
	}
}
