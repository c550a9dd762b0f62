package engine

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/sys/signal"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/engine/ocispec"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

func invalid(format string, args ...any) error { return errs.New(errs.Invalid, format, args...) }

// maxUser bounds names of user and group together: systems know none of more than some dozens of characters.
const maxUser = 1024

// validate checks a container's merged spec as far as that needs nothing but the spec, the machine's size and the
// daemon's configuration. Each sentence names the field, what was found and what would do.
func (e *Engine) validate(s *model.ContainerSpec) (warnings []string, err error) {
	for _, check := range []func(*model.ContainerSpec) error{
		validateProcess, validateHealth, validateLife, validateIsolation, validateNetwork, validateSecurity, e.validateRemap, e.validateHost,
	} {
		if err := check(s); err != nil {
			return nil, err
		}
	}
	return e.validateResources(&s.Resources)
}

func validateProcess(s *model.ContainerSpec) error {
	p := &s.Process
	if len(p.Entrypoint) == 0 && len(p.Cmd) == 0 {
		return invalid("no command specified: the image has none; give one after the image's name")
	}
	if (append(slices.Clone(p.Entrypoint), p.Cmd...))[0] == "" {
		return invalid("the command is an empty string; give the program to run")
	}
	if !strings.HasPrefix(p.WorkingDir, "/") {
		return invalid("the working directory '%s' is invalid, it needs to be an absolute path", p.WorkingDir)
	}
	if n := len(p.WorkingDir); n >= unix.PathMax {
		return invalid("the working directory is a path of %d bytes, %s...; the kernel takes at most %d", n, p.WorkingDir[:50], unix.PathMax-1)
	}
	if n := len(p.User); n > maxUser {
		return invalid("the user is a text of %d bytes, %s...; want NAME, UID, NAME:GROUP or UID:GID of at most %d", n, p.User[:50], maxUser)
	}
	for _, env := range p.Env {
		if env == "" || env[0] == '=' {
			return invalid("invalid environment variable: %s has no name; write NAME=value", env)
		}
	}
	for what, list := range map[string][]string{"entrypoint": p.Entrypoint, "command": p.Cmd, "environment": p.Env,
		"working directory": {p.WorkingDir}, "user": {p.User}} {
		for _, text := range list {
			if strings.ContainsRune(text, 0) {
				return invalid("invalid %s: %q contains a NUL byte, which no program can be given", what, text)
			}
		}
	}
	if s.Stop.Signal != "" {
		if _, err := parseSignal(s.Stop.Signal); err != nil {
			return err
		}
	}
	if s.Stop.Timeout != nil && *s.Stop.Timeout < -1 {
		return invalid("invalid stop timeout %d: want seconds, or -1 to wait for ever", *s.Stop.Timeout)
	}
	return nil
}

// parseSignal reads "SIGTERM", "term", "15".
func parseSignal(name string) (int, error) {
	sig, err := signal.ParseSignal(name)
	if err != nil || sig <= 0 || sig > 64 {
		return 0, invalid("invalid signal: %s; want a name such as SIGTERM or a number from 1 to 64", name)
	}
	return int(sig), nil
}

func validateHealth(s *model.ContainerSpec) error {
	h := s.Health
	if h == nil {
		return nil
	}
	for name, d := range map[string]time.Duration{"Interval": h.Interval, "Timeout": h.Timeout, "StartPeriod": h.StartPeriod, "StartInterval": h.StartInterval} {
		if d != 0 && d < time.Millisecond {
			return invalid("%s in Healthcheck cannot be less than 1ms: it is %s; 0 means the default", name, d)
		}
	}
	if h.Retries < 0 {
		return invalid("Retries in Healthcheck cannot be negative: it is %d", h.Retries)
	}
	if len(h.Test) == 0 {
		return nil
	}
	switch h.Test[0] {
	case "", "NONE":
	case "CMD", "CMD-SHELL":
		if len(h.Test) < 2 {
			return invalid("Healthcheck %s has no command behind it", h.Test[0])
		}
	default:
		return invalid("unknown Healthcheck test type %q: want NONE, CMD or CMD-SHELL first", h.Test[0])
	}
	return nil
}

