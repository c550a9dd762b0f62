package ocispec

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func container() *model.Container {
	c := &model.Container{ID: strings.Repeat("ab", 32), Name: "web"}
	c.Runtime.Path, c.Runtime.Args = "sh", []string{"-c", "true"}
	c.Runtime.HostsPath, c.Runtime.HostnamePath, c.Runtime.ResolvConfPath = "/run/c/hosts", "/run/c/hostname", "/run/c/resolv.conf"
	c.Spec.Process.WorkingDir = "/"
	c.Spec.Network.Mode, c.Spec.Network.Hostname = "bridge", "abababababab"
	c.Spec.Isolation.IPC = "private"
	return c
}

func build(t *testing.T, c *model.Container, change ...func(*Input)) *specs.Spec {
	t.Helper()
	host := Host{Seccomp: true, LastCap: 40, Size: Size{CPUs: 4}, CgroupDev: true, RRO: true}
	mounts, err := Mounts(MountInput{Container: c, Host: host, Shm: Shm{Size: 64 << 20}, Files: true,
		Volumes: map[string]model.VolumeMount{"/data": {Type: "bind", Source: "/volumes/data/_data"}}})
	if err != nil {
		t.Fatal(err)
	}
	in := Input{Container: c, Host: host, RootPath: "/run/rootfs", User: User{Home: "/root", Groups: []uint32{0}}, Mounts: mounts, Hostname: c.Spec.Network.Hostname,
		Seccomp: SeccompSource{
			Default: func(*specs.Spec) (*specs.LinuxSeccomp, error) {
				return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}, nil
			},
			Load: func(p string, _ *specs.Spec) (*specs.LinuxSeccomp, error) {
				return &specs.LinuxSeccomp{DefaultAction: specs.LinuxSeccompAction(p)}, nil
			},
		}}
	for _, f := range change {
		f(&in)
	}
	s, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestGolden keeps the whole configuration of a plain container under review.
func TestGolden(t *testing.T) {
	for name, change := range map[string]func(*model.Container){
		"plain": func(*model.Container) {},
		"privileged": func(c *model.Container) {
			c.Spec.Security.Privileged = true
		},
		"full": func(c *model.Container) {
			c.Mounts = []model.MountPoint{
				{Type: "volume", Name: "data", Destination: "/data", RW: true},
				{Type: "bind", Source: "/srv", Destination: "/data/srv", Propagation: "rslave"},
			}
			c.Spec.Storage.Tmpfs = map[string]string{"/tmp": "size=1m,exec"}
			c.Spec.Storage.ReadonlyRootfs = true
			c.Spec.Process.Tty, c.Spec.Process.ConsoleSz = true, [2]uint{24, 80}
			c.Spec.Process.Env = []string{"A=1", "PATH=/bin"}
			c.Spec.Security.CapAdd, c.Spec.Security.CapDrop = []string{"net_admin"}, []string{"CAP_MKNOD"}
			c.Spec.Security.Options = []string{"no-new-privileges", "seccomp=SCMP_ACT_LOG"}
			c.Spec.Isolation.PID, c.Spec.Isolation.Cgroup = "host", "private"
			c.Spec.Isolation.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "1024"}
			pids := int64(100)
			c.Spec.Resources.PidsLimit = &pids
			c.Spec.Resources.Memory = model.MemoryResources{Limit: 64 << 20, Swap: 128 << 20}
			c.Spec.Resources.CPU = model.CPUResources{NanoCPUs: 15e8, Shares: 512, CpusetCpus: "0-1"}
			c.Spec.Resources.Ulimits = []model.Ulimit{{Name: "nofile", Soft: 1024, Hard: -1}}
			c.Spec.Resources.OomScoreAdj = 500
			c.Spec.Resources.CgroupParent = "/mine"
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := container()
			change(c)
			got, err := json.MarshalIndent(build(t, c), "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			file := "testdata/" + name + ".json"
			if *rewrite {
				if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.TrimSpace(string(want)) != string(got) {
				t.Errorf("%s changed; if that is wanted: go test -rewrite ./engine/ocispec\n%s", file, got)
			}
		})
	}
}

