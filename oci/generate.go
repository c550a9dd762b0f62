package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/privilege"
	"github.com/shoalhq/shoal/runtime/seccomp/profile"
	"github.com/shoalhq/shoal/runtime/spec"
)

// An option sets a part of the configuration. Options are applied in the order in which they are listed here.
type option struct {
	name, kind, help string // kind is what help shows as the value; "" is a switch; a list when repeat
	repeat           bool
	set              func(s *specs.Spec, v string) error
}

func options() []option {
	return slices.Concat(processOptions(), rightsOptions(), hostOptions(), resourceOptions())
}

func specGenerate(fs *pflag.FlagSet) func(context.Context, []string, io.Writer) (int, error) {
	output := fs.StringP("output", "o", "-", "File to write, - for standard output")
	template := fs.String("template", "", "Begin with this config.json instead of the default")
	rootless := fs.Bool("rootless", false, "Make it one that an ordinary user can run")
	lists := map[string]*[]string{}
	for _, o := range options() {
		usage := o.help
		if o.kind != "" {
			usage = strings.Replace(o.help, o.kind, "`"+o.kind+"`", 1)
		}
		switch {
		case o.kind == "":
			fs.Bool(o.name, false, usage)
		case o.repeat:
			lists[o.name] = fs.StringArray(o.name, nil, usage)
		default:
			fs.String(o.name, "", usage)
		}
	}
	return func(_ context.Context, args []string, out io.Writer) (int, error) {
		s := spec.Example()
		s.Process.Terminal = false
		if *template != "" {
			data, err := os.ReadFile(*template)
			if err != nil {
				return exitUsage, err
			}
			if s, err = spec.Parse(data); err != nil {
				return exitUsage, errs.Wrap(err, "%s", *template)
			}
			fill(s)
		}
		if *rootless {
			spec.ToRootless(s, os.Getuid(), os.Getgid())
		}
		if len(args) > 0 {
			s.Process.Args = args
		}
		for _, o := range options() {
			if err := apply(s, o, fs, lists[o.name]); err != nil {
				return exitUsage, errs.Wrap(errs.As(errs.Invalid, err), "--%s", o.name)
			}
		}
		if h := s.Hooks; h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer)+len(h.StartContainer)+len(h.Poststart)+len(h.Poststop) == 0 { //nolint:staticcheck // still allowed
			s.Hooks = nil
		}
		if all := spec.Problems(s); len(all) > 0 {
			return exitUnsound, errs.Wrap(all[0], "the configuration would not be valid")
		}
		if *output == "-" {
			return exitSound, writeJSON(out, s)
		}
		data, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			return exitUsage, err
		}
		return exitSound, atomicfile.Write(*output, append(data, '\n'), 0o644, atomicfile.Volatile)
	}
}

// fill adds the parts that options write to.
func fill(s *specs.Spec) {
	if s.Process == nil {
		s.Process = &specs.Process{Cwd: "/"}
	}
	if s.Process.Capabilities == nil {
		s.Process.Capabilities = &specs.LinuxCapabilities{}
	}
	if s.Root == nil {
		s.Root = &specs.Root{}
	}
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	if s.Hooks == nil {
		s.Hooks = &specs.Hooks{}
	}
}

func apply(s *specs.Spec, o option, fs *pflag.FlagSet, list *[]string) error {
	f := fs.Lookup(o.name)
	if !f.Changed {
		return nil
	}
	fill(s)
	values := []string{f.Value.String()}
	if list != nil {
		values = *list
	}
	for _, v := range values {
		if err := o.set(s, v); err != nil {
			return err
		}
	}
	return nil
}

func whole[T int64 | uint64 | uint32 | int | uint16](v string, to *T) error {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || int64(T(n)) != n {
		return fmt.Errorf("%q is not a number that fits", v)
	}
	*to = T(n)
	return nil
}

func bytesOf(v string) (int64, error) {
	if v == "-1" {
		return -1, nil
	}
	n, err := units.RAMInBytes(v)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no size: want for example 512m or 2g", v)
	}
	return n, nil
}

