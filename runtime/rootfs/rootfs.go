// Package rootfs builds a container's view of the file system from inside its mount namespace: the root (a directory or
// an overlay mounted here, unseen by the host), the mounts, the devices, the pivot, and what is masked or read-only
// afterwards. Every mount is made detached (fsopen, open_tree) and moved onto a descriptor that was resolved inside the
// root by openat2(RESOLVE_IN_ROOT); no path of the container is ever joined as a string and used again, so an image
// or a shared volume cannot lead a mount elsewhere. It must not know of processes, cgroup limits or privileges.
//
// Needs Linux 5.12 (mount_setattr). Call order: Begin, Mount, Devices, (hooks), Pivot, Finish.
package rootfs

import (
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/spec"
)

// Config is what the root file system shall be.
type Config struct {
	Root        specs.Root
	Overlay     *spec.RootfsOverlay // mounted on Root.Path when set
	Tree        int                 // descriptor of a detached mount to use as root; 0 is none
	Mounts      []Mount
	Devices     []specs.LinuxDevice
	Masked      []string
	Readonly    []string
	Propagation string
	MountLabel  string
	Options     Options
}

// Options are the circumstances.
type Options struct {
	UserNamespace   bool // a user namespace below the host's
	CgroupNamespace bool
	SharedPID       bool // the pid namespace is not the container's own
	NoPivot         bool
	HostMounts      bool // there is no mount namespace: what is mounted is mounted on the host, below the root
}

// Mount is one mount. Tree, when not 0, is the descriptor of the already detached source tree of a bind mount.
type Mount struct {
	specs.Mount
	Tree int `json:"tree,omitempty"`
}

// Builder does the work step by step.
type Builder struct {
	cfg  Config
	root int   // the root's mount
	late []int // mounts to make read-only at the end
}

const openPath = unix.O_PATH | unix.O_CLOEXEC

