package ocispec

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// MountInput is what Mounts needs.
type MountInput struct {
	Container *model.Container
	Host      Host
	Volumes   map[string]model.VolumeMount // by destination: how the volume is mounted
	Shm       Shm
	Files     bool                // bind the container's own hosts, hostname and resolv.conf
	Images    map[string][]string // by destination: layers that an image mount shows, top first
	Mapped    bool                // the container's ids are not the host's
}

// Shm says what /dev/shm is: a tmpfs of its own of Size bytes, or with Source a directory that is shared.
type Shm struct {
	Size   int64
	Source string
}

// Mounts is the list of mounts, parents before children: the defaults that nothing of the user's replaces, the
// engine's files, the user's.
func Mounts(in MountInput) ([]specs.Mount, error) {
	c := in.Container
	taken := map[string]bool{}
	var user []specs.Mount
	for _, mp := range c.Mounts {
		m, err := userMount(mp, in)
		if err != nil {
			return nil, err
		}
		taken[mp.Destination] = true
		user = append(user, m)
	}
	for dest, opts := range c.Spec.Storage.Tmpfs {
		m, err := TmpfsMount(dest, opts)
		if err != nil {
			return nil, err
		}
		taken[m.Destination] = true
		user = append(user, m)
	}
	if in.Files {
		opts := []string{"rbind", "rprivate"}
		if c.Spec.Storage.ReadonlyRootfs {
			opts = append(opts, "ro") // as with dockerd: nothing of a read-only container may be written but its volumes
		}
		for dest, src := range map[string]string{"/etc/resolv.conf": c.Runtime.ResolvConfPath, "/etc/hostname": c.Runtime.HostnamePath, "/etc/hosts": c.Runtime.HostsPath} {
			if src != "" && !taken[dest] {
				user = append(user, specs.Mount{Destination: dest, Type: "bind", Source: src, Options: opts})
			}
		}
	}
	slices.SortStableFunc(user, func(a, b specs.Mount) int {
		return cmp.Or(cmp.Compare(depth(a.Destination), depth(b.Destination)), cmp.Compare(a.Destination, b.Destination))
	})
	out := make([]specs.Mount, 0, 8+len(user))
	for _, m := range defaultMounts(in) {
		if !taken[m.Destination] && !(taken["/dev"] && strings.HasPrefix(m.Destination, "/dev/")) {
			out = append(out, m)
		}
	}
	return append(out, user...), nil
}

func depth(p string) int { return strings.Count(strings.TrimSuffix(path.Clean(p), "/"), "/") }

func defaultMounts(in MountInput) []specs.Mount {
	c := in.Container
	sec, _ := ParseSecurity(c.Spec.Security.Options)
	access, cgroupAccess := "ro", "ro"
	if c.Spec.Security.Privileged && !c.Spec.Storage.ReadonlyRootfs {
		access, cgroupAccess = "rw", "rw"
	}
	if sec.WritableCgroups != nil && *sec.WritableCgroups {
		cgroupAccess = "rw"
	}
	out := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", access}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{cgroupAccess, "nosuid", "noexec", "nodev"}},
	}
	if c.Spec.Isolation.PID == "host" { // a new proc instance would need a pid namespace of its own to be of use
		out[0].Options = []string{"nosuid", "noexec", "nodev"}
	}
	// Queues belong to the IPC namespace, whichever it is: in the host's this shows the host's, also where it is not mounted.
	out = append(out, specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}})
	switch {
	case in.Shm.Source != "":
		out = append(out, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: in.Shm.Source, Options: []string{"rbind", "rprivate", "nosuid", "noexec", "nodev"}})
	case c.Spec.Isolation.IPC != "none":
		out = append(out, specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(in.Shm.Size, 10)}})
	}
	return out
}

// userMount is one mount that the user asked for.
func userMount(mp model.MountPoint, in MountInput) (specs.Mount, error) {
	switch mp.Type {
	case "tmpfs":
		return StructuredTmpfs(mp)
	case "image":
		m, err := imageMount(mp.Destination, in.Images[mp.Destination])
		return withSubpath(m, mp), err
	case "volume":
		vm, ok := in.Volumes[mp.Destination]
		if !ok {
			return specs.Mount{}, errs.New(errs.Internal, "volume %q on %s is not mounted", mp.Name, mp.Destination)
		}
		if vm.Type != "bind" {
			opts := append(slices.Clone(vm.Options), access(mp.RW))
			return withSubpath(specs.Mount{Destination: mp.Destination, Type: vm.Type, Source: vm.Source, Options: opts}, mp), nil
		}
		opts := bindOptions(mp, in.Host)
		for _, o := range vm.Options { // what the volume itself says, such as nosuid, holds for every container
			if o != "bind" && o != "rbind" && o != "rw" {
				opts = append(opts, o)
			}
		}
		if in.Mapped { // what is in a volume belongs to the container's users, whatever ids they have on the host
			opts = append(opts, "idmap")
		}
		return withIDMap(withSubpath(specs.Mount{Destination: mp.Destination, Type: "bind", Source: vm.Source, Options: opts}, mp), mp, in)
	}
	return withIDMap(specs.Mount{Destination: mp.Destination, Type: "bind", Source: mp.Source, Options: bindOptions(mp, in.Host)}, mp, in)
}