func processOptions() []option {
	return []option{
		{"env", "NAME=VALUE", "Set a variable: NAME=VALUE", true, func(s *specs.Spec, v string) error {
			name, _, ok := strings.Cut(v, "=")
			if !ok || name == "" {
				return fmt.Errorf("%q is not NAME=VALUE", v)
			}
			s.Process.Env = append(slices.DeleteFunc(s.Process.Env, func(e string) bool { return strings.HasPrefix(e, name+"=") }), v)
			return nil
		}},
		{"cwd", "DIR", "Directory DIR to start in", false, func(s *specs.Spec, v string) error { s.Process.Cwd = v; return nil }},
		{"user", "UID[:GID]", "Run as UID[:GID]", false, func(s *specs.Spec, v string) error {
			uid, gid, both := strings.Cut(v, ":")
			if err := whole(uid, &s.Process.User.UID); err != nil || !both {
				return err
			}
			return whole(gid, &s.Process.User.GID)
		}},
		{"group", "GID", "Give the supplementary group GID", true, func(s *specs.Spec, v string) error {
			var g uint32
			err := whole(v, &g)
			s.Process.User.AdditionalGids = append(s.Process.User.AdditionalGids, g)
			return err
		}},
		{"umask", "MODE", "File mode creation mask MODE, in octal", false, func(s *specs.Spec, v string) error {
			n, err := strconv.ParseUint(v, 8, 12)
			m := uint32(n)
			s.Process.User.Umask = &m
			return err
		}},
		{"terminal", "", "Give it a terminal", false, func(s *specs.Spec, v string) error { s.Process.Terminal = v == "true"; return nil }},
		{"rlimit", "NAME=SOFT[:HARD]", "Limit, for example nofile=1024:4096, as NAME=SOFT[:HARD]", true, rlimit},
		{"oom-score-adj", "N", "Preference N of the out-of-memory killer, -1000 to 1000", false, func(s *specs.Spec, v string) error {
			s.Process.OOMScoreAdj = new(int)
			return whole(v, s.Process.OOMScoreAdj)
		}},
	}
}

func rlimit(s *specs.Spec, v string) error {
	name, values, ok := strings.Cut(v, "=")
	soft, hard, both := strings.Cut(values, ":")
	if !both {
		hard = soft
	}
	l := specs.POSIXRlimit{Type: "RLIMIT_" + strings.TrimPrefix(strings.ToUpper(name), "RLIMIT_")}
	for text, to := range map[*string]*uint64{&soft: &l.Soft, &hard: &l.Hard} {
		if *text == "unlimited" {
			*to = unix.RLIM_INFINITY
		} else if err := whole(*text, to); err != nil || !ok {
			return fmt.Errorf("%q is not NAME=SOFT[:HARD]", v)
		}
	}
	s.Process.Rlimits = append(slices.DeleteFunc(s.Process.Rlimits, func(o specs.POSIXRlimit) bool { return o.Type == l.Type }), l)
	return nil
}

// capability adds or takes away one capability, or all.
func capability(s *specs.Spec, v string, add bool) error {
	name := strings.ToUpper(v)
	if name != "ALL" && !strings.HasPrefix(name, "CAP_") {
		name = "CAP_" + name
	}
	all := privilege.CapNames()
	names := []string{name}
	if name == "ALL" {
		names = all
	} else if !slices.Contains(all, name) {
		return fmt.Errorf("%q is no capability; want for example NET_ADMIN or ALL", v)
	}
	c := s.Process.Capabilities
	for _, set := range []*[]string{&c.Bounding, &c.Permitted, &c.Effective} {
		*set = slices.DeleteFunc(slices.Clone(*set), func(have string) bool { return slices.Contains(names, have) })
		if add {
			*set = append(*set, names...)
		}
	}
	return nil
}