func validateLife(s *model.ContainerSpec) error {
	r := s.Restart
	switch r.Name {
	case "", "no", "always", "unless-stopped":
		if r.MaxRetries != 0 {
			return invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'")
		}
	case "on-failure":
		if r.MaxRetries < 0 {
			return invalid("invalid restart policy: maximum retry count cannot be negative")
		}
	default:
		return invalid("invalid restart policy: unknown policy '%s'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'", r.Name)
	}
	if s.Options.AutoRemove && r.Name != "" && r.Name != "no" {
		return invalid("can't create 'AutoRemove' container with restart policy %q: choose one of --rm and --restart", r.Name)
	}
	for key, value := range s.Options.StorageOpt {
		if key != "size" {
			return invalid("--storage-opt %s=%s: the only option of a container's layer is size", key, value)
		}
		if n, err := units.RAMInBytes(value); err != nil || n <= 0 {
			return invalid("--storage-opt size=%s: want a size such as 500m or 10g", value)
		}
	}
	for key := range s.Options.Annotations {
		if key == "" {
			return invalid("invalid Annotations: the empty string is not permitted as an annotation key")
		}
		if strings.HasPrefix(key, "dev.shoal.") { // what the engine tells its runtime, such as directories to mount
			return invalid("invalid Annotations: %q: names that begin with dev.shoal. are the engine's own; choose another", key)
		}
	}
	return nil
}

func validateIsolation(s *model.ContainerSpec) error {
	iso := &s.Isolation
	for _, m := range []struct {
		what, mode string
		allowed    []string
		join       bool
	}{
		{"IPC mode", iso.IPC, []string{"", "none", "host", "private", "shareable"}, true},
		{"PID mode", iso.PID, []string{"", "host", "private"}, true},
		{"UTS mode", iso.UTS, []string{"", "host", "private"}, false},
		{"user namespace mode", iso.User, []string{"", "host"}, false},
		{"cgroup namespace mode", iso.Cgroup, []string{"", "host", "private"}, false},
		{"isolation", iso.Isolation, []string{"", "default"}, false},
	} {
		name, isJoin := strings.CutPrefix(m.mode, "container:")
		if isJoin && m.join && name != "" {
			continue
		}
		if !slices.Contains(m.allowed, m.mode) {
			hint := strings.Trim(strings.Join(m.allowed, ", "), ", ")
			if m.join {
				hint += ", container:NAME"
			}
			return invalid("invalid %s: %s; known are: %s", m.what, m.mode, hint)
		}
	}
	if iso.UTS == "host" && (s.Network.Hostname != "" || s.Network.Domainname != "") {
		return invalid("conflicting options: hostname and the UTS mode: with --uts host the container has the machine's name")
	}
	for name := range iso.Sysctls {
		if err := validateSysctl(name, s); err != nil {
			return err
		}
	}
	return nil
}

// validateSysctl lets through only what belongs to a namespace that the container has for itself; anything else would
// change the machine.
func validateSysctl(name string, s *model.ContainerSpec) error {
	shared := func(mode string) bool { return mode == "host" || strings.HasPrefix(mode, "container:") }
	dotted := strings.ReplaceAll(name, "/", ".")
	switch {
	case strings.HasPrefix(dotted, "net."):
		if shared(s.Network.Mode) {
			return invalid("sysctl '%s' is not allowed with --network %s: the network namespace is not the container's own", name, s.Network.Mode)
		}
		return nil
	case slices.Contains([]string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
		"kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced", "kernel.msg_next_id", "kernel.sem_next_id",
		"kernel.shm_next_id"}, dotted), strings.HasPrefix(dotted, "fs.mqueue."):
		if shared(s.Isolation.IPC) {
			return invalid("sysctl '%s' is not allowed with --ipc %s: the IPC namespace is not the container's own", name, s.Isolation.IPC)
		}
		return nil
	case dotted == "kernel.domainname", dotted == "kernel.hostname":
		return invalid("sysctl '%s' is not allowed: use --hostname and --domainname", name)
	}
	return invalid("sysctl '%s' is not allowed: it belongs to no namespace, so it would change the whole machine; set it on the machine", name)
}

