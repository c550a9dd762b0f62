package spec

import (
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
)

func bad(field, format string, args ...any) error {
	return errs.New(errs.Invalid, "config.json: %s: %s", field, fmt.Sprintf(format, args...))
}

// Validate checks what can be checked without the host. The process may be missing: it is needed at the start only.
func Validate(s *specs.Spec) error {
	for _, check := range checks {
		if err := check(s); err != nil {
			return err
		}
	}
	return nil
}

// Problems is Validate for people: the first problem of every part.
func Problems(s *specs.Spec) (all []error) {
	for _, check := range checks {
		if err := check(s); err != nil {
			all = append(all, err)
		}
		if s.Linux == nil && len(all) > 0 {
			return all // most of the rest is about it
		}
	}
	return all
}

var checks = []func(*specs.Spec) error{checkVersion, checkRoot, checkProcessOf, checkMounts, checkNamespaces,
	checkMappings, checkPaths, checkSysctls, checkDevices, checkNames, checkHooks, checkTime}

func checkVersion(s *specs.Spec) error {
	if s.Version == "" {
		return bad("ociVersion", "is missing; want %q", specs.Version)
	}
	if !strings.HasPrefix(s.Version, "1.") {
		return bad("ociVersion", "%q is not a version 1.x, which this runtime understands up to %s", s.Version, specs.Version)
	}
	if s.Linux == nil && (s.Windows != nil || s.Solaris != nil || s.VM != nil || s.ZOS != nil || s.FreeBSD != nil) {
		return bad("linux", "is missing; this runtime runs Linux containers only")
	}
	return nil
}

func checkRoot(s *specs.Spec) error {
	if s.Root == nil || s.Root.Path == "" {
		return bad("root.path", "is missing; it names the directory of the root file system")
	}
	if strings.ContainsRune(s.Root.Path, 0) {
		return bad("root.path", "%q contains a zero byte", s.Root.Path)
	}
	return nil
}

func checkProcessOf(s *specs.Spec) error {
	if s.Process == nil {
		return nil // needed by start only
	}
	return Process("process", s.Process)
}

// Process checks a process of a container; field is its name in messages.
func Process(field string, p *specs.Process) error {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return bad(field+".args", "names no program to run")
	}
	if p.Cwd == "" || !path.IsAbs(p.Cwd) {
		return bad(field+".cwd", "%q is not an absolute path", p.Cwd)
	}
	for _, list := range [][]string{p.Args, p.Env, {p.Cwd}} {
		for _, text := range list {
			if strings.ContainsRune(text, 0) {
				return bad(field, "%q contains a zero byte", text)
			}
		}
	}
	for _, label := range []string{p.ApparmorProfile, p.SelinuxLabel} {
		if strings.ContainsAny(label, "\n\x00") {
			return bad(field, "the security label %q contains a line break", label)
		}
	}
	if a := p.OOMScoreAdj; a != nil && (*a < -1000 || *a > 1000) {
		return bad(field+".oomScoreAdj", "%d is not within -1000 to 1000", *a)
	}
	seen := map[string]bool{}
	for _, l := range p.Rlimits {
		switch {
		case !strings.HasPrefix(l.Type, "RLIMIT_"):
			return bad(field+".rlimits", "type %q does not begin with RLIMIT_", l.Type)
		case seen[l.Type]:
			return bad(field+".rlimits", "%s is there twice", l.Type)
		case l.Soft > l.Hard:
			return bad(field+".rlimits", "%s: the soft limit %d is above the hard limit %d", l.Type, l.Soft, l.Hard)
		}
		seen[l.Type] = true
	}
	if p.ConsoleSize != nil && (p.ConsoleSize.Height > 0xffff || p.ConsoleSize.Width > 0xffff) {
		return bad(field+".consoleSize", "%dx%d is larger than a terminal can be", p.ConsoleSize.Width, p.ConsoleSize.Height)
	}
	if io := p.IOPriority; io != nil && (io.Priority < 0 || io.Priority > 7) {
		return bad(field+".ioPriority", "level %d is not within 0 to 7", io.Priority)
	}
	return nil
}

func checkMounts(s *specs.Spec) error {
	for i, m := range s.Mounts {
		field := fmt.Sprintf("mounts[%d]", i)
		if m.Destination == "" {
			return bad(field+".destination", "is missing")
		}
		if strings.ContainsRune(m.Destination+m.Source+m.Type, 0) {
			return bad(field, "contains a zero byte")
		}
		if path.Clean("/"+m.Destination) == "/" && m.Type != "bind" {
			return bad(field+".destination", "%q is the root itself, which root.path describes", m.Destination)
		}
		if (len(m.UIDMappings) == 0) != (len(m.GIDMappings) == 0) {
			return bad(field, "uidMappings and gidMappings belong together")
		}
	}
	return nil
}

