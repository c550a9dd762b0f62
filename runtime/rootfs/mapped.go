package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/osthread"
	"github.com/shoalhq/shoal/lib/userns"
	"github.com/shoalhq/shoal/runtime/spec"
)

// MountMapped makes a detached overlay whose layers all have their ids mapped as user, a user namespace, says: what is on
// disk stays as images have it, and the container's root, whose ids on the host are uid and gid, is nobody there. Layers are attached in a mount namespace of
// this thread alone while the overlay is made, as kernels before 6.15 want it.
func MountMapped(o *spec.RootfsOverlay, label string, user *os.File, uid, gid int) (fd int, err error) {
	osthread.Run(func() {
		if err = unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			err = os.NewSyscallError("unshare the mount namespace", err)
			return
		}
		fd, err = mountMapped(o, label, user, uid, gid)
	})
	return fd, err
}

// place is a directory that every machine has and that nothing needs while an overlay is made.
const place = "/proc"

func mountMapped(o *spec.RootfsOverlay, label string, user *os.File, uid, gid int) (int, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, os.NewSyscallError("make mounts private", err)
	}
	trees := make([]int, 0, len(o.Lower)+1)
	defer func() {
		for _, t := range trees {
			unix.Close(t)
		}
	}()
	dirs := append([]string{}, o.Lower...)
	if o.Upper != "" { // upper and work must be on one mount
		if filepath.Dir(o.Upper) != filepath.Dir(o.Work) {
			return -1, errs.New(errs.Internal, "the writable layer %s and its work directory %s are not side by side", o.Upper, o.Work)
		}
		dirs = append(dirs, filepath.Dir(o.Upper))
	}
	for _, dir := range dirs { // all before the place covers anything
		tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return -1, fmt.Errorf("open layer %s: %w", dir, err)
		}
		trees = append(trees, tree)
		err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(user.Fd())})
		if errors.Is(err, unix.EINVAL) {
			return -1, errs.New(errs.Unsupported, "the file system of %s cannot be mounted with mapped ids on this kernel: %w", dir, err)
		}
		if err != nil {
			return -1, fmt.Errorf("map the ids of layer %s: %w", dir, err)
		}
	}
	if err := unix.Mount("tmpfs", place, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700"); err != nil {
		return -1, os.NewSyscallError("mount a tmpfs", err)
	}
	mapped := spec.RootfsOverlay{Options: o.Options}
	for i, tree := range trees {
		at := place + "/" + strconv.Itoa(i)
		if err := os.Mkdir(at, 0o700); err != nil {
			return -1, err
		}
		if err := unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return -1, fmt.Errorf("attach layer %s: %w", dirs[i], err)
		}
		if i < len(o.Lower) {
			mapped.Lower = append(mapped.Lower, at)
		} else {
			mapped.Upper, mapped.Work = at+"/"+filepath.Base(o.Upper), at+"/"+filepath.Base(o.Work)
		}
	}
	// An overlay works with what its maker had, and in layers with mapped ids the host's root can create nothing.
	if err := userns.ActAs(uid, gid); err != nil {
		return -1, err
	}
	fd, err := MountOverlay(&mapped, label)
	if errors.Is(err, unix.EINVAL) {
		err = errs.New(errs.Unsupported, "%w: Linux 5.19 or newer can make an overlay of layers with mapped ids", err)
	}
	if err != nil {
		return -1, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err == nil && o.Upper != "" && fs.Flags&unix.ST_RDONLY != 0 {
		unix.Close(fd)
		return -1, errs.New(errs.Unsupported, "the overlay on %s cannot be written with mapped ids (the kernel's log says why)", o.Upper)
	}
	return fd, nil
}