func validateNetwork(s *model.ContainerSpec) error {
	n := &s.Network
	for what, name := range map[string]string{"hostname": n.Hostname, "domainname": n.Domainname} {
		if len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '/' }) {
			return invalid("invalid %s %q: at most 64 characters, without blanks, control characters and slashes", what, name)
		}
	}
	if n.MacAddress != "" {
		if _, err := model.ParseMAC(n.MacAddress); err != nil {
			return err
		}
	}
	for _, b := range n.Publish {
		if err := b.Validate(); err != nil {
			return err
		}
	}
	for _, addr := range n.Names.DNS {
		if _, err := netip.ParseAddr(addr); err != nil {
			return invalid("invalid DNS server %q: want an IP address", addr)
		}
	}
	for _, h := range n.Names.ExtraHosts {
		name, addr, ok := strings.Cut(h, ":")
		if eq, rest, has := strings.Cut(h, "="); has && !strings.Contains(eq, ":") {
			name, addr, ok = eq, rest, true
		}
		if !ok || name == "" || strings.ContainsFunc(name, blank) {
			return invalid("bad format for add-host: %q; want NAME:ADDRESS", h)
		}
		if _, err := netip.ParseAddr(strings.Trim(addr, "[]")); err != nil && addr != "host-gateway" {
			return invalid("invalid IP address in add-host: %q; want an address or host-gateway", addr)
		}
	}
	for what, list := range map[string][]string{"DNS option": n.Names.DNSOptions, "DNS search domain": n.Names.DNSSearch} {
		for _, text := range list {
			if strings.ContainsFunc(text, blank) {
				return invalid("invalid %s %q: it contains a blank or a control character", what, text)
			}
		}
	}
	for _, link := range n.Links {
		if strings.ContainsFunc(link, blank) { // it would make lines of its own in /etc/hosts
			return invalid("bad format for links: %q; want NAME[:ALIAS]", link)
		}
	}
	return validateNetworkMode(n)
}

// blank says what no name in /etc/hosts or /etc/resolv.conf may have in it.
func blank(r rune) bool { return r <= ' ' || r == 0x7f }

// validateNetworkMode refuses what has no meaning in the mode.
func validateNetworkMode(n *model.ContainerNetworkSpec) error {
	if name, join := strings.CutPrefix(n.Mode, "container:"); join {
		switch {
		case name == "":
			return invalid("invalid network mode %q: want container:NAME", n.Mode)
		case n.Hostname != "":
			return invalid("conflicting options: hostname and the network mode: the container gets the one of container %s", name)
		case len(n.Links) > 0:
			return invalid("conflicting options: container type network can't be used with links. This would result in undefined behavior")
		case len(n.Names.DNS) > 0:
			return invalid("conflicting options: dns and the network mode")
		case len(n.Names.ExtraHosts) > 0:
			return invalid("conflicting options: custom host-to-IP mapping and the network mode")
		case n.MacAddress != "":
			return invalid("conflicting options: mac-address and the network mode")
		case len(n.Publish) > 0 || n.PublishAll:
			return invalid("conflicting options: port publishing and the container type network mode: publish the port on container %s", name)
		}
		return nil
	}
	if n.Mode == model.NetworkHost && len(n.Links) > 0 {
		return invalid("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
	}
	return nil
}

func validateSecurity(s *model.ContainerSpec) error {
	if _, err := ocispec.ParseSecurity(s.Security.Options); err != nil {
		return err
	}
	if _, err := ocispec.NormalizeCapabilities(s.Security.CapAdd); err != nil {
		return err
	}
	_, err := ocispec.NormalizeCapabilities(s.Security.CapDrop)
	return err
}

// validateHost checks what depends on the daemon's configuration and on the machine.
func (e *Engine) validateHost(s *model.ContainerSpec) error {
	d := e.defaults.Load()
	if name := s.Options.Runtime; name != "" && name != d.Runtime && !slices.Contains(d.Runtimes, name) {
		known := strings.Join(d.Runtimes, ", ")
		return invalid("unknown or invalid runtime name: %s; known are: %s (more by the daemon's option --add-runtime)", name, known)
	}
	sec, _ := ocispec.ParseSecurity(s.Security.Options)
	if err := e.checkSecurityModules(sec); err != nil {
		return err
	}
	switch sec.Seccomp {
	case "", "unconfined", "builtin":
	default: // better told now than at every start
		if _, err := e.cfg.Seccomp.Load(sec.Seccomp, &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}, Linux: &specs.Linux{}}); err != nil {
			return errs.As(errs.Invalid, errs.Wrap(err, "invalid --security-opt seccomp: want unconfined, builtin or a profile in JSON"))
		}
	}
	if parent := s.Resources.CgroupParent; strings.HasSuffix(parent, ".slice") || slices.Contains(strings.Split(parent, "/"), "..") {
		return invalid("invalid cgroup parent %q: want a path such as /mygroup, without .. and not a systemd slice", parent)
	}
	if _, err := e.resolveDevices(s.Resources.DeviceRequest); err != nil {
		return err
	}
	for _, rule := range s.Resources.DeviceRules {
		if _, err := ocispec.ParseDeviceRule(rule); err != nil {
			return err
		}
	}
	return e.ports.Tasks.ValidateLog(s.Log)
}
