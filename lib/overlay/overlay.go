// Package overlay makes overlay mounts through the kernel's mount API, detached: nobody's mount table has them, and
// closing the descriptor takes them away. It must not know what the directories mean.
package overlay

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Dirs are the directories of an overlay. Without Upper the mount is read-only.
type Dirs struct {
	Lower       []string // top first, at least one; with a single one and no Upper the directory itself is given
	Upper, Work string
	Options     []string // "name" or "name=value"
}

// Mount makes a detached mount and gives its root as an O_PATH descriptor that the caller closes.
func Mount(d Dirs) (*os.File, error) {
	if len(d.Lower) == 0 {
		return nil, errors.New("an overlay needs a lower directory")
	}
	if len(d.Lower) == 1 && d.Upper == "" {
		fd, err := unix.OpenTree(unix.AT_FDCWD, d.Lower[0], unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return nil, &os.PathError{Op: "open_tree", Path: d.Lower[0], Err: err}
		}
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			unix.Close(fd)
			return nil, os.NewSyscallError("mount_setattr", err)
		}
		return os.NewFile(uintptr(fd), d.Lower[0]), nil
	}
	if Classic() {
		return MountClassic(d)
	}
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen overlay", err)
	}
	defer unix.Close(fs)
	if err := configure(fs, d); err != nil {
		return nil, fmt.Errorf("overlay of %d layers: %w%s", len(d.Lower), err, complaint(fs))
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("overlay of %d layers: %w%s", len(d.Lower), err, complaint(fs))
	}
	attrs := 0
	if d.Upper == "" {
		attrs = unix.MOUNT_ATTR_RDONLY
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, os.NewSyscallError("fsmount overlay", err)
	}
	return os.NewFile(uintptr(mnt), "overlay"), nil
}

func configure(fs int, d Dirs) error {
	if err := unix.FsconfigSetString(fs, "source", "overlay"); err != nil {
		return err
	}
	for _, l := range d.Lower {
		if err := unix.FsconfigSetString(fs, "lowerdir+", l); err != nil {
			return fmt.Errorf("lower directory %s: %w", l, err)
		}
	}
	if d.Upper != "" {
		if err := unix.FsconfigSetString(fs, "upperdir", d.Upper); err != nil {
			return fmt.Errorf("upper directory %s: %w", d.Upper, err)
		}
		if err := unix.FsconfigSetString(fs, "workdir", d.Work); err != nil {
			return fmt.Errorf("work directory %s: %w", d.Work, err)
		}
	}
	for _, o := range d.Options {
		name, value, has := strings.Cut(o, "=")
		var err error
		if has {
			err = unix.FsconfigSetString(fs, name, value)
		} else {
			err = unix.FsconfigSetFlag(fs, name)
		}
		if err != nil {
			return fmt.Errorf("option %s: %w", o, err)
		}
	}
	return nil
}

// complaint is what the kernel says of the last failure.
func complaint(fs int) string {
	var b [1024]byte
	n, err := unix.Read(fs, b[:])
	if err != nil || n <= 2 {
		return ""
	}
	return " (" + strings.TrimSpace(string(b[2:n])) + ")"
}