func checkNamespaces(s *specs.Spec) error {
	if s.Linux == nil {
		return bad("linux", "is missing; a Linux container has namespaces, cgroups and mounts there")
	}
	seen := map[specs.LinuxNamespaceType]bool{}
	for _, n := range s.Linux.Namespaces {
		switch n.Type {
		case specs.PIDNamespace, specs.NetworkNamespace, specs.MountNamespace, specs.IPCNamespace, specs.UTSNamespace,
			specs.UserNamespace, specs.CgroupNamespace, specs.TimeNamespace:
		default:
			return bad("linux.namespaces", "type %q is none of pid, network, mount, ipc, uts, user, cgroup, time", n.Type)
		}
		if seen[n.Type] {
			return bad("linux.namespaces", "type %s is there twice", n.Type)
		}
		if n.Path != "" && !path.IsAbs(n.Path) {
			return bad("linux.namespaces", "path %q of type %s is not absolute", n.Path, n.Type)
		}
		seen[n.Type] = true
	}
	if !seen[specs.MountNamespace] {
		// The root is mounted on itself on the host, and goes with the container; everything else that would be there is refused.
		switch {
		case seen[specs.UserNamespace]:
			return bad("linux.namespaces", "a user namespace needs a mount namespace: its root may mount nothing in the host's")
		case s.Annotations[RootfsAnnotation] != "":
			return bad("linux.namespaces", "a mount namespace is missing; the overlay would be mounted on the host")
		case s.Linux.RootfsPropagation != "":
			return bad("linux.rootfsPropagation", "%q needs a mount namespace: it would hold for the host's mounts", s.Linux.RootfsPropagation)
		}
	}
	return nil
}

func checkMappings(s *specs.Spec) error {
	newUser := IsNew(s, specs.UserNamespace)
	have := len(s.Linux.UIDMappings) > 0 && len(s.Linux.GIDMappings) > 0
	if newUser && !have {
		return bad("linux.uidMappings", "a new user namespace needs uidMappings and gidMappings")
	}
	if Namespace(s, specs.UserNamespace) == nil && (len(s.Linux.UIDMappings) > 0 || len(s.Linux.GIDMappings) > 0) {
		return bad("linux.uidMappings", "id mappings are there, but no user namespace is")
	}
	for _, list := range [][]specs.LinuxIDMapping{s.Linux.UIDMappings, s.Linux.GIDMappings} {
		for _, m := range list {
			if m.Size == 0 {
				return bad("linux.uidMappings", "a mapping of container id %d has size 0", m.ContainerID)
			}
			if uint64(m.ContainerID)+uint64(m.Size) > 1<<32 || uint64(m.HostID)+uint64(m.Size) > 1<<32 {
				return bad("linux.uidMappings", "the mapping %d:%d:%d goes past the last id", m.ContainerID, m.HostID, m.Size)
			}
		}
	}
	return nil
}

func checkPaths(s *specs.Spec) error {
	for _, list := range [][]string{s.Linux.MaskedPaths, s.Linux.ReadonlyPaths} {
		for _, p := range list {
			if !path.IsAbs(p) || strings.ContainsRune(p, 0) {
				return bad("linux.maskedPaths, readonlyPaths", "%q is not an absolute path", p)
			}
		}
	}
	switch strings.TrimPrefix(s.Linux.RootfsPropagation, "r") {
	case "", "shared", "slave", "private", "unbindable":
	default:
		return bad("linux.rootfsPropagation", "%q is none of [r]shared, [r]slave, [r]private, [r]unbindable", s.Linux.RootfsPropagation)
	}
	return nil
}

// ipcSysctls belong to the ipc namespace; so does everything below fs.mqueue.
var ipcSysctls = map[string]bool{"kernel.msgmax": true, "kernel.msgmnb": true, "kernel.msgmni": true, "kernel.sem": true,
	"kernel.shmall": true, "kernel.shmmax": true, "kernel.shmmni": true, "kernel.shm_rmid_forced": true, "kernel.auto_msgmni": true,
	"kernel.msg_next_id": true, "kernel.sem_next_id": true, "kernel.shm_next_id": true}

// SysctlPath is the file below /proc/sys of a setting in either notation of sysctl(8): what separates first, '.' or '/',
// separates; the other is part of a name.
func SysctlPath(key string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '/' {
		return key
	}
	return strings.NewReplacer(".", "/", "/", ".").Replace(key)
}

