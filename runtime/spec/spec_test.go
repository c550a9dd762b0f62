package spec

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
)

func TestExampleIsValid(t *testing.T) {
	s := Example()
	if err := Validate(s); err != nil {
		t.Error(err)
	}
	ToRootless(s, 1000, 1000)
	if err := Validate(s); err != nil {
		t.Error("rootless:", err)
	}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(data); err != nil {
		t.Error(err)
	}
	if f := Features("v", nil, nil); len(f.Linux.Namespaces) != 8 || len(f.Hooks) != 6 {
		t.Errorf("features: %+v", f)
	}
}

func TestParseSaysWhere(t *testing.T) {
	_, err := Parse([]byte("{\n  \"ociVersion\": \"1.0.0\",\n  \"root\": 7\n}"))
	if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("got %v", err)
	}
	_, err = Parse([]byte("{\n,"))
	if err == nil || !strings.Contains(err.Error(), "line 2, column 1") {
		t.Errorf("got %v", err)
	}
	if _, err := Parse(make([]byte, MaxConfig+1)); err == nil {
		t.Error("a huge configuration is taken")
	}
}

// change makes one thing wrong in the example; want is in the message.
type change struct {
	want string
	do   func(s *specs.Spec)
}

var changes = []change{
	{"ociVersion: is missing", func(s *specs.Spec) { s.Version = "" }},
	{"not a version 1.x", func(s *specs.Spec) { s.Version = "2.0.0" }},
	{"root.path: is missing", func(s *specs.Spec) { s.Root = nil }},
	{"process.args: names no program", func(s *specs.Spec) { s.Process.Args = []string{""} }},
	{`process.cwd: "x" is not an absolute`, func(s *specs.Spec) { s.Process.Cwd = "x" }},
	{"contains a zero byte", func(s *specs.Spec) { s.Process.Env = []string{"A=\x00"} }},
	{"line break", func(s *specs.Spec) { s.Process.ApparmorProfile = "a\nb" }},
	{"oomScoreAdj: 1001", func(s *specs.Spec) { n := 1001; s.Process.OOMScoreAdj = &n }},
	{"does not begin with RLIMIT_", func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "NOFILE"}} }},
	{"is there twice", func(s *specs.Spec) { s.Process.Rlimits = append(s.Process.Rlimits, s.Process.Rlimits...) }},
	{"above the hard limit", func(s *specs.Spec) { s.Process.Rlimits[0].Soft = 1 << 40 }},
	{"larger than a terminal", func(s *specs.Spec) { s.Process.ConsoleSize = &specs.Box{Height: 1 << 20} }},
	{"ioPriority: level 9", func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Priority: 9} }},
	{"mounts[7].destination: is missing", func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{}) }},
	{"is the root itself", func(s *specs.Spec) { s.Mounts[0].Destination = "/../" }},
	{"belong together", func(s *specs.Spec) { s.Mounts[0].UIDMappings = []specs.LinuxIDMapping{{Size: 1}} }},
	{"linux: is missing", func(s *specs.Spec) { s.Linux = nil }},
	{`type "what" is none of`, func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "what" }},
	{"type pid is there twice", func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, s.Linux.Namespaces[0]) }},
	{"is not absolute", func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "proc/1/ns/pid" }},
	{"needs a mount namespace", func(s *specs.Spec) {
		s.Linux.Namespaces, s.Linux.RootfsPropagation = s.Linux.Namespaces[:1], "shared"
	}},
	{"a mount namespace is missing", func(s *specs.Spec) {
		s.Linux.Namespaces, s.Annotations = s.Linux.Namespaces[:1], map[string]string{RootfsAnnotation: `{"lower":["/a"]}`}
	}},
	{"needs uidMappings", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	}},
	{"no user namespace is", func(s *specs.Spec) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} }},
	{"maskedPaths", func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"proc"} }},
	{"rootfsPropagation", func(s *specs.Spec) { s.Linux.RootfsPropagation = "wide" }},
	{"kernel.panic is not in a namespace", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.panic": "1"} }},
	{"kernel/panic is not in a namespace", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel/panic": "1"} }},
	{"not the name of a kernel setting", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.ipv4./../../kernel.panic": "1"} }},
	{"not the name of a kernel setting", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net/../kernel/panic": "1"} }},
	{"use the field hostname", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.hostname": "x"} }},
	{"needs a network namespace", func(s *specs.Spec) {
		s.Linux.Sysctl = map[string]string{"net.core.somaxconn": "1"}
		s.Linux.Namespaces[1].Type = specs.TimeNamespace
	}},
	{"not an absolute path of a device", func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "null", Type: "c"}} }},
	{`"x" is none of b, c, u, p`, func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "x"}} }},
	{"cannot be a network interface", func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"a/b": {}} }},
	{"longer than 64 bytes", func(s *specs.Spec) { s.Hostname = strings.Repeat("x", 65) }},
	{"contains a line break", func(s *specs.Spec) { s.Hostname = "a\nb" }},
	{`path "hook" is not absolute`, func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "hook"}}} }},
	{"timeout 0", func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/h", Timeout: new(int)}}} }},
	{"neither monotonic nor boottime", func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"real": {}} }},
	{"a new time namespace is missing", func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {}} }},
	{"intelRdt", func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} }},
}

func TestValidateNamesWhatIsWrong(t *testing.T) {
	for _, c := range changes {
		s := Example()
		c.do(s)
		err := Validate(s)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func TestSysctlsOfOwnNamespaces(t *testing.T) {
	s := Example()
	s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.1/forwarding": "1", "kernel.shmmax": "1",
		"fs.mqueue.msg_max": "1", "kernel.domainname": "x"}
	if err := Validate(s); err != nil {
		t.Error(err)
	}
}

func TestOverlayAnnotation(t *testing.T) {
	s := Example()
	if o, err := Overlay(s); o != nil || err != nil {
		t.Errorf("got %v, %v", o, err)
	}
	for text, ok := range map[string]bool{
		`{"lower":["/a","/b"],"upper":"/u","work":"/w"}`: true,
		`{"lower":["/a"]}`:              true,
		`{"lower":[]}`:                  false,
		`{"lower":["a"]}`:               false,
		`{"lower":["/a"],"upper":"/u"}`: false,
		`{`:                             false,
	} {
		s.Annotations = map[string]string{RootfsAnnotation: text}
		if _, err := Overlay(s); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	data, _ := json.Marshal(Example())
	f.Add(data)
	f.Add([]byte(`{"ociVersion":"1.0.0","linux":{"sysctl":{"net.":""}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data)
		if err == nil {
			Validate(s)
			Overlay(s)
		}
	})
}
