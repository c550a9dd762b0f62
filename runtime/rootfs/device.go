package rootfs

import (
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

func id(v uint32) *uint32 { return &v }

// defaultDevices are those the OCI specification promises to every container.
var defaultDevices = []specs.LinuxDevice{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3},
	{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5},
	{Path: "/dev/full", Type: "c", Major: 1, Minor: 7},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8},
	{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9},
	{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0},
}

// ownDev says whether /dev is the container's own, not a bind mount of the host's.
func (b *Builder) ownDev() bool {
	for i := range b.cfg.Mounts {
		m := &b.cfg.Mounts[i]
		if path.Clean(m.Destination) == "/dev" && BindOf(m.Type, m.Options).Bind {
			return false
		}
	}
	return true
}

// Devices makes device nodes and the usual links in /dev, unless /dev is bound from the host.
func (b *Builder) Devices() error {
	if !b.ownDev() {
		return nil
	}
	old := unix.Umask(0)
	defer unix.Umask(old)
	asked := map[string]bool{}
	for i := range b.cfg.Devices {
		d := &b.cfg.Devices[i]
		asked[path.Clean(d.Path)] = true
		if path.Clean(d.Path) == "/dev/ptmx" {
			continue // always the container's own: a link below
		}
		if err := b.device(d); err != nil {
			return errs.Wrap(err, "make device %s (%s %d:%d)", d.Path, d.Type, d.Major, d.Minor)
		}
	}
	for i := range defaultDevices {
		if d := &defaultDevices[i]; !asked[d.Path] {
			if err := b.device(d); err != nil {
				return errs.Wrap(err, "make device %s", d.Path)
			}
		}
	}
	return b.devLinks()
}