// Begin cuts the mount namespace off from the host's and attaches the root.
func Begin(cfg Config) (*Builder, error) {
	b := &Builder{cfg: cfg}
	if err := b.openShared(); err != nil {
		return nil, err
	}
	propagation := uintptr(unix.MS_SLAVE)
	if cfg.Propagation == "private" || cfg.Propagation == "rprivate" {
		propagation = unix.MS_PRIVATE
	}
	if !cfg.Options.HostMounts {
		if err := unix.Mount("", "/", "", propagation|unix.MS_REC, ""); err != nil {
			return nil, fmt.Errorf("cut the mount namespace off from the host's: %w", err)
		}
	}
	tree, err := b.rootTree()
	if err != nil {
		return nil, err
	}
	err = unix.MoveMount(tree, "", unix.AT_FDCWD, cfg.Root.Path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err == unix.EACCES && cfg.Tree != 0 {
		// The root of a user namespace may not get to the directory. Any other will do: it goes with the host's mounts.
		err = unix.MoveMount(tree, "", unix.AT_FDCWD, "/etc", unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	if err != nil {
		return nil, fmt.Errorf("attach the root file system at %s: %w", cfg.Root.Path, err)
	}
	// A private root: neither pivot_root nor the image's mounts may reach a peer. One that is asked to be a slave gets what
	// the host mounts there, and still gives nothing.
	own := uint64(unix.MS_PRIVATE)
	if flag, _, _ := propagationFlag(cfg.Propagation); flag == unix.MS_SLAVE && !cfg.Options.HostMounts {
		own = flag
	}
	if err := setPropagation(tree, own, false); err != nil {
		return nil, err
	}
	b.root = tree
	return b, nil
}

// openShared opens the sources of bind mounts that ask to stay peers of the host's mounts, while they still are.
func (b *Builder) openShared() error {
	for i := range b.cfg.Mounts {
		m := &b.cfg.Mounts[i]
		t := BindOf(m.Type, m.Options)
		if !t.Bind || !t.Shared || m.Tree != 0 {
			continue
		}
		tree, err := bindSource(m.Source, parseOptions(m.Options))
		if err != nil {
			return fmt.Errorf("mount %s: %w", describe(m), err)
		}
		m.Tree = tree
	}
	return nil
}

func (b *Builder) rootTree() (int, error) {
	cfg := &b.cfg
	switch {
	case cfg.Tree != 0:
		return cfg.Tree, nil
	case cfg.Overlay != nil:
		return MountOverlay(cfg.Overlay, cfg.MountLabel)
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, cfg.Root.Path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, fmt.Errorf("open the root file system %s: %w%s", cfg.Root.Path, err, kernelHint(err))
	}
	return tree, nil
}

func kernelHint(err error) string {
	if err == unix.ENOSYS {
		return "; Linux 5.12 or newer is needed"
	}
	return ""
}

// Mount makes all mounts in order.
func (b *Builder) Mount() error {
	for i := range b.cfg.Mounts {
		m := &b.cfg.Mounts[i]
		if err := b.mountOne(m); err != nil {
			return errs.Wrap(err, "mount %s", describe(m))
		}
	}
	return nil
}

func describe(m *Mount) string {
	if m.Source == "" || m.Source == m.Type {
		return fmt.Sprintf("%s on %s", m.Type, m.Destination)
	}
	if m.Type == "" || m.Type == "none" || m.Type == "bind" {
		return fmt.Sprintf("%s on %s", m.Source, m.Destination)
	}
	return fmt.Sprintf("%s (%s) on %s", m.Source, m.Type, m.Destination)
}

// Root is the descriptor of the root's mount.
func (b *Builder) Root() int { return b.root }

// Pivot makes the root the root of this mount namespace, drops the host's mounts and goes to /.
func (b *Builder) Pivot() error {
	if b.cfg.Options.HostMounts {
		return b.chroot()
	}
	if b.cfg.Options.NoPivot {
		return b.moveRoot()
	}
	if err := unix.Fchdir(b.root); err != nil {
		return fmt.Errorf("enter the root file system: %w", err)
	}
	// "." twice stacks the old root on the new one, so that no directory inside the container is needed for it.
	if err := unix.PivotRoot(".", "."); err != nil {
		hint := ""
		if err == unix.EINVAL {
			hint = "; the root is an initial RAM disk or its parent mount is shared (--no-pivot helps with the former)"
		}
		return fmt.Errorf("pivot_root to %s: %w%s", b.cfg.Root.Path, err, hint)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("drop the host's mounts: %w", err)
	}
	return enterRoot()
}

// chroot is all that can be done in the host's mount namespace.
func (b *Builder) chroot() error {
	if err := unix.Fchdir(b.root); err != nil {
		return fmt.Errorf("enter the root file system: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot to %s: %w", b.cfg.Root.Path, err)
	}
	return enterRoot()
}

// MountID is the mount that a path is on.
func MountID(path string) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &st)
	return st.Mnt_id, os.NewSyscallError("statx "+path, err)
}

// DropHostMounts takes away what a container without a mount namespace has mounted on the host: its root is one mount, with
// all others below it. Where root is still on the mount that it was on before, it never came to that.
func DropHostMounts(root string, before uint64) error {
	now, err := MountID(root)
	if err != nil || now == before {
		return nil
	}
	return os.NewSyscallError("unmount "+root, unix.Unmount(root, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
}

func enterRoot() error {
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter the container's /: %w", err)
	}
	return nil
}

// moveRoot does without pivot_root, for hosts whose root is a RAM disk. Host mounts which could be reached through the
// parent directory of the moved root are detached first.
func (b *Builder) moveRoot() error {
	if err := unix.Fchdir(b.root); err != nil {
		return fmt.Errorf("enter the root file system: %w", err)
	}
	for _, path := range []string{"/proc", "/sys"} { // full views of the host's kernel must not stay reachable
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.EPERM && err != unix.ENOENT {
			return fmt.Errorf("detach the host's %s: %w", path, err)
		}
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root file system to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot into the moved root: %w", err)
	}
	return enterRoot()
}

// Finish, called after Pivot and after sysctls are written, applies what would have been in the way before.
func (b *Builder) Finish() error {
	for _, fd := range b.late {
		if err := setAttr(fd, unix.MOUNT_ATTR_RDONLY, 0, false); err != nil {
			return fmt.Errorf("make a mount read-only: %w", err)
		}
	}
	for _, path := range b.cfg.Readonly {
		if err := b.readonly(path); err != nil {
			return errs.Wrap(err, "make %s read-only", path)
		}
	}
	if err := b.mask(); err != nil {
		return err
	}
	if b.cfg.Root.Readonly {
		if err := setAttr(b.root, unix.MOUNT_ATTR_RDONLY, 0, false); err != nil {
			return fmt.Errorf("make the root file system read-only: %w", err)
		}
	}
	if flag, recursive, ok := propagationFlag(b.cfg.Propagation); ok {
		if err := setPropagation(b.root, flag, recursive); err != nil {
			return errs.Wrap(err, "root file system")
		}
	} else if b.cfg.Propagation != "" {
		return errs.New(errs.Invalid, "rootfsPropagation %q is not one of [r]shared, [r]slave, [r]private, [r]unbindable", b.cfg.Propagation)
	}
	return nil
}

// CheckCwd fails when the working directory is not inside the root: a descriptor of the host leaked into the path.
func CheckCwd() error {
	dir, err := unix.Getwd()
	if err == nil && len(dir) > 0 && dir[0] == '/' {
		return nil
	}
	if err == nil || err == unix.ENOENT {
		err = fmt.Errorf("it is %q", dir)
	}
	return errs.New(errs.Forbidden, "the working directory is outside the container's root: %w", os.NewSyscallError("getcwd", err))
}