// withSubpath narrows a mount to the part that was asked for; the runtime resolves it.
func withSubpath(m specs.Mount, mp model.MountPoint) specs.Mount {
	if sub := mp.Subpath(); sub != "" {
		m.Options = append(m.Options, model.MountSubpathOption+sub)
	}
	return m
}

// imageMount shows an image's layers read-only: an overlay without an upper directory, which needs two layers at least.
func imageMount(dest string, layers []string) (specs.Mount, error) {
	switch len(layers) {
	case 0:
		return specs.Mount{}, errs.New(errs.Invalid, "image mount on %s: the image has no layers", dest)
	case 1:
		return specs.Mount{Destination: dest, Type: "bind", Source: layers[0], Options: []string{"rbind", "ro", "rprivate"}}, nil
	}
	return specs.Mount{Destination: dest, Type: "overlay", Source: "overlay",
		Options: []string{"ro", "nodev", "lowerdir=" + strings.Join(layers, ":")}}, nil
}

func access(rw bool) string {
	if rw {
		return "rw"
	}
	return "ro"
}

func bindOptions(mp model.MountPoint, h Host) []string {
	bind, ro := "rbind", access(mp.RW)
	if mp.Spec != nil && mp.Spec.Bind != nil {
		b := mp.Spec.Bind
		if b.NonRecursive {
			bind = "bind"
		}
		if !mp.RW && h.RRO && !b.ReadOnlyNonRecursive && !b.NonRecursive {
			ro = "rro"
		}
	} else if !mp.RW && h.RRO && mp.Type == "bind" {
		ro = "rro"
	}
	opts := []string{bind, ro}
	if ro == "rro" {
		opts = []string{bind, "ro", "rro"}
	}
	prop := mp.Propagation
	if prop == "" {
		prop = "rprivate"
	}
	return append(opts, prop)
}

// StructuredTmpfs is a --mount type=tmpfs.
func StructuredTmpfs(mp model.MountPoint) (specs.Mount, error) {
	opts := []string{"noexec", "nosuid", "nodev", "rprivate"}
	if mp.Spec != nil {
		if mp.Spec.ReadOnly {
			opts = append(opts, "ro")
		}
		if t := mp.Spec.Tmpfs; t != nil {
			if t.Mode != 0 {
				opts = append(opts, "mode="+strconv.FormatUint(uint64(t.Mode), 8))
			}
			if t.SizeBytes != 0 {
				opts = append(opts, "size="+strconv.FormatInt(t.SizeBytes, 10))
			}
			for _, o := range t.Options {
				opt := strings.Join(o, "=")
				if err := checkTmpfsOption(opt, mp.Destination); err != nil {
					return specs.Mount{}, err
				}
				opts = replaceOption(opts, opt)
			}
		}
	}
	return specs.Mount{Destination: mp.Destination, Type: "tmpfs", Source: "tmpfs", Options: opts}, nil
}

// tmpfsFlags and tmpfsData are the options that the kernel takes for a tmpfs.
var (
	tmpfsFlags = []string{"ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "sync", "async", "dirsync",
		"remount", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime",
		"private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable", "bind", "rbind",
		"mand", "nomand", "silent", "loud", "defaults"}
	tmpfsData = []string{"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"}
)

// TmpfsMount is a --tmpfs: nosuid, nodev and noexec unless the options say otherwise.
func TmpfsMount(dest, options string) (specs.Mount, error) {
	dest = path.Clean(dest)
	opts := []string{"noexec", "nosuid", "nodev", "rprivate"}
	for o := range strings.SplitSeq(options, ",") {
		if o == "" {
			continue
		}
		if err := checkTmpfsOption(o, dest); err != nil {
			return specs.Mount{}, err
		}
		opts = replaceOption(opts, o)
	}
	return specs.Mount{Destination: dest, Type: "tmpfs", Source: "tmpfs", Options: opts}, nil
}

func checkTmpfsOption(o, dest string) error {
	name, _, data := strings.Cut(o, "=")
	if data && slices.Contains(tmpfsData, name) || !data && slices.Contains(tmpfsFlags, name) {
		return nil
	}
	return errs.New(errs.Invalid, "invalid tmpfs option %q for %s: known are %s, and with a value %s", o, dest,
		strings.Join(tmpfsFlags[:16], " "), strings.Join(tmpfsData, " "))
}

// replaceOption adds an option and drops its opposite.
func replaceOption(opts []string, o string) []string {
	opposite := "no" + o
	if strings.HasPrefix(o, "no") {
		opposite = o[2:]
	}
	opts = slices.DeleteFunc(opts, func(e string) bool { return e == opposite || e == o })
	return append(opts, o)
}
