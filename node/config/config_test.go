package config

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func parse(t *testing.T, file string, args ...string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := Parse(append(args, "--config-file", path), io.Discard)
	return c, err
}

func TestFlagsAndFile(t *testing.T) {
	c, err := parse(t, `{"data-root":"/d","hosts":["unix:///x.sock"],"log-opts":{"max-size":"5m"},
		"default-ulimits":{"nofile":{"Name":"nofile","Hard":20,"Soft":10}},
		"default-address-pools":[{"base":"10.9.0.0/16","size":24}],"live-restore":false,
		"runtimes":{"crun":{"path":"/usr/bin/crun","runtimeArgs":["--debug"]}},"icc":false,
		"proxies":{"http-proxy":"http://p:1","https-proxy":"http://p:2"},"no-proxy":"a,b","host-gateway-ip":"192.0.2.1"}`,
		"-D", "--bip", "172.30.0.1/24", "--label", "a=b", "--label=c=d", "--mtu=1400", "--add-runtime", "runc=/usr/sbin/runc")
	if err != nil {
		t.Fatal(err)
	}
	for what, ok := range map[string]bool{
		"data root":  c.Daemon.DataRoot == "/d",
		"hosts":      len(c.API.Hosts) == 1 && c.API.Hosts[0] == "unix:///x.sock",
		"log opts":   c.Container.LogOpts["max-size"] == "5m",
		"ulimit":     c.Container.Ulimits["nofile"].Hard == 20,
		"pool":       len(c.Network.Pools) == 1 && c.Network.Pools[0].Size == 24,
		"runtime":    c.Container.Runtimes["crun"].Args[0] == "--debug" && c.Container.Runtimes["runc"].Path == "/usr/sbin/runc",
		"icc":        !c.Network.ICC,
		"debug":      c.Daemon.LogLevel == "debug",
		"bip":        c.Network.IPv4.Bridge.String() == "172.30.0.1/24",
		"labels":     strings.Join(c.Daemon.Labels, ",") == "a=b,c=d",
		"mtu":        c.Network.MTU == 1400,
		"1 warning":  len(c.Warnings) == 1 && strings.Contains(c.Warnings[0], "live-restore"),
		"proxies":    c.Registry.Proxies == Proxies{HTTP: "http://p:1", HTTPS: "http://p:2", No: "a,b"},
		"gateway":    len(c.Network.HostGatewayIPs) == 1,
		"shm as was": c.Container.Defaults.ShmSize == 64<<20,
	} {
		if !ok {
			t.Errorf("%s is wrong: %+v", what, c)
		}
	}
}

func TestRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		file string
		args []string
		want string
	}{
		"unknown key":       {file: `{"dataroot":"/x"}`, want: "dataroot"},
		"twice":             {file: `{"mtu":1400}`, args: []string{"--mtu", "1500"}, want: "leave one out"},
		"bad json":          {file: `{"mtu":`, want: "JSON"},
		"trailing":          {file: `{} {}`, want: "follows"},
		"plain tcp":         {args: []string{"-H", "tcp://0.0.0.0:2375"}, want: "root on this machine"},
		"tls without cert":  {args: []string{"--tls"}, want: "--tlscert"},
		"verify without ca": {args: []string{"--tlsverify", "--tlscert", "c", "--tlskey", "k"}, want: "--tlscacert"},
		"plain tcp, short":  {args: []string{"-H", ":2375"}, want: "root on this machine"},
		"real-time budget":  {args: []string{"--cpu-rt-runtime", "950000"}, want: "cpu.rt_runtime_us"},
		"label":             {args: []string{"--label", "x"}, want: "KEY=VALUE"},
		"name server":       {file: `{"dns":["resolver"]}`, want: "IP address"},
		"mirror":            {args: []string{"--registry-mirror", "ftp://x"}, want: "https://mirror"},
		"runtime":           {args: []string{"--add-runtime", "x=a/b"}, want: "absolute path"},
		"bip":               {args: []string{"--bip", "10.0.0.1"}, want: "172.30.0.1/24"},
		"slice":             {args: []string{"--cgroup-parent", "a.slice"}, want: "cgroup files itself"},
		"web pages":         {file: `{"api-cors-header":"*"}`, want: "root here"},
		"unknown proxy key": {file: `{"proxies":{"httpProxy":"x"}}`, want: "http-proxy"},
		"audit log":         {args: []string{"--audit-log", "x"}, want: "absolute"},
		"engine mounts":     {args: []string{"--engine-mounts", "no"}, want: "warn, forbid, allow"},
		"relative root":     {args: []string{"--data-root", "x"}, want: "absolute"},
		"comma in root":     {args: []string{"--data-root", "/a,b"}, want: "overlay mounts cannot"},
		"unknown runtime":   {args: []string{"--default-runtime", "kata"}, want: "--add-runtime kata"},
		"argument":          {args: []string{"start"}, want: "no arguments"},
		"bool":              {args: []string{"--init=maybe"}, want: "true or false"},
		"array for text":    {file: `{"mtu":[1]}`, want: "single value"},
		"pool":              {args: []string{"--default-address-pool", "base=10.0.0.0/8,size=4"}, want: "size"},
		"systemd cgroups":   {args: []string{"--exec-opt", "native.cgroupdriver=systemd"}, want: "systemd"},
		"loglevel":          {args: []string{"-l", "loud"}, want: "debug, info"},
	} {
		_, err := parse(t, tc.file, tc.args...)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, tc.want)
		}
	}
}

func TestDevNullIsAnEmptyConfiguration(t *testing.T) {
	c, _, err := Parse([]string{"--config-file", "/dev/null"}, io.Discard)
	if err != nil || c.API.Hosts[0] != DefaultHost {
		t.Fatal(c, err)
	}
}

func TestNamedFileMustExist(t *testing.T) {
	if _, _, err := Parse([]string{"--config-file", "/does/not/exist"}, io.Discard); err == nil {
		t.Fatal("no error")
	}
}

func TestHelpNamesEveryOption(t *testing.T) {
	var out bytes.Buffer
	if _, _, err := Parse([]string{"--help"}, &out); err == nil {
		t.Fatal("want the help error")
	}
	for i := range options {
		if o := &options[i]; o.flag != "" && o.set != nil && !strings.Contains(out.String(), "--"+o.flag) {
			t.Errorf("--%s is not in the help", o.flag)
		}
		if o := &options[i]; o.help == "" {
			t.Errorf("%s has no help", o.name())
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"hosts":["a"],"default-ulimits":{"x":{"Name":"x"}},"mtu":3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := decode(data); err == nil {
			c := Default()
			_ = apply(&c, nil, got)
		}
	})
}
