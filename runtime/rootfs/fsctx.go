package rootfs

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/overlay"
)

// newFS makes a detached mount of a file system from "key=value" options. What the kernel says about a refused option
// is part of the error.
func newFS(typ, source string, data []string, attrs uint64) (int, error) {
	if typ == "overlay" && overlay.Classic() {
		return classicFS(data, attrs)
	}
	ctx, err := unix.Fsopen(typ, unix.FSOPEN_CLOEXEC)
	if err != nil {
		if err == unix.ENODEV {
			return -1, fmt.Errorf("file system type %q is not known to this kernel: %w", typ, err)
		}
		return -1, fmt.Errorf("file system %s: %w%s", typ, err, kernelHint(err))
	}
	defer unix.Close(ctx)
	if source != "" && source != "none" {
		if err := unix.FsconfigSetString(ctx, "source", source); err != nil {
			return -1, contextErr(ctx, err, "source "+source)
		}
	}
	for _, item := range data {
		for opt := range strings.SplitSeq(item, ",") {
			if opt == "" {
				continue
			}
			if err := setOption(ctx, opt); err != nil {
				return -1, contextErr(ctx, err, "option "+opt)
			}
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, contextErr(ctx, err, "create")
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, int(attrs))
	if err != nil {
		return -1, contextErr(ctx, err, "mount")
	}
	return fd, nil
}

func setOption(ctx int, opt string) error {
	key, value, ok := strings.Cut(opt, "=")
	if !ok {
		return unix.FsconfigSetFlag(ctx, key)
	}
	if key == "lowerdir" && len(value) >= maxString {
		return setLowers(ctx, splitLowers(value))
	}
	return unix.FsconfigSetString(ctx, key, value)
}

// contextErr adds the kernel's own words from the file system context.
func contextErr(ctx int, err error, what string) error {
	var said []string
	buf := make([]byte, 1024)
	for range 8 {
		n, rerr := unix.Read(ctx, buf)
		if rerr != nil || n <= 0 {
			break
		}
		line := strings.TrimSpace(string(buf[:n]))
		if len(line) > 2 && line[1] == ' ' {
			line = line[2:] // "e ", "w " or "i "
		}
		said = append(said, line)
	}
	if len(said) == 0 {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w (kernel: %s)", what, err, strings.Join(said, "; "))
}

func moveTo(tree, dest int) error {
	if err := unix.MoveMount(tree, "", dest, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return nil
}

func cloneTree(fd int, name string, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return unix.OpenTree(fd, name, flags)
}
