package rootfs

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

func (b *Builder) mountOne(m *Mount) error {
	o := parseOptions(m.Options)
	switch {
	case o.remount:
		return b.remount(m, o)
	case o.bind || m.Type == "bind":
		return b.bind(m, o)
	}
	switch m.Type {
	case "cgroup", "cgroup2":
		return b.mountCgroup(m, o)
	case "proc", "sysfs":
		return b.mountKernel(m, o)
	}
	if o.subpath != "" {
		return b.mountPart(m, o)
	}
	make := makeDir
	if m.Type == "tmpfs" {
		make = makeTmpfsDir
	}
	dest, err := make(b.root, m.Destination, 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(dest)
	if err := checkNotProc(dest, m.Destination); err != nil {
		return err
	}
	if m.Type == "tmpfs" {
		return b.mountTmpfs(m, o, dest)
	}
	data := o.data
	if b.cfg.MountLabel != "" && m.Type != "mqueue" {
		data = append(data, `context=`+b.cfg.MountLabel)
	}
	tree, err := newFS(m.Type, m.Source, data, o.set)
	if err != nil {
		return err
	}
	return b.attach(tree, dest, o)
}

// attach moves a detached mount to its place and gives it its propagation and recursive attributes.
func (b *Builder) attach(tree, dest int, o mountOptions) error {
	defer unix.Close(tree)
	if err := setAttr(tree, o.recSet, o.recClear, true); err != nil {
		return err
	}
	if err := moveTo(tree, dest); err != nil {
		return err
	}
	for _, p := range o.propagation {
		if err := setPropagation(tree, p.flag, p.recursive); err != nil {
			return err
		}
	}
	return nil
}

// mountKernel mounts proc or sysfs. The place must be a directory of the root itself: a link there could make later
// writes to "/proc" land on files of the image.
func (b *Builder) mountKernel(m *Mount, o mountOptions) error {
	dest, err := openIn(b.root, m.Destination, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	if err == unix.ENOENT {
		dest, err = makeDir(b.root, m.Destination, 0o755)
	}
	if err == unix.ELOOP || err == unix.ENOTDIR {
		return errs.New(errs.Invalid, "%s in the image is not a directory (a symbolic link is refused here)", m.Destination)
	}
	if err != nil {
		return pathErr(m.Destination, err)
	}
	defer unix.Close(dest)
	tree, err := newFS(m.Type, m.Source, o.data, o.set)
	if errors.Is(err, unix.EPERM) && b.cfg.Options.UserNamespace {
		return b.bindKernel(m, o, dest, err)
	}
	if err != nil {
		return err
	}
	return b.attach(tree, dest, o)
}

// bindKernel takes the host's sysfs or proc when the kernel refuses a new instance in a user namespace, which it does
// when the network or pid namespace is not the container's own or the host's instance is partly covered.
func (b *Builder) bindKernel(m *Mount, o mountOptions, dest int, cause error) error {
	from := map[string]string{"proc": "/proc", "sysfs": "/sys"}[m.Type]
	tree, err := cloneTree(unix.AT_FDCWD, from, true)
	if err != nil {
		return cause
	}
	if err := setAttr(tree, o.set, 0, true); err != nil {
		unix.Close(tree)
		return err
	}
	return b.attach(tree, dest, o)
}

func (b *Builder) remount(m *Mount, o mountOptions) error {
	dest, err := openIn(b.root, m.Destination, unix.O_PATH, 0)
	if err != nil {
		return pathErr(m.Destination, err)
	}
	defer unix.Close(dest)
	if err := setAttr(dest, o.set, o.clear, false); err != nil {
		return err
	}
	if err := setAttr(dest, o.recSet, o.recClear, true); err != nil {
		return err
	}
	for _, p := range o.propagation {
		if err := setPropagation(dest, p.flag, p.recursive); err != nil {
			return err
		}
	}
	return nil
}

func (b *Builder) bind(m *Mount, o mountOptions) error {
	tree := m.Tree
	if tree == 0 {
		var err error
		if tree, err = bindSource(m.Source, o); err != nil {
			return err
		}
	} else if again, err := cloneTree(tree, "", true); err == nil {
		// Cloned once more (6.15 and newer allow it), the mount is numbered in the order of the configuration.
		unix.Close(tree)
		tree = again
	}
	dest, err := b.bindDest(tree, m)
	if err != nil {
		unix.Close(tree)
		return err
	}
	defer unix.Close(dest)
	if err := setAttr(tree, o.set, o.clear, false); err != nil {
		unix.Close(tree)
		return err
	}
	return b.attach(tree, dest, o)
}

// mountPart mounts a part of a file system.
func (b *Builder) mountPart(m *Mount, o mountOptions) error {
	whole, err := newFS(m.Type, m.Source, o.data, o.set)
	if err != nil {
		return err
	}
	defer unix.Close(whole)
	part, err := narrow(whole, b.root, o.subpath)
	if err != nil {
		return err
	}
	dest, err := b.bindDest(part, m)
	if err != nil {
		unix.Close(part)
		return err
	}
	defer unix.Close(dest)
	return b.attach(part, dest, o)
}

func (b *Builder) bindDest(tree int, m *Mount) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return -1, fmt.Errorf("look at the source %s: %w", m.Source, err)
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	make := makeFile
	if isDir {
		make = func(root int, name string) (int, error) { return makeDir(root, name, 0o755) }
	}
	dest, err := make(b.root, m.Destination)
	if err != nil {
		return -1, err
	}
	if err := b.checkBindOnProc(tree, dest, m.Destination); err != nil {
		unix.Close(dest)
		return -1, err
	}
	return dest, nil
}

// procFiles are the files of /proc that may be covered, for tools such as lxcfs.
var procFiles = []string{"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime",
	"/proc/loadavg", "/proc/slabinfo", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled"}

// checkNotProc refuses to mount inside procfs, judged by the file system that was reached, not by the name.
func checkNotProc(dest int, name string) error {
	if !isProc(dest) {
		return nil
	}
	return errs.New(errs.Forbidden, "%s is inside a procfs; mounting there could fake what the kernel and security modules are told", name)
}

func (b *Builder) checkBindOnProc(tree, dest int, name string) error {
	if !isProc(dest) {
		return nil
	}
	clean := path.Clean("/" + name)
	for _, allowed := range procFiles {
		if clean == allowed {
			return nil
		}
	}
	if isProc(tree) && clean == "/proc" {
		return nil
	}
	return checkNotProc(dest, name)
}

func isProc(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && int64(fs.Type) == unix.PROC_SUPER_MAGIC
}

// makeTmpfsDir is makeDir, but the last directory, when it is new, may be written by everybody, as a tmpfs without a mode
// may: a tmpfs takes the mode of the directory it is mounted on, and programs without root would have no use of it.
func makeTmpfsDir(root int, name string, mode uint32) (int, error) {
	fd, err := openIn(root, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != unix.ENOENT {
		return fd, pathErr(name, err)
	}
	if fd, err = makeDir(root, name, mode); err != nil {
		return -1, err
	}
	dir, err := openIn(root, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == nil {
		err = unix.Fchmod(dir, 0o1777)
		unix.Close(dir)
	}
	if err != nil {
		unix.Close(fd)
		return -1, pathErr(name, err)
	}
	return fd, nil
}

func (b *Builder) mountTmpfs(m *Mount, o mountOptions, dest int) error {
	data := o.data
	var st unix.Stat_t
	if err := unix.Fstat(dest, &st); err != nil {
		return err
	}
	if !hasKey(data, "mode") {
		data = append(data, fmt.Sprintf("mode=%o", st.Mode&0o7777))
	}
	if b.cfg.MountLabel != "" {
		data = append(data, "context="+b.cfg.MountLabel)
	}
	attrs := o.set
	late := attrs&unix.MOUNT_ATTR_RDONLY != 0 && (o.copyUp || path.Clean(m.Destination) == "/dev")
	if late {
		attrs &^= unix.MOUNT_ATTR_RDONLY // devices and copies must get in first
	}
	tree, err := newFS("tmpfs", m.Source, data, attrs)
	if err != nil {
		return err
	}
	if o.copyUp {
		if err := copyUp(dest, tree); err != nil {
			unix.Close(tree)
			return errs.Wrap(err, "copy the image's content up")
		}
	}
	if late {
		keep, err := unix.FcntlInt(uintptr(tree), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			unix.Close(tree)
			return err
		}
		b.late = append(b.late, keep)
	}
	return b.attach(tree, dest, o)
}

func hasKey(data []string, key string) bool {
	for _, item := range data {
		for opt := range strings.SplitSeq(item, ",") {
			if k, _, _ := strings.Cut(opt, "="); k == key {
				return true
			}
		}
	}
	return false
}
