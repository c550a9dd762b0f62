// Package ocispec makes the OCI runtime configuration of a container from its record and from facts that the engine
// looked up. It is pure: no file, clock, lock or system call; what needs them comes in through Input. The defaults are
// those of the Docker Engine, so that a container sees the same world.
package ocispec

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Size is how large the machine is.
type Size struct {
	CPUs        int
	MemoryNodes int // one more than the highest number of a NUMA node with memory; 0 is not known
}

// Host is what the machine can do.
type Host struct {
	Size
	CgroupV2  bool
	AppArmor  bool
	SELinux   bool
	Seccomp   bool
	LastCap   int      // number of the newest capability that the kernel knows
	Caps      uint64   // the capabilities that the daemon itself has, by number, and so can give; 0 is all
	Arch      string   // Go's name
	Thermal   []string // directories with thermal throttling counters, which are masked
	Profile   string   // AppArmor profile that containers get
	CgroupDev bool     // the cgroup namespace is available
	RRO       bool     // read-only binds can be made recursively read-only
}

// Input is all that a configuration is made of.
type Input struct {
	Container *model.Container
	Host      Host
	RootPath  string // where the root filesystem is mounted
	User      User
	Mounts    []specs.Mount // of the user and of the engine, made by Mounts
	Joins     map[specs.LinuxNamespaceType]string
	Hostname  string // "" when the UTS namespace is not the container's own
	Devices   Devices
	Limits    Limits
	Seccomp   SeccompSource
	IDMaps    *model.IDMaps // of the container's user namespace; nil is the host's
}

// User is the container's user, looked up in its root filesystem.
type User struct {
	UID, GID uint32
	Groups   []uint32
	Home     string
}

// Devices are host devices, looked up.
type Devices struct {
	Nodes []specs.LinuxDevice
	Rules []specs.LinuxDeviceCgroup
	Block map[string]specs.LinuxBlockIODevice // number of a block device by its path on the host
}

// Limits are the daemon's defaults for what the container leaves open.
type Limits struct {
	Ulimits      []model.Ulimit
	PidsLimit    int64 // 0 is none
	CgroupParent string
	NoNewPrivs   bool
}

// SeccompSource gives the system call filters. Default depends on the capabilities; Load reads a profile in JSON.
type SeccompSource struct {
	Default func(s *specs.Spec) (*specs.LinuxSeccomp, error)
	Load    func(profile string, s *specs.Spec) (*specs.LinuxSeccomp, error)
}

// DefaultPath is the PATH of containers whose image sets none.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Build makes the configuration.
func Build(in Input) (*specs.Spec, error) {
	c := in.Container
	sec, err := ParseSecurity(c.Spec.Security.Options)
	if err != nil {
		return nil, err
	}
	caps, err := Capabilities(c.Spec.Security, in.Host)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:     specs.Version,
		Root:        &specs.Root{Path: in.RootPath, Readonly: c.Spec.Storage.ReadonlyRootfs},
		Hostname:    in.Hostname,
		Process:     process(in, sec, caps),
		Mounts:      in.Mounts,
		Annotations: maps.Clone(c.Spec.Options.Annotations),
	}
	if in.Hostname != "" {
		s.Domainname = c.Spec.Network.Domainname
	}
	res, err := Resources(c.Spec.Resources, in.Devices.Block, in.Limits.PidsLimit)
	if err != nil {
		return nil, err
	}
	res.Devices = deviceRules(c.Spec.Security.Privileged, in.Devices.Rules)
	s.Linux = &specs.Linux{
		Namespaces:  namespaces(in),
		Resources:   res,
		CgroupsPath: cgroupsPath(in),
		Devices:     in.Devices.Nodes,
		Sysctl:      sysctls(in),
		MountLabel:  c.Runtime.MountLabel,
	}
	if m := in.IDMaps; m != nil {
		s.Linux.UIDMappings, s.Linux.GIDMappings = mappings(m.UIDs), mappings(m.GIDs)
	}
	s.Linux.RootfsPropagation = rootfsPropagation(in.Mounts)
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = HiddenPaths(c.Spec.Security, sec, in.Host.Thermal)
	if err := seccomp(s, in, sec); err != nil {
		return nil, err
	}
	return s, nil
}

func process(in Input, sec Security, caps []string) *specs.Process {
	c := in.Container
	p := &specs.Process{
		Terminal: c.Spec.Process.Tty,
		Args:     append([]string{c.Runtime.Path}, c.Runtime.Args...),
		Env:      Env(c.Spec.Process, in.Hostname, in.User.Home),
		Cwd:      c.Spec.Process.WorkingDir,
		User:     specs.User{UID: in.User.UID, GID: in.User.GID, AdditionalGids: in.User.Groups, Umask: c.Spec.Process.Umask},
		Rlimits:  rlimits(c.Spec.Resources.Ulimits, in.Limits.Ulimits),
		Capabilities: &specs.LinuxCapabilities{
			Bounding: caps, Effective: caps, Permitted: caps,
		},
		NoNewPrivileges: sec.NoNewPrivs(in.Limits.NoNewPrivs),
		ApparmorProfile: AppArmor(c.Spec.Security.Privileged, sec, in.Host),
		SelinuxLabel:    c.Runtime.ProcessLabel,
	}
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	if sz := c.Spec.Process.ConsoleSz; p.Terminal && sz[0] > 0 && sz[1] > 0 {
		p.ConsoleSize = &specs.Box{Height: sz[0], Width: sz[1]}
	}
	if adj := c.Spec.Resources.OomScoreAdj; adj != 0 {
		p.OOMScoreAdj = &adj
	}
	return p
}