func (b *Builder) devLinks() error {
	dev, err := makeDir(b.root, "/dev", 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(dev)
	links := [][2]string{{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}}
	if unix.Access("/proc/kcore", unix.F_OK) == nil {
		links = append(links, [2]string{"core", "/proc/kcore"})
	}
	for _, l := range links {
		if err := unix.Symlinkat(l[1], dev, l[0]); err != nil && err != unix.EEXIST {
			return fmt.Errorf("link /dev/%s to %s: %w", l[0], l[1], err)
		}
	}
	// An image's own ptmx would open the host's terminals.
	if err := unix.Unlinkat(dev, "ptmx", 0); err != nil && err != unix.ENOENT {
		return fmt.Errorf("replace /dev/ptmx: %w", err)
	}
	if err := unix.Symlinkat("pts/ptmx", dev, "ptmx"); err != nil {
		return fmt.Errorf("link /dev/ptmx: %w", err)
	}
	return nil
}

func deviceMode(d *specs.LinuxDevice) (uint32, error) {
	mode := uint32(0o666)
	if d.FileMode != nil {
		mode = uint32(d.FileMode.Perm())
	}
	switch d.Type {
	case "c", "u":
		return mode | unix.S_IFCHR, nil
	case "b":
		return mode | unix.S_IFBLK, nil
	case "p":
		return mode | unix.S_IFIFO, nil
	}
	return 0, errs.New(errs.Invalid, "device type %q is none of c, b, u, p", d.Type)
}

func (b *Builder) device(d *specs.LinuxDevice) error {
	dirName, base := path.Split(path.Clean("/" + d.Path))
	dir, err := makeDir(b.root, dirName, 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	mode, err := deviceMode(d)
	if err != nil {
		return err
	}
	if b.cfg.Options.UserNamespace && mode&unix.S_IFMT != unix.S_IFIFO {
		return b.bindDevice(d, dir, base)
	}
	dev := int(unix.Mkdev(uint32(d.Major), uint32(d.Minor)))
	err = unix.Mknodat(dir, base, mode, dev)
	if err == unix.EEXIST {
		return checkDevice(dir, base, mode, uint64(dev))
	}
	if err == unix.EPERM && mode&unix.S_IFMT != unix.S_IFIFO {
		return b.bindDevice(d, dir, base)
	}
	if err != nil {
		return fmt.Errorf("mknod: %w", err)
	}
	if d.UID == nil && d.GID == nil {
		return nil
	}
	if d.UID == nil {
		d.UID = id(0)
	}
	if d.GID == nil {
		d.GID = id(0)
	}
	if err := unix.Fchownat(dir, base, int(*d.UID), int(*d.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("chown to %d:%d: %w", *d.UID, *d.GID, err)
	}
	return nil
}

// checkDevice accepts what the image already has at the place only if it is that very device.
func checkDevice(dir int, base string, mode uint32, dev uint64) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != mode&unix.S_IFMT || mode&unix.S_IFMT != unix.S_IFIFO && st.Rdev != dev {
		return errs.New(errs.Conflict, "the image has something else at this place")
	}
	return nil
}

// bindDevice uses the host's node where mknod is not allowed.
func (b *Builder) bindDevice(d *specs.LinuxDevice, dir int, base string) error {
	host := d.Path
	tree, err := cloneTree(unix.AT_FDCWD, host, false)
	if err != nil {
		return fmt.Errorf("bind the host's %s, as device nodes cannot be made in a user namespace: %w", host, err)
	}
	defer unix.Close(tree)
	if err := verifyDevice(tree, d); err != nil {
		return err
	}
	fd, err := unix.Openat(dir, base, unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_RDONLY|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return fmt.Errorf("make a place for it: %w", err)
	}
	defer unix.Close(fd)
	return moveTo(tree, fd)
}

func verifyDevice(fd int, d *specs.LinuxDevice) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	want := uint32(unix.S_IFCHR)
	if d.Type == "b" {
		want = unix.S_IFBLK
	}
	if st.Mode&unix.S_IFMT != want || st.Rdev != unix.Mkdev(uint32(d.Major), uint32(d.Minor)) {
		return errs.New(errs.Conflict, "the host's %s is not device %s %d:%d", d.Path, d.Type, d.Major, d.Minor)
	}
	return nil
}

// Console puts the terminal onto /dev/console.
func (b *Builder) Console(terminal int) error {
	dest, err := makeFile(b.root, "/dev/console")
	if err != nil {
		return err
	}
	defer unix.Close(dest)
	tree, err := cloneTree(terminal, "", false)
	if err != nil {
		return fmt.Errorf("bind the terminal to /dev/console: %w", err)
	}
	defer unix.Close(tree)
	return moveTo(tree, dest)
}

// OpenTerminal makes a new pseudo-terminal in the container's own devpts: the master and, without any path, its slave.
func OpenTerminal(root int) (master, slave int, err error) {
	master, err = openIn(root, "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("open a terminal in the container's /dev/pts: %w; a terminal needs a devpts mount there", err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(master, &fs); err != nil || int64(fs.Type) != unix.DEVPTS_SUPER_MAGIC {
		unix.Close(master)
		return -1, -1, errs.New(errs.Forbidden, "/dev/pts/ptmx in the container is not of a devpts")
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		unix.Close(master)
		return -1, -1, fmt.Errorf("unlock the terminal: %w", err)
	}
	if slave, err = getPeer(master); err != nil {
		unix.Close(master)
		return -1, -1, fmt.Errorf("open the terminal's other side: %w", err)
	}
	return master, slave, nil
}

func getPeer(master int) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func isDirTree(fd int) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// mask hides the masked paths: directories under an empty read-only one, anything else under the null device.
func (b *Builder) mask() error {
	var dirs, files []int
	defer func() {
		for _, fd := range append(dirs, files...) {
			unix.Close(fd)
		}
	}()
	for _, name := range b.cfg.Masked {
		dest, err := openIn(b.root, strings.TrimRight(name, "/"), unix.O_PATH, 0)
		if err == unix.ENOENT || err == unix.ENOTDIR {
			continue // nothing to hide
		}
		if err != nil {
			return errs.Wrap(pathErr(name, err), "mask %s", name)
		}
		isDir, err := isDirTree(dest)
		if err != nil {
			unix.Close(dest)
			return errs.Wrap(err, "mask %s", name)
		}
		if isDir {
			dirs = append(dirs, dest)
		} else {
			files = append(files, dest)
		}
	}
	if err := cover(dirs, b.emptyTree); err != nil {
		return errs.Wrap(err, "mask directories")
	}
	return errs.Wrap(cover(files, b.nullTree), "mask files")
}

// cover mounts one tree over the first place and copies of it over the others. Only a tree that is attached can be copied
// before Linux 6.15.
func cover(places []int, open func() (int, error)) error {
	if len(places) == 0 {
		return nil
	}
	from, err := open()
	if err != nil {
		return err
	}
	defer unix.Close(from)
	if err := moveTo(from, places[0]); err != nil {
		return err
	}
	for _, dest := range places[1:] {
		tree, err := cloneTree(from, "", false)
		if err != nil {
			return fmt.Errorf("copy a mount: %w", err)
		}
		err = moveTo(tree, dest)
		unix.Close(tree)
		if err != nil {
			return err
		}
	}
	return nil
}

// nullTree is a detached mount of a device that was verified to be the null device: a container-supplied /dev/null must
// not end up over a masked path.
func (b *Builder) nullTree() (int, error) {
	tree, err := cloneTree(b.root, "dev/null", false)
	if err != nil {
		return -1, fmt.Errorf("open /dev/null: %w", err)
	}
	if err := verifyDevice(tree, &defaultDevices[0]); err != nil {
		unix.Close(tree)
		return -1, errs.New(errs.Forbidden, "/dev/null in the container is not the null device")
	}
	return tree, nil
}

// emptyTree is an empty read-only tmpfs.
func (b *Builder) emptyTree() (int, error) {
	data := []string{"nr_blocks=1", "nr_inodes=1", "mode=555"}
	if b.cfg.MountLabel != "" {
		data = append(data, "context="+b.cfg.MountLabel)
	}
	return newFS("tmpfs", "tmpfs", data, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

func (b *Builder) readonly(name string) error {
	dest, err := openIn(b.root, name, unix.O_PATH, 0)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return pathErr(name, err)
	}
	defer unix.Close(dest)
	tree, err := cloneTree(dest, "", true)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	if err := setAttr(tree, unix.MOUNT_ATTR_RDONLY, 0, true); err != nil {
		return err
	}
	return moveTo(tree, dest)
}
