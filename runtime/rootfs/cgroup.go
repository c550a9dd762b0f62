package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/cgroup"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchy is one line of /proc/self/cgroup: controllers is "cpu,cpuacct", "name=systemd", or "" for version 2.
type hierarchy struct{ controllers, dir string }

func ownCgroups() ([]hierarchy, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	return parseCgroups(string(data)), nil
}

func parseCgroups(text string) []hierarchy {
	var list []hierarchy
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 {
			list = append(list, hierarchy{parts[1], parts[2]})
		}
	}
	slices.Reverse(list) // lowest number first
	return list
}

// mountCgroup shows the container its own cgroup: the version 2 tree, or on version 1 a directory of hierarchies.
func (b *Builder) mountCgroup(m *Mount, o mountOptions) error {
	dest, err := makeDir(b.root, m.Destination, 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(dest)
	if err := checkNotProc(dest, m.Destination); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &fs); err != nil {
		return errs.New(errs.Unsupported, "the host has no cgroups at %s: %w", cgroupRoot, err)
	}
	own, err := ownCgroups()
	if err != nil {
		return err
	}
	if int64(fs.Type) == unix.CGROUP2_SUPER_MAGIC {
		return b.mountUnified(own, o, dest)
	}
	return b.mountV1(m, own, o, dest)
}

func (b *Builder) mountUnified(own []hierarchy, o mountOptions, dest int) error {
	var tree int
	err := error(unix.EPERM)
	if b.cfg.Options.CgroupNamespace {
		tree, err = newFS("cgroup2", "cgroup", nil, o.set)
	}
	if err != nil {
		// The host's own cgroup namespace: show the container's part only. In a cgroup namespace the own path is "/"
		// and this is the same as the whole.
		dir := cgroupRoot
		if !b.cfg.Options.CgroupNamespace {
			dir = path.Join(cgroupRoot, path.Clean("/"+own[0].dir))
		}
		if tree, err = cloneGroup(dir, own[0].controllers); err != nil {
			return err
		}
		if err := setAttr(tree, o.set, 0, true); err != nil {
			unix.Close(tree)
			return err
		}
	}
	return b.attach(tree, dest, o)
}

func (b *Builder) mountV1(m *Mount, own []hierarchy, o mountOptions, dest int) error {
	attrs := o.set &^ unix.MOUNT_ATTR_RDONLY
	top, err := newFS("tmpfs", "tmpfs", []string{"mode=755"}, attrs)
	if err != nil {
		return err
	}
	defer unix.Close(top)
	if err := moveTo(top, dest); err != nil {
		return err
	}
	for _, h := range own {
		if h.controllers == "" {
			continue // a hybrid host's version 2 tree has no controllers to show
		}
		name := strings.TrimPrefix(h.controllers, "name=")
		if err := b.mountHierarchy(top, name, h, o.set); err != nil {
			return errs.Wrap(err, "hierarchy %s", name)
		}
		if parts := strings.Split(name, ","); len(parts) > 1 {
			for _, part := range parts {
				if err := unix.Symlinkat(name, top, part); err != nil {
					return fmt.Errorf("link %s: %w", part, err)
				}
			}
		}
	}
	if o.set&unix.MOUNT_ATTR_RDONLY != 0 {
		if err := setAttr(top, unix.MOUNT_ATTR_RDONLY, 0, false); err != nil {
			return err
		}
	}
	for _, p := range o.propagation {
		if err := setPropagation(top, p.flag, p.recursive); err != nil {
			return err
		}
	}
	return nil
}

func (b *Builder) mountHierarchy(top int, name string, h hierarchy, attrs uint64) error {
	if err := unix.Mkdirat(top, name, 0o755); err != nil {
		return err
	}
	dest, err := unix.Openat(top, name, openPath|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dest)
	var tree int
	if b.cfg.Options.CgroupNamespace {
		data := []string{h.controllers}
		if strings.HasPrefix(h.controllers, "name=") {
			data = []string{"none", h.controllers}
		}
		tree, err = newFS("cgroup", "cgroup", data, attrs)
	} else {
		tree, err = bindHierarchy(name, h, attrs)
	}
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return moveTo(tree, dest)
}

func bindHierarchy(name string, h hierarchy, attrs uint64) (int, error) {
	dir := path.Join(cgroupRoot, name, path.Clean("/"+h.dir))
	tree, err := cloneGroup(dir, h.controllers)
	if err != nil {
		return -1, err
	}
	if err := setAttr(tree, attrs, 0, false); err != nil {
		unix.Close(tree)
		return -1, err
	}
	return tree, nil
}

// cloneGroup is a mount of this process's group in a hierarchy. dir is where it is on a host; a container may show its own
// part of a hierarchy at that place, which the mount table tells.
func cloneGroup(dir, controllers string) (int, error) {
	tree, err := cloneTree(unix.AT_FDCWD, dir, false)
	if errors.Is(err, unix.ENOENT) {
		if shown, findErr := groupDir(controllers); findErr == nil && shown != "" {
			dir = shown
			tree, err = cloneTree(unix.AT_FDCWD, dir, false)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("bind %s: %w", dir, err)
	}
	return tree, nil
}

func groupDir(controllers string) (string, error) {
	host, err := cgroup.Detect()
	if err != nil {
		return "", err
	}
	for _, x := range host.Hierarchies {
		if x.Name == controllers {
			return x.OwnDir(), nil
		}
	}
	return "", nil
}
