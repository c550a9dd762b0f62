package logopts

import (
	"strings"
	"testing"

	"github.com/shoalhq/shoal/runtime/spec"
)

func TestDefaults(t *testing.T) {
	for _, d := range Drivers {
		opts := map[string]string{}
		if d == GELF {
			opts["gelf-address"] = "udp://h:1"
		}
		o, err := Parse(d, opts)
		if err != nil || o.NonBlocking {
			t.Errorf("%s: %+v %v", d, o, err)
		}
	}
	if o, _ := Parse(JSONFile, nil); o.File != (File{20 << 20, 5, false}) {
		t.Error(o.File)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ driver, key, value, want string }{
		{"nope", "", "", `unknown log driver "nope"`},
		{Local, "max-sizes", "1m", `unknown log opt "max-sizes"`},
		{Local, "max-size", "lots", "is not a size"},
		{Local, "max-size", "0", "more than 0"},
		{Local, "max-file", "0", "1 or more"},
		{Local, "compress", "maybe", "true or false"},
		{Local, "mode", "fast", "blocking or non-blocking"},
		{Local, "max-buffer-size", "1m", "only for mode=non-blocking"},
		{Local, "tag", "{{.Nope}}", "not understood"},
		{Local, "tag", "{{.ID", "without }}"},
		{Syslog, "syslog-address", "tcp//x", "must look like"},
		{Syslog, "syslog-address", "http://x:1", "does not speak"},
		{Syslog, "syslog-address", "unix://rel", "absolute"},
		{Syslog, "syslog-facility", "nope", "must be a number"},
		{Syslog, "syslog-format", "x", "must be one of"},
		{Syslog, "syslog-tls-ca-cert", "/x", "tcp+tls"},
		{GELF, "", "", "gelf-address"},
		{GELF, "gelf-address", "tcp://h", "must name a port"},
		{Fluentd, "fluentd-retry-wait", "x", "duration"},
	} {
		opts := map[string]string{}
		if c.key != "" {
			opts[c.key] = c.value
		}
		if _, err := Parse(c.driver, opts); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s=%s: %v, want %q", c.driver, c.key, c.value, err, c.want)
		}
	}
}

func TestAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"udp://10.0.0.1": "udp 10.0.0.1:514", "tcp://h:99": "tcp h:99", "unix:///dev/log": "unix /dev/log",
		"tcp+tls://[::1]:6514": "tcp+tls [::1]:6514", "udp://[::1]": "udp [::1]:514", "udp://::1": "udp [::1]:514",
	} {
		o, err := Parse(Syslog, map[string]string{"syslog-address": in})
		if err != nil || o.Syslog.Network+" "+o.Syslog.Address != want {
			t.Errorf("%s: %+v %v, want %s", in, o.Syslog, err, want)
		}
	}
	o, err := Parse(Fluentd, map[string]string{"fluentd-address": "h:1"})
	if err != nil || o.Fluentd.Address != "h:1" {
		t.Error(o.Fluentd, err)
	}
}

func TestSizes(t *testing.T) {
	for in, want := range map[string]int64{"20m": 20 << 20, "1.5k": 1536, "10MB": 10 << 20, "1gib": 1 << 30, "77": 77, "-1": 0} {
		if n, err := Size(in); n != want || err != nil {
			t.Errorf("%s: %d %v", in, n, err)
		}
	}
}

func TestTag(t *testing.T) {
	info := &spec.LogInfo{ContainerID: strings.Repeat("ab", 32), ContainerName: "/web", ImageName: "nginx:1",
		ImageID: "sha256:0123456789abcdef", Labels: map[string]string{"a": "b"}}
	for in, want := range map[string]string{
		"{{.ID}}": "abababababab", "{{.ImageName}}/{{ .Name }}/{{.ImageID}}": "nginx:1/web/0123456789ab", "plain": "plain",
		"{{upper .Name}}": "WEB", "{{.Name | title}}": "Web", `{{index .Labels "a"}}`: "b",
	} {
		if got, err := Tag(in, info); got != want || err != nil {
			t.Errorf("%s: %q %v", in, got, err)
		}
	}
}