// Env is the environment of the container's program: Docker's base, then the container's own, the last of each name.
func Env(p model.ProcessSpec, hostname, home string) []string {
	env := []string{"PATH=" + DefaultPath}
	if hostname != "" {
		env = append(env, "HOSTNAME="+hostname)
	}
	if p.Tty {
		env = append(env, "TERM=xterm")
	}
	env = MergeEnv(env, p.Env)
	if home != "" && !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		env = append(env, "HOME="+home)
	}
	return env
}

// MergeEnv replaces variables of base by those of override and appends the new ones; an override without "=" removes.
func MergeEnv(base, override []string) []string {
	at := make(map[string]int, len(base)+len(override))
	out := make([]string, 0, len(base)+len(override))
	for _, e := range base {
		name, _, _ := strings.Cut(e, "=")
		at[name] = len(out)
		out = append(out, e)
	}
	removed := false
	for _, e := range override {
		name, _, set := strings.Cut(e, "=")
		i, there := at[name]
		switch {
		case !set && there:
			out[i], removed = "", true
			delete(at, name)
		case !set:
		case there:
			out[i] = e
		default:
			at[name] = len(out)
			out = append(out, e)
		}
	}
	if removed {
		out = slices.DeleteFunc(out, func(e string) bool { return e == "" })
	}
	return out
}

func rlimits(own, defaults []model.Ulimit) []specs.POSIXRlimit {
	var out []specs.POSIXRlimit
	add := func(u model.Ulimit) {
		r := specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)}
		out = append(out, r) // -1 becomes RLIM_INFINITY
	}
	for _, u := range own {
		add(u)
	}
	for _, u := range defaults {
		if !slices.ContainsFunc(own, func(o model.Ulimit) bool { return o.Name == u.Name }) {
			add(u)
		}
	}
	return out
}

// namespaces lists the container's own namespaces and those it joins. A mode of "host" leaves one out.
func namespaces(in Input) []specs.LinuxNamespace {
	iso := in.Container.Spec.Isolation
	out := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	add := func(t specs.LinuxNamespaceType, mode string) {
		if p, joined := in.Joins[t]; joined {
			out = append(out, specs.LinuxNamespace{Type: t, Path: p})
		} else if mode != "host" {
			out = append(out, specs.LinuxNamespace{Type: t})
		}
	}
	if in.IDMaps != nil {
		out = append(out, specs.LinuxNamespace{Type: specs.UserNamespace})
	}
	net := in.Container.Spec.Network.Mode
	add(specs.NetworkNamespace, net)
	add(specs.UTSNamespace, iso.UTS)
	add(specs.PIDNamespace, iso.PID)
	add(specs.IPCNamespace, iso.IPC)
	if in.Host.CgroupDev {
		mode := iso.Cgroup
		if mode == "" && (!in.Host.CgroupV2) {
			mode = "host" // as Docker does where version 1 is in use
		}
		add(specs.CgroupNamespace, mode)
	}
	return out
}

func mappings(list []model.IDMap) (out []specs.LinuxIDMapping) {
	for _, m := range list {
		out = append(out, specs.LinuxIDMapping{ContainerID: m.Container, HostID: m.Host, Size: m.Size})
	}
	return out
}

func cgroupsPath(in Input) string {
	parent := in.Container.Spec.Resources.CgroupParent
	if parent == "" {
		parent = in.Limits.CgroupParent
	}
	if parent == "" {
		parent = "/shoal"
	}
	return path.Join("/", parent, in.Container.ID)
}

// sysctls are the container's, and those by which its user need not be root to bind low ports and to ping, where the
// network namespace is its own.
func sysctls(in Input) map[string]string {
	out := maps.Clone(in.Container.Spec.Isolation.Sysctls)
	mode := in.Container.Spec.Network.Mode
	if mode == "host" || strings.HasPrefix(mode, "container:") {
		return out
	}
	if out == nil {
		out = map[string]string{}
	}
	for name, value := range map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "0",
		"net.ipv4.ping_group_range":           "0 2147483647",
	} {
		if name == "net.ipv4.ping_group_range" && in.IDMaps != nil {
			continue // the range has groups that the namespace has not
		}
		if _, set := out[name]; !set {
			out[name] = value
		}
	}
	return out
}

func rootfsPropagation(mounts []specs.Mount) string {
	result := ""
	for _, m := range mounts {
		for _, o := range m.Options {
			switch o {
			case "shared", "rshared":
				return "shared"
			case "slave", "rslave":
				result = "rslave"
			}
		}
	}
	return result
}

func seccomp(s *specs.Spec, in Input, sec Security) error {
	profile := sec.Seccomp
	if profile == "unconfined" || (profile == "" && in.Container.Spec.Security.Privileged) {
		return nil
	}
	if !in.Host.Seccomp {
		if profile == "" || profile == "builtin" {
			return nil
		}
		return errs.New(errs.Unsupported, "security option seccomp: this kernel has no seccomp filters; leave the option out or set seccomp=unconfined")
	}
	var err error
	if profile == "" || profile == "builtin" {
		s.Linux.Seccomp, err = in.Seccomp.Default(s)
	} else {
		s.Linux.Seccomp, err = in.Seccomp.Load(profile, s)
	}
	return errs.As(errs.Invalid, errs.Wrap(err, "security option seccomp"))
}

// Process makes the configuration of one more process in a container, whose record says what it runs.
func Process(in Input) (*specs.Process, error) {
	c := in.Container
	sec, err := ParseSecurity(c.Spec.Security.Options)
	if err != nil {
		return nil, err
	}
	caps, err := Capabilities(c.Spec.Security, in.Host)
	if err != nil {
		return nil, err
	}
	return process(in, sec, caps), nil
}
