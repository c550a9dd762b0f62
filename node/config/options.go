package config

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	units "github.com/docker/go-units"
)

// option is one thing that can be said on the command line and in daemon.json. Values arrive as texts: once for a
// single value, once per element for a list. A JSON value that is no text arrives in JSON.
type option struct {
	flag   string // "" has no flag
	short  string
	key    string // of daemon.json; "" has no key
	oldKey string // its former name
	help   string
	kind   kind
	set    func(c *Config, v string) error // nil: without effect here, for the reason in help, or refused
	// refused says why the option is refused, as it would be unsafe to ignore; off is the value that asks for nothing.
	refused, off string
	ours         bool // not one of dockerd's
}

type kind int

const (
	text kind = iota
	boolean
	list // repeated flag, JSON array of texts, or a JSON object of name: value
	raw  // a JSON value handed on as it is; list of objects
)

func (o *option) name() string {
	if o.flag != "" {
		return o.flag
	}
	return o.key
}

func str(field func(*Config) *string) func(*Config, string) error {
	return func(c *Config, v string) error { *field(c) = v; return nil }
}

func parseBool(v string) (bool, error) {
	b, err := strconv.ParseBool(v)
	if err != nil {
		err = fmt.Errorf("want true or false, got %q", v)
	}
	return b, err
}

func flagBool(field func(*Config) *bool) func(*Config, string) error {
	return func(c *Config, v string) error {
		b, err := parseBool(v)
		if err != nil {
			return err
		}
		*field(c) = b
		return nil
	}
}

func number(field func(*Config) *int) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			return fmt.Errorf("want a whole number of 0 or more, got %q", v)
		}
		*field(c) = n
		return nil
	}
}

// watermarks reads HIGH:LOW in percent; "" is off.
func watermarks(c *Config, v string) error {
	if v == "" {
		c.Registry.Reclaim = Reclaim{}
		return nil
	}
	high, low, ok := strings.Cut(v, ":")
	h, err1 := strconv.Atoi(strings.TrimSuffix(high, "%"))
	l, err2 := strconv.Atoi(strings.TrimSuffix(low, "%"))
	if !ok || err1 != nil || err2 != nil || l < 1 || h > 99 || l > h {
		return fmt.Errorf("want HIGH:LOW in percent of the disk, for example 85:70, got %q", v)
	}
	c.Registry.Reclaim = Reclaim{High: h, Low: l}
	return nil
}

func texts(field func(*Config) *[]string) func(*Config, string) error {
	return func(c *Config, v string) error { *field(c) = append(*field(c), v); return nil }
}

// checked is texts with a look at each.
func checked(field func(*Config) *[]string, check func(v string) error) func(*Config, string) error {
	return func(c *Config, v string) error {
		if err := check(v); err != nil {
			return err
		}
		*field(c) = append(*field(c), v)
		return nil
	}
}

func isLabel(v string) error {
	if key, _, ok := strings.Cut(v, "="); !ok || key == "" {
		return fmt.Errorf("want KEY=VALUE, got %q", v)
	}
	return nil
}

func isAddress(v string) error {
	if _, err := netip.ParseAddr(v); err != nil {
		return fmt.Errorf("want an IP address, got %q", v)
	}
	return nil
}

// isMirror accepts URL and PREFIX=URL.
func isMirror(v string) error {
	_, text, ok := strings.Cut(v, "=")
	if !ok {
		text = v
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("want the URL of a registry, such as https://mirror.example.com, got %q", text)
	}
	return nil
}

func setCgroupParent(c *Config, v string) error {
	if strings.HasSuffix(v, ".slice") {
		return fmt.Errorf("systemd's slices are not offered as parents: shoald writes the cgroup files itself; name a cgroup, such as /shoal")
	}
	c.Container.Defaults.CgroupParent = v
	return nil
}

func oneOf(field func(*Config) *string, choices ...string) func(*Config, string) error {
	return func(c *Config, v string) error {
		for _, choice := range choices {
			if v == choice {
				*field(c) = v
				return nil
			}
		}
		return fmt.Errorf("want one of %s, got %q", strings.TrimPrefix(strings.Join(choices, ", "), ", "), v)
	}
}

func prefix(field func(*Config) *netip.Prefix) func(*Config, string) error {
	return func(c *Config, v string) (err error) {
		if *field(c), err = netip.ParsePrefix(v); err != nil {
			err = fmt.Errorf("want an address with the length of its network, such as 172.30.0.1/24, got %q", v)
		}
		return err
	}
}

func address(field func(*Config) *netip.Addr) func(*Config, string) error {
	return func(c *Config, v string) (err error) {
		if *field(c), err = netip.ParseAddr(v); err != nil {
			err = isAddress(v)
		}
		return err
	}
}

func setPool(c *Config, v string) error {
	var p Pool
	if strings.HasPrefix(v, "{") {
		if err := json.Unmarshal([]byte(v), &p); err != nil {
			return err
		}
	} else {
		for item := range strings.SplitSeq(v, ",") {
			k, val, _ := strings.Cut(item, "=")
			var err error
			switch k {
			case "base":
				p.Base, err = netip.ParsePrefix(val)
			case "size":
				p.Size, err = strconv.Atoi(val)
			default:
				err = fmt.Errorf("unknown key %q", k)
			}
			if err != nil {
				return fmt.Errorf("%w; want base=CIDR,size=BITS, such as base=10.200.0.0/16,size=24", err)
			}
		}
	}
	if !p.Base.IsValid() || p.Size < p.Base.Bits() || p.Size > p.Base.Addr().BitLen() {
		return fmt.Errorf("%q does not give a base network and a size between its prefix length and %d", v, p.Base.Addr().BitLen())
	}
	c.Network.Pools = append(c.Network.Pools, p)
	return nil
}