func rightsOptions() []option {
	return []option{
		{"cap-drop", "CAP", "Take away the capability CAP, or ALL", true, func(s *specs.Spec, v string) error { return capability(s, v, false) }},
		{"cap-add", "CAP", "Add the capability CAP, or ALL", true, func(s *specs.Spec, v string) error { return capability(s, v, true) }},
		{"no-new-privileges", "", "Programs cannot gain rights (=false: they can)", false, func(s *specs.Spec, v string) error {
			s.Process.NoNewPrivileges = v == "true"
			return nil
		}},
		{"seccomp", "PROFILE", "System calls: PROFILE is default, unconfined or a file in Docker's or the OCI's form", false, func(s *specs.Spec, v string) (err error) {
			bounding := s.Process.Capabilities.Bounding
			switch v {
			case "unconfined":
				s.Linux.Seccomp = nil
				return nil
			case "default":
				s.Linux.Seccomp, err = profile.For(bounding)
				return err
			}
			data, err := os.ReadFile(v)
			if err == nil {
				s.Linux.Seccomp, err = profile.Parse(string(data), bounding)
			}
			return err
		}},
		{"apparmor", "PROFILE", "AppArmor PROFILE", false, func(s *specs.Spec, v string) error { s.Process.ApparmorProfile = v; return nil }},
		{"selinux-label", "LABEL", "SELinux LABEL of the process", false, func(s *specs.Spec, v string) error { s.Process.SelinuxLabel = v; return nil }},
		{"mask", "PATH", "Hide PATH", true, func(s *specs.Spec, v string) error { s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, v); return nil }},
		{"read-only-path", "PATH", "Make PATH read-only", true, func(s *specs.Spec, v string) error {
			s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, v)
			return nil
		}},
		{"privileged", "", "All capabilities, no seccomp, nothing hidden or read-only, all devices", false, func(s *specs.Spec, v string) error {
			if v != "true" {
				return nil
			}
			s.Linux.Seccomp, s.Linux.MaskedPaths, s.Linux.ReadonlyPaths, s.Process.NoNewPrivileges = nil, nil, nil, false
			if s.Linux.Resources != nil {
				s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
			}
			return capability(s, "ALL", true)
		}},
	}
}

func hostOptions() []option {
	return []option{
		{"rootfs", "DIR", "Root filesystem, relative to the bundle: DIR", false, func(s *specs.Spec, v string) error { s.Root.Path = v; return nil }},
		{"read-only", "", "Read-only root filesystem (=false: writable)", false, func(s *specs.Spec, v string) error { s.Root.Readonly = v == "true"; return nil }},
		{"hostname", "NAME", "Host NAME", false, func(s *specs.Spec, v string) error { s.Hostname = v; return nil }},
		{"domainname", "NAME", "Domain NAME", false, func(s *specs.Spec, v string) error { s.Domainname = v; return nil }},
		{"mount", "TYPE:SOURCE:DEST[:OPTIONS]", "Mount TYPE:SOURCE:DEST[:OPTIONS], options with commas", true, mountOption},
		{"unmount", "DEST", "Take the mount at DEST out", true, func(s *specs.Spec, v string) error {
			n := len(s.Mounts)
			s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return path.Clean(m.Destination) == path.Clean(v) })
			if len(s.Mounts) == n {
				return fmt.Errorf("nothing is mounted at %q", v)
			}
			return nil
		}},
		{"share", "NAMESPACE", "Share the host's NAMESPACE: cgroup, ipc, network, pid, time, user, uts", true, func(s *specs.Spec, v string) error {
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return string(n.Type) == v })
			return nil
		}},
		{"namespace", "NAMESPACE[=PATH]", "A new namespace, or that at a path: NAMESPACE[=PATH]", true, func(s *specs.Spec, v string) error {
			kind, at, _ := strings.Cut(v, "=")
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return string(n.Type) == kind })
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.LinuxNamespaceType(kind), Path: at})
			return nil
		}},
		{"uid-map", "CONTAINER:HOST:SIZE", "Map users: CONTAINER:HOST:SIZE", true, func(s *specs.Spec, v string) error { return idMap(&s.Linux.UIDMappings, v) }},
		{"gid-map", "CONTAINER:HOST:SIZE", "Map groups: CONTAINER:HOST:SIZE", true, func(s *specs.Spec, v string) error { return idMap(&s.Linux.GIDMappings, v) }},
		{"sysctl", "NAME=VALUE", "Kernel parameter NAME=VALUE", true, func(s *specs.Spec, v string) error { return pair(&s.Linux.Sysctl, v) }},
		{"annotation", "NAME=VALUE", "Annotation NAME=VALUE", true, func(s *specs.Spec, v string) error { return pair(&s.Annotations, v) }},
		{"hook", "POINT=PROGRAM [ARG...]", "Run a program at a point, for example poststop=/usr/bin/logger gone: POINT=PROGRAM [ARG...]", true, hookOption},
	}
}

func pair(to *map[string]string, v string) error {
	name, value, ok := strings.Cut(v, "=")
	if !ok || name == "" {
		return fmt.Errorf("%q is not NAME=VALUE", v)
	}
	if *to == nil {
		*to = map[string]string{}
	}
	(*to)[name] = value
	return nil
}

