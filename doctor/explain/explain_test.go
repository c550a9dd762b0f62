package explain

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/doctor"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/observe/audit"
	"github.com/shoalhq/shoal/observe/health"
)

var start = time.Unix(1_800_000_000, 0)

func exited(code int, change ...func(*Container)) Facts {
	c := &Container{}
	c.View.Name = "web"
	c.View.State = model.State{Status: model.StatusExited, ExitCode: code, StartedAt: start, FinishedAt: start.Add(time.Minute)}
	for _, f := range change {
		f(c)
	}
	return Facts{Now: start.Add(time.Hour), Container: c}
}

func running(change ...func(*Container)) Facts {
	return exited(0, append([]func(*Container){func(c *Container) { c.View.State.Status = model.StatusRunning }}, change...)...)
}

func event(action, signal string) model.Event {
	return model.Event{Time: start.Add(time.Second), Type: "container", Action: action, Attrs: map[string]string{"signal": signal}}
}

func tcp(port uint16, addr string) Listener {
	return Listener{Proto: "tcp", Addr: netip.MustParseAddr(addr), Port: port}
}

func publish(addr string) func(*Container) {
	return func(c *Container) {
		b := model.PortBinding{Port: model.Port{Number: 80, Proto: "tcp"}, HostPort: 8080}
		if addr != "" {
			b.HostIP = netip.MustParseAddr(addr)
		}
		c.Published, c.Listened = []Published{{PortBinding: b}}, true
	}
}

func listen(l ...Listener) func(*Container) { return func(c *Container) { c.Listening = l } }