// checkSysctls lets only those pass that end at the container's namespaces.
func checkSysctls(s *specs.Spec) error {
	own := func(t specs.LinuxNamespaceType) bool { return Namespace(s, t) != nil }
	for key, value := range s.Linux.Sysctl {
		file := SysctlPath(key)
		for part := range strings.SplitSeq(file, "/") {
			if part == "" || part == "." || part == ".." || strings.ContainsAny(key, "\x00\n") {
				return bad("linux.sysctl", "%q is not the name of a kernel setting", key)
			}
		}
		name := strings.ReplaceAll(file, "/", ".")
		if strings.ContainsAny(value, "\x00") {
			return bad("linux.sysctl", "the value of %s contains a zero byte", key)
		}
		var need specs.LinuxNamespaceType
		switch {
		case ipcSysctls[name], strings.HasPrefix(name, "fs.mqueue."):
			need = specs.IPCNamespace
		case strings.HasPrefix(name, "net."):
			need = specs.NetworkNamespace
		case strings.HasPrefix(name, "user."):
			need = specs.UserNamespace
		case name == "kernel.domainname", name == "kernel.hostname":
			need = specs.UTSNamespace
			if name == "kernel.hostname" {
				return bad("linux.sysctl", "%s: use the field hostname", key)
			}
		default:
			return bad("linux.sysctl", "%s is not in a namespace: it would change the host", key)
		}
		if !own(need) {
			return bad("linux.sysctl", "%s needs a %s namespace of the container's own: it would change the host", key, need)
		}
	}
	return nil
}

func checkDevices(s *specs.Spec) error {
	for i, d := range s.Linux.Devices {
		field := fmt.Sprintf("linux.devices[%d]", i)
		if !path.IsAbs(d.Path) || path.Clean(d.Path) == "/" {
			return bad(field+".path", "%q is not an absolute path of a device", d.Path)
		}
		switch d.Type {
		case "b", "c", "u", "p":
		default:
			return bad(field+".type", "%q is none of b, c, u, p", d.Type)
		}
	}
	for name := range s.Linux.NetDevices {
		if name == "" || len(name) > 15 || strings.ContainsAny(name, "/ \t\n:\x00") {
			return bad("linux.netDevices", "%q cannot be a network interface", name)
		}
	}
	if len(s.Linux.NetDevices) > 0 && Namespace(s, specs.NetworkNamespace) == nil {
		return bad("linux.netDevices", "there is no network namespace to move them to")
	}
	return nil
}

func checkNames(s *specs.Spec) error {
	if (s.Hostname != "" || s.Domainname != "") && Namespace(s, specs.UTSNamespace) == nil {
		return bad("hostname", "%q needs a uts namespace: it would change the host's name", s.Hostname+s.Domainname)
	}
	if len(s.Hostname) > 64 || len(s.Domainname) > 64 {
		return bad("hostname", "%q is longer than 64 bytes", s.Hostname+s.Domainname)
	}
	if strings.ContainsAny(s.Hostname+s.Domainname, "\x00\n") {
		return bad("hostname", "%q contains a line break", s.Hostname+s.Domainname)
	}
	return nil
}

func checkHooks(s *specs.Spec) error {
	if s.Hooks == nil {
		return nil
	}
	h := s.Hooks
	//lint:ignore SA1019 engines still write prestart hooks
	for _, list := range [][]specs.Hook{h.Prestart, h.CreateRuntime, h.CreateContainer, h.StartContainer, h.Poststart, h.Poststop} {
		for _, hook := range list {
			if !path.IsAbs(hook.Path) {
				return bad("hooks", "path %q is not absolute", hook.Path)
			}
			if hook.Timeout != nil && *hook.Timeout <= 0 {
				return bad("hooks", "%s: timeout %d is not above 0", hook.Path, *hook.Timeout)
			}
		}
	}
	return nil
}

func checkTime(s *specs.Spec) error {
	for clock, o := range s.Linux.TimeOffsets {
		if clock != "monotonic" && clock != "boottime" {
			return bad("linux.timeOffsets", "%q is neither monotonic nor boottime", clock)
		}
		if o.Nanosecs >= 1e9 {
			return bad("linux.timeOffsets", "%s: %d nanoseconds are more than a second", clock, o.Nanosecs)
		}
	}
	if len(s.Linux.TimeOffsets) > 0 && !IsNew(s, specs.TimeNamespace) {
		return bad("linux.timeOffsets", "a new time namespace is missing")
	}
	if l := s.Linux; l.IntelRdt != nil {
		return errs.New(errs.Unsupported, "config.json: linux.intelRdt: this runtime does not manage resctrl groups")
	}
	return nil
}