func setUlimit(c *Config, v string) error {
	if strings.HasPrefix(v, "{") {
		var u Ulimit
		if err := json.Unmarshal([]byte(v), &u); err != nil {
			return err
		}
		c.Container.Ulimits[u.Name] = u
		return nil
	}
	u, err := units.ParseUlimit(v)
	if err != nil {
		return err
	}
	c.Container.Ulimits[u.Name] = Ulimit{u.Name, u.Soft, u.Hard}
	return nil
}

func setLogOpt(c *Config, v string) error {
	k, val, ok := strings.Cut(v, "=")
	if !ok {
		return fmt.Errorf("want key=value, got %q", v)
	}
	c.Container.LogOpts[k] = val
	return nil
}

func setRuntime(c *Config, v string) error {
	name, what, ok := strings.Cut(v, "=")
	if !ok {
		return fmt.Errorf("want name=path, got %q", v)
	}
	r := Runtime{Path: what}
	if strings.HasPrefix(what, "{") {
		if err := json.Unmarshal([]byte(what), &r); err != nil {
			return err
		}
	}
	if r.Path == "" {
		return fmt.Errorf("runtime %q has no path", name)
	}
	if strings.Contains(r.Path, "/") && !strings.HasPrefix(r.Path, "/") {
		return fmt.Errorf("want the absolute path of runtime %s, or the name of a program in PATH, got %q", name, r.Path)
	}
	c.Container.Runtimes[name] = r
	return nil
}

func setShm(c *Config, v string) (err error) {
	c.Container.Defaults.ShmSize, err = units.RAMInBytes(v)
	return err
}

func setAuditLog(c *Config, v string) error {
	if !strings.HasPrefix(v, "/") {
		return fmt.Errorf("want the absolute path of a file, got %q", v)
	}
	c.API.Guard.AuditLog = v
	return nil
}

func setAuditSize(c *Config, v string) (err error) {
	c.API.Guard.AuditSize, err = units.RAMInBytes(v)
	if err == nil && c.API.Guard.AuditSize < 4096 {
		err = fmt.Errorf("want 4k or more, got %q", v)
	}
	return err
}

func setLiveRestore(c *Config, v string) error {
	on, err := parseBool(v)
	if err == nil && !on {
		c.Warnings = append(c.Warnings, "live-restore cannot be switched off: containers outlive the daemon; --shutdown-containers stops them when the daemon is told to end")
	}
	return err
}

func setStopTimeout(c *Config, v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < -1 {
		return fmt.Errorf("want seconds, got %q", v)
	}
	c.Daemon.StopTimeout = time.Duration(n) * time.Second
	return nil
}

func setExecOpt(_ *Config, v string) error {
	switch v {
	case "native.cgroupdriver=cgroupfs":
		return nil
	case "native.cgroupdriver=systemd":
		return fmt.Errorf("the systemd cgroup driver is not offered; leave the option out: shoald writes the cgroup files itself")
	}
	return fmt.Errorf("unknown exec option %q", v)
}

func setHostGateway(c *Config, v string) error {
	a, err := netip.ParseAddr(v)
	if err == nil {
		c.Network.HostGatewayIPs = append(c.Network.HostGatewayIPs, a)
	}
	return err
}

func setPublishPolicy(c *Config, v string) error {
	if v != "docker" && v != "host" {
		return fmt.Errorf("want docker or host, got %q", v)
	}
	c.Network.Publish.HostPolicy = v == "host"
	return nil
}

func setProxies(c *Config, v string) error {
	var p struct {
		HTTP  string `json:"http-proxy"`
		HTTPS string `json:"https-proxy"`
		No    string `json:"no-proxy"`
	}
	dec := json.NewDecoder(strings.NewReader(v))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return fmt.Errorf("want an object of http-proxy, https-proxy and no-proxy: %w", err)
	}
	for to, v := range map[*string]string{&c.Registry.Proxies.HTTP: p.HTTP, &c.Registry.Proxies.HTTPS: p.HTTPS, &c.Registry.Proxies.No: p.No} {
		if v != "" {
			*to = v
		}
	}
	return nil
}

func setNetworkOpt(c *Config, v string) error {
	if c.Network.NetworkOpts == nil {
		c.Network.NetworkOpts = map[string]map[string]string{}
	}
	driver, opt, ok := strings.Cut(v, "=")
	if ok && strings.HasPrefix(opt, "{") {
		m := map[string]string{}
		if err := json.Unmarshal([]byte(opt), &m); err != nil {
			return err
		}
		c.Network.NetworkOpts[driver] = m
		return nil
	}
	k, val, ok2 := strings.Cut(opt, "=")
	if !ok || !ok2 {
		return fmt.Errorf("want driver=key=value, got %q", v)
	}
	if c.Network.NetworkOpts[driver] == nil {
		c.Network.NetworkOpts[driver] = map[string]string{}
	}
	c.Network.NetworkOpts[driver][k] = val
	return nil
}