func TestCapabilities(t *testing.T) {
	for _, c := range []struct {
		sec  model.SecuritySpec
		want int
		has  string
	}{
		{model.SecuritySpec{}, 14, "CAP_CHOWN"},
		{model.SecuritySpec{Privileged: true}, 41, "CAP_SYS_ADMIN"},
		{model.SecuritySpec{CapAdd: []string{"ALL"}, CapDrop: []string{"sys_admin"}}, 40, "CAP_BPF"},
		{model.SecuritySpec{CapDrop: []string{"all"}}, 0, ""},
		{model.SecuritySpec{CapDrop: []string{"ALL"}, CapAdd: []string{"cap_net_bind_service"}}, 1, "CAP_NET_BIND_SERVICE"},
		{model.SecuritySpec{CapAdd: []string{"CHOWN", "SYS_TIME"}}, 15, "CAP_SYS_TIME"},
	} {
		got, err := Capabilities(c.sec, Host{LastCap: 40})
		if err != nil || len(got) != c.want || c.has != "" && !slices.Contains(got, c.has) {
			t.Errorf("%+v: %d %v, %v", c.sec, len(got), got, err)
		}
	}
	if _, err := Capabilities(model.SecuritySpec{CapAdd: []string{"BPF"}}, Host{LastCap: 37}); !errs.Is(err, errs.Unsupported) {
		t.Error(err)
	}
	if got, err := Capabilities(model.SecuritySpec{Privileged: true}, Host{LastCap: 40, Caps: (1<<41 - 1) &^ (1 << 24)}); err != nil || len(got) != 40 || slices.Contains(got, "CAP_SYS_RESOURCE") {
		t.Errorf("a daemon without SYS_RESOURCE gives %v, %v", got, err)
	}
}

func TestSeccompChoice(t *testing.T) {
	for opts, want := range map[string]string{"": "SCMP_ACT_ERRNO", "seccomp=unconfined": "none", "seccomp:unconfined": "none", "seccomp=builtin": "SCMP_ACT_ERRNO", "seccomp=X": "X"} {
		c := container()
		if opts != "" {
			c.Spec.Security.Options = []string{opts}
		}
		got := "none"
		if s := build(t, c).Linux.Seccomp; s != nil {
			got = string(s.DefaultAction)
		}
		if got != want {
			t.Errorf("%q: %s, want %s", opts, got, want)
		}
	}
}

func TestMergeEnv(t *testing.T) {
	got := MergeEnv([]string{"A=1", "B=2", "C=3"}, []string{"B=x", "D=4", "A", "D=5", "Z"})
	if want := "[B=x C=3 D=5]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
}

func TestTmpfsOptions(t *testing.T) {
	m, err := TmpfsMount("/x/", "exec,size=1g,mode=1777")
	if err != nil || m.Destination != "/x" || fmt.Sprint(m.Options) != "[nosuid nodev rprivate exec size=1g mode=1777]" {
		t.Errorf("%+v %v", m, err)
	}
	for _, bad := range []string{"magic", "size", "source=/etc", "ro=1"} {
		if _, err := TmpfsMount("/x", bad); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestDeviceRules(t *testing.T) {
	for text, want := range map[string]string{"c 13:* rwm": "c 13 -1 rwm", "a *:* r": "a -1 -1 r", "b 8:0 w": "b 8 0 w"} {
		r, err := ParseDeviceRule(text)
		if err != nil || fmt.Sprintf("%s %d %d %s", r.Type, *r.Major, *r.Minor, r.Access) != want {
			t.Errorf("%q: %+v %v", text, r, err)
		}
	}
	for _, bad := range []string{"", "c 1 r", "x 1:1 r", "c 1:1 q", "c 1:1", "c -1:1 r", "c 1:1  r"} {
		if _, err := ParseDeviceRule(bad); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzParseSecurity(f *testing.F) {
	f.Add("no-new-privileges:true")
	f.Add("seccomp={}")
	f.Fuzz(func(t *testing.T, opt string) { ParseSecurity([]string{opt}) })
}