func idMap(to *[]specs.LinuxIDMapping, v string) error {
	parts := strings.Split(v, ":")
	var m specs.LinuxIDMapping
	if len(parts) != 3 || whole(parts[0], &m.ContainerID) != nil || whole(parts[1], &m.HostID) != nil || whole(parts[2], &m.Size) != nil {
		return fmt.Errorf("%q is not CONTAINER:HOST:SIZE", v)
	}
	*to = append(*to, m)
	return nil
}

func mountOption(s *specs.Spec, v string) error {
	parts := strings.SplitN(v, ":", 4)
	if len(parts) < 3 {
		return fmt.Errorf("%q is not TYPE:SOURCE:DEST[:OPTIONS]", v)
	}
	m := specs.Mount{Type: parts[0], Source: parts[1], Destination: parts[2]}
	if len(parts) == 4 {
		m.Options = strings.Split(parts[3], ",")
	}
	if m.Type == "bind" && !slices.Contains(m.Options, "bind") && !slices.Contains(m.Options, "rbind") {
		m.Options = append(m.Options, "rbind")
	}
	s.Mounts = append(slices.DeleteFunc(s.Mounts, func(o specs.Mount) bool { return path.Clean(o.Destination) == path.Clean(m.Destination) }), m)
	return nil
}

func hookOption(s *specs.Spec, v string) error {
	point, line, ok := strings.Cut(v, "=")
	words := strings.Fields(line)
	to := map[string]*[]specs.Hook{"prestart": &s.Hooks.Prestart, "createRuntime": &s.Hooks.CreateRuntime, "createContainer": &s.Hooks.CreateContainer, //nolint:staticcheck // still allowed
		"startContainer": &s.Hooks.StartContainer, "poststart": &s.Hooks.Poststart, "poststop": &s.Hooks.Poststop}[point]
	if !ok || len(words) == 0 || to == nil {
		return fmt.Errorf("%q is not POINT=PROGRAM [ARG...] with prestart, createRuntime, createContainer, startContainer, poststart or poststop", v)
	}
	*to = append(*to, specs.Hook{Path: words[0], Args: words})
	return nil
}

// limits gives the resources to write to.
func limits(s *specs.Spec) *specs.LinuxResources {
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	r := s.Linux.Resources
	if r.Memory == nil {
		r.Memory = &specs.LinuxMemory{}
	}
	if r.CPU == nil {
		r.CPU = &specs.LinuxCPU{}
	}
	return r
}

func resourceOptions() []option {
	memory := func(at func(*specs.LinuxMemory) **int64) func(*specs.Spec, string) error {
		return func(s *specs.Spec, v string) error {
			n, err := bytesOf(v)
			*at(limits(s).Memory) = &n
			return err
		}
	}
	return []option{
		{"memory", "SIZE", "Memory limit SIZE", false, memory(func(m *specs.LinuxMemory) **int64 { return &m.Limit })},
		{"memory-swap", "SIZE", "Limit of memory and swap together: SIZE", false, memory(func(m *specs.LinuxMemory) **int64 { return &m.Swap })},
		{"memory-reservation", "SIZE", "Soft limit SIZE", false, memory(func(m *specs.LinuxMemory) **int64 { return &m.Reservation })},
		{"cpus", "N", "Processors: N, for example 1.5", false, func(s *specs.Spec, v string) error {
			n, err := strconv.ParseFloat(v, 64)
			if err != nil || n <= 0 || n > 8192 {
				return fmt.Errorf("%q is no number of processors", v)
			}
			period, quota := uint64(100000), int64(n*100000)
			limits(s).CPU.Period, limits(s).CPU.Quota = &period, &quota
			return nil
		}},
		{"cpu-shares", "N", "Weight N against others", false, func(s *specs.Spec, v string) error {
			limits(s).CPU.Shares = new(uint64)
			return whole(v, limits(s).CPU.Shares)
		}},
		{"cpuset-cpus", "LIST", "Processors to run on: LIST, for example 0-2,7", false, func(s *specs.Spec, v string) error { limits(s).CPU.Cpus = v; return nil }},
		{"pids-limit", "N", "At most N processes", false, func(s *specs.Spec, v string) error {
			var n int64
			err := whole(v, &n)
			limits(s).Pids = &specs.LinuxPids{Limit: &n}
			return err
		}},
		{"cgroups-path", "PATH", "Control group PATH", false, func(s *specs.Spec, v string) error { s.Linux.CgroupsPath = v; return nil }},
	}
}