func TestCauses(t *testing.T) {
	uid := uint32(1000)
	for name, tc := range map[string]struct {
		f     Facts
		codes string // in order
		says  string
	}{
		"never": {exited(0, func(c *Container) { c.View.State.Status = model.StatusCreated }), "never-started", "shoal start web"},
		"no program": {exited(127, func(c *Container) {
			c.View.State.Status = model.StatusCreated
			c.View.State.Error = "exec: no such file"
		}), "cannot-run", "--entrypoint sh"},
		"clean":               {exited(0), "exited-by-itself", "foreground"},
		"says the same again": {exited(3, func(c *Container) { c.LogTail = []string{"no config", "no config", "no config"} }), "exit-code", "printed: no config"},
		"published twice": {running(publish("0.0.0.0"), func(c *Container) {
			both := c.Published[0]
			both.HostIP = netip.IPv6Unspecified()
			c.Published = append(c.Published, both)
		}), "nobody-listens", "port 80/tcp"},
		"own code": {exited(3, func(c *Container) { c.LogTail = []string{"cannot read config"} }), "exit-code", "cannot read config"},
		"127":      {exited(127), "cannot-run", "did not find"},
		"oom":      {exited(137, func(c *Container) { c.View.State.OOMKilled = true; c.View.Spec.Resources.Memory.Limit = 64 << 20 }), "oom-killed", "--memory 128m"},
		"supervisor": {exited(137, func(c *Container) {
			c.View.State.Error = "the container's supervisor was killed (is the machine short of memory?), so the container was killed too"
		}), "supervisor-killed", "shoal start web"},
		"segv":                {exited(139), "killed-by-signal", "SIGSEGV"},
		"killed from outside": {exited(137), "killed-by-signal", "nobody sent it over this API"},
		"killed over the API": {exited(137, func(c *Container) { c.Events = []model.Event{event("kill", "9")} }), "stopped-by-request", "SIGKILL"},
		"stopped": {exited(143, func(c *Container) {
			c.Events = []model.Event{event("kill", "15"), event("stop", "")}
			c.Calls = []audit.Record{{Method: "POST", Path: "/containers/web/stop", Who: audit.Who{UID: &uid, PID: 7, CN: "eve"}}}
		}), "stopped-by-request", `certificate "eve", uid 1000, pid 7`},
		"stopped too late": {exited(137, func(c *Container) {
			c.Events = []model.Event{event("kill", "15"), event("kill", "9"), event("stop", "")}
		}), "stopped-by-request", "--stop-timeout"},
		"loop": {exited(1, func(c *Container) {
			c.View.State.Status, c.View.State.RestartCount = model.StatusRestarting, 5
			c.View.Spec.Restart.Name = "always"
		}),
			"exit-code restarts-in-a-loop", "5 times"},
		"given up": {exited(1, func(c *Container) {
			c.View.State.RestartCount = 3
			c.View.Spec.Restart = model.RestartPolicy{Name: "on-failure", MaxRetries: 3}
		}),
			"exit-code restarts-given-up", "used up"},
		"unhealthy": {running(func(c *Container) {
			c.View.State.Health = &model.HealthState{Status: "unhealthy", FailingStreak: 4, Log: []model.HealthResult{{ExitCode: 1, Output: "refused\n"}}}
		}), "unhealthy", "refused"},
		"paused":      {running(func(c *Container) { c.View.State.Status = model.StatusPaused }), "container-paused", "unpause"},
		"dead":        {exited(0, func(c *Container) { c.View.State.Status = model.StatusDead }), "container-dead", "rm -f"},
		"in use":      {running(func(c *Container) { c.Dependents = []string{"side"} }), "container-in-use", "side"},
		"fine":        {running(publish(""), listen(tcp(80, "0.0.0.0"))), "", "running"},
		"loopback":    {running(publish(""), listen(tcp(80, "127.0.0.1"))), "listens-on-loopback", "0.0.0.0"},
		"nobody":      {running(publish(""), listen(tcp(3000, "::"))), "nobody-listens port-not-published", ":: port 3000"},
		"host's own":  {running(publish("127.0.0.1"), listen(tcp(80, "::"))), "published-on-loopback", "--publish-rm 80/tcp"},
		"unpublished": {running(func(c *Container) { c.View.Spec.Network.Exposed = []model.Port{{Number: 80, Proto: "tcp"}} }), "port-not-published", "--publish-add 80:80/tcp"},
		"internal": {running(func(c *Container) {
			c.Networks = []model.Network{{NetworkSpec: model.NetworkSpec{Name: "in", Internal: true}}}
		}), "network-internal", "in"},
		"none":    {running(func(c *Container) { c.View.Spec.Network.Mode = "none" }), "no-network", "loopback"},
		"problem": {running(func(c *Container) { publish("")(c); c.Published[0].Problem = "no way out" }), "port-unreachable", "no way out"},
		"daemon": {running(func(c *Container) {
			publish("")(c)
			c.Published[0].Daemon, c.Published[0].HostIP = true, netip.IPv6Unspecified()
			c.Listening = []Listener{tcp(80, "::")}
		}), "port-through-daemon", "port [::]:8080->80/tcp is carried by the daemon"},
		"sources": {running(func(c *Container) {
			publish("")(c)
			c.Published[0].Sources = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
			c.Listened = false
		}),
			"port-sources", "10.0.0.0/8"},
		"firewall": {func() Facts {
			f := running(publish(""), listen(tcp(80, "::")))
			f.Firewall = []doctor.Finding{{Code: "firewall-drops-forward", Cause: "iptables drops"}}
			return f
		}(), "firewall-drops-forward", "iptables drops"},

		"image not asked for": {Facts{Image: &Image{Ref: "x"}}, "image-missing", "shoal pull x"},
		"nothing of the name": {Facts{Image: &Image{Ref: "wbe", RemoteFound: true, Guess: true}}, "image-missing", "no container or network has this name"},
		"image not pulled":    {Facts{Image: &Image{Ref: "x", RemoteFound: true}}, "image-missing", "the registry has it"},
		"image unknown":       {Facts{Image: &Image{Ref: "x", Remote: errs.New(errs.NotFound, "manifest unknown")}}, "image-not-found", "manifest unknown"},
		"image denied":        {Facts{Image: &Image{Ref: "x", Remote: errors.New("pull access denied for x")}}, "image-denied", "shoal login"},
		"image rate":          {Facts{Image: &Image{Ref: "x", Remote: errors.New("429 Too Many Requests")}}, "registry-rate-limit", "mirror"},
		"image tls":           {Facts{Image: &Image{Ref: "x", Remote: errors.New("x509: certificate signed by unknown authority")}}, "registry-certificate", "ca.crt"},
		"image unreachable":   {Facts{Image: &Image{Ref: "x", Remote: errors.New("lookup x: no such host")}}, "registry-unreachable", "DNS"},
		"image else":          {Facts{Image: &Image{Ref: "x", Remote: errors.New("boo")}}, "pull-failed", "boo"},
		"image in use": {Facts{Image: &Image{Ref: "x", HostArch: "amd64", Local: &model.Image{RepoTags: []string{"x:1", "x:2"}, Platform: model.Platform{OS: "linux", Architecture: "arm64"}},
			Users: []ImageUser{{"web", true}}}}, "image-other-platform image-in-use image-several-names", "web (running)"},

		"network in use":  {Facts{Network: &Network{Network: model.Network{NetworkSpec: model.NetworkSpec{Name: "n", Internal: true}}, Members: []string{"a", "b"}, Free: map[string]uint64{"10.0.0.0/30": 0}}}, "network-full network-internal network-in-use", "a, b"},
		"network of ours": {Facts{Network: &Network{Network: model.Network{NetworkSpec: model.NetworkSpec{Name: "bridge"}}}}, "network-predefined", "cannot be removed"},

		"port of nobody": {Facts{Port: &Port{Number: 80, Proto: "tcp"}}, "port-of-nobody", "shoal run -p 80"},
		"port of host":   {Facts{Port: &Port{Number: 80, Proto: "tcp", Holders: []Holder{{tcp(80, "::"), 5, "nginx"}}}}, "port-of-host-process", "nginx (pid 5)"},
		"port stopped":   {Facts{Port: &Port{Number: 80, Proto: "tcp", Stopped: []string{"web"}}}, "port-of-stopped", "shoal explain web"},
		"port":           {Facts{Port: &Port{Number: 8080, Proto: "tcp", By: running(publish(""), listen(tcp(80, "127.0.0.1"))).Container}}, "listens-on-loopback", "container web"},
	} {
		r := Explain(tc.f)
		var got []string
		for _, f := range r.Findings {
			got = append(got, f.Code)
			seen[f.Code] = true
		}
		if strings.Join(got, " ") != tc.codes || !strings.Contains(r.Text(), tc.says) {
			t.Errorf("%s: %v\n%s", name, got, r.Text())
		}
	}
	seen["start-failed"] = Explain(exited(128, func(c *Container) { c.View.State.Error = "port is already in use" })).Findings[0].Code == "start-failed"
	for code, severity := range Codes() {
		if tr, ok := health.Find(code); !ok || tr.Severity != severity {
			t.Errorf("observe/health lacks %s with severity %s", code, severity)
		}
		if !seen[code] {
			t.Errorf("no case here gives %s", code)
		}
	}
}

var seen = map[string]bool{}
