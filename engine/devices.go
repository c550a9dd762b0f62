package engine

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/engine/ocispec"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// lookupDevices finds the devices that a container gets, on the machine as it is now.
func lookupDevices(c *model.Container) (ocispec.Devices, error) {
	var out ocispec.Devices
	if c.Spec.Security.Privileged {
		nodes, err := deviceNodes("/dev", "/dev", "rwm")
		if err != nil {
			return out, errs.Wrap(err, "list the machine's devices for --privileged")
		}
		out.Nodes = nodes
	}
	for _, d := range c.Spec.Resources.Devices {
		in, perm := d.PathInContainer, d.Permissions
		if in == "" {
			in = d.PathOnHost
		}
		if perm == "" {
			perm = "rwm"
		}
		if c.Spec.Security.Privileged && in == d.PathOnHost {
			continue // it is there already
		}
		nodes, err := deviceNodes(d.PathOnHost, in, perm)
		if err != nil {
			return out, invalid("error gathering device information while adding custom device %q: %w", d.PathOnHost, err)
		}
		if len(nodes) == 0 {
			return out, invalid("error gathering device information while adding custom device %q: not a device node, and no directory with any", d.PathOnHost)
		}
		for _, n := range nodes {
			out.Nodes = append(out.Nodes, n)
			out.Rules = append(out.Rules, specs.LinuxDeviceCgroup{Allow: true, Type: n.Type, Major: &n.Major, Minor: &n.Minor, Access: perm})
		}
	}
	for _, rule := range c.Spec.Resources.DeviceRules {
		r, err := ocispec.ParseDeviceRule(rule)
		if err != nil {
			return out, err
		}
		out.Rules = append(out.Rules, r)
	}
	var err error
	out.Block, err = blockDevices(c.Spec.Resources.BlockIO)
	return out, err
}

// notDevices are directories and links in /dev that belong to the machine's own or to a container's runtime.
var notDevices = []string{"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"}

// deviceNodes describes a device, or all below a directory.
func deviceNodes(host, inside, perm string) ([]specs.LinuxDevice, error) {
	resolved, err := filepath.EvalSymlinks(host)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(resolved)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		node, ok, err := deviceNode(resolved, inside)
		if err != nil || !ok {
			return nil, err
		}
		return []specs.LinuxDevice{node}, nil
	}
	var out []specs.LinuxDevice
	err = filepath.WalkDir(resolved, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil // devices come and go
		}
		if slices.Contains(notDevices, entry.Name()) && path != resolved {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if entry.Type()&fs.ModeDevice == 0 {
			return nil
		}
		node, ok, err := deviceNode(path, filepath.Join(inside, strings.TrimPrefix(path, resolved)))
		if err == nil && ok {
			out = append(out, node)
		}
		return nil
	})
	return out, err
}

func deviceNode(path, inside string) (specs.LinuxDevice, bool, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return specs.LinuxDevice{}, false, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	d := specs.LinuxDevice{Path: inside, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev))}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		d.Type = "b"
	case unix.S_IFCHR:
		d.Type = "c"
	default:
		return d, false, nil
	}
	mode := os.FileMode(st.Mode & 0o777)
	d.FileMode, d.UID, d.GID = &mode, &st.Uid, &st.Gid
	return d, true, nil
}

// blockDevices finds the numbers of the block devices that are limited.
func blockDevices(b model.BlockIOResources) (map[string]specs.LinuxBlockIODevice, error) {
	var paths []string
	for _, w := range b.WeightDevice {
		paths = append(paths, w.Path)
	}
	for _, list := range [][]model.ThrottleDevice{b.DeviceReadBps, b.DeviceWriteBps, b.DeviceReadIOps, b.DeviceWriteIOps} {
		for _, t := range list {
			paths = append(paths, t.Path)
		}
	}
	if paths == nil {
		return nil, nil
	}
	out := map[string]specs.LinuxBlockIODevice{}
	for _, p := range paths {
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil {
			return nil, invalid("block device %q: %w", p, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFBLK {
			return nil, invalid("%q is not a block device; disk limits need one, such as /dev/sda", p)
		}
		out[p] = specs.LinuxBlockIODevice{Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev))}
	}
	return out, nil
}
