package rootfs

import (
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/runtime/spec"
)

// SubpathOf finds the option that names the part of a bind mount's source, or of any other file system, that is mounted
// in place of the whole. It is resolved with the source as its root: neither ".." nor a link in it, which containers that
// write there can place, leads out.
func SubpathOf(options []string) (string, bool) {
	for _, o := range options {
		if sub, ok := strings.CutPrefix(o, model.MountSubpathOption); ok {
			return sub, true
		}
	}
	return "", false
}

// subtree opens the part of a tree that is mounted in this namespace.
func subtree(tree int, sub string, recursive bool) (int, error) {
	at, err := openIn(tree, sub, unix.O_PATH, 0)
	if err != nil {
		return -1, subpathErr(sub, err)
	}
	defer unix.Close(at)
	return cloneTree(at, "", recursive)
}

func subpathErr(sub string, err error) error {
	hint := ""
	switch err {
	case unix.ENOENT:
		hint = "; make it there first"
	case unix.ELOOP:
		hint = "; its symbolic links lead in a circle"
	}
	return errs.As(errs.Invalid, fmt.Errorf("subpath %q: %w%s", sub, err, hint))
}

// bindSource opens what a bind mount shows, from this mount namespace.
func bindSource(source string, o mountOptions) (int, error) {
	if o.subpath == "" {
		tree, err := cloneTree(unix.AT_FDCWD, source, o.recursive)
		if err != nil {
			return -1, fmt.Errorf("open the source %s: %w", source, err)
		}
		return tree, nil
	}
	root, err := unix.Open(source, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open the source %s: %w", source, err)
	}
	defer unix.Close(root)
	return subtree(root, o.subpath, o.recursive)
}

// OpenSource opens what a bind mount of these options shows as a detached tree, for whoever has the rights to.
func OpenSource(source string, options []string) (int, error) {
	return bindSource(source, parseOptions(options))
}

// narrow gives the part of a file system that the option names. Before Linux 6.15 a tree can only be cloned where it is
// mounted, so the whole is mounted on dest for that moment.
func narrow(tree, dest int, sub string) (int, error) {
	if err := moveTo(tree, dest); err != nil {
		return -1, err
	}
	part, err := subtree(tree, sub, false)
	if uerr := unmountAt(tree); err == nil && uerr != nil {
		unix.Close(part)
		err = fmt.Errorf("take the whole file system away: %w", uerr)
	}
	return part, err
}

// unmountAt detaches the mount of a descriptor.
func unmountAt(fd int) error {
	back, err := unix.Open(".", openPath, 0)
	if err != nil {
		return err
	}
	defer unix.Close(back)
	if err := unix.Fchdir(fd); err != nil {
		return err
	}
	err = unix.Unmount(".", unix.MNT_DETACH)
	if cerr := unix.Fchdir(back); err == nil {
		err = cerr
	}
	return err
}

// AttachOverlay mounts a container's root on a directory of this mount namespace, for runtimes that want it to be there.
func AttachOverlay(o *spec.RootfsOverlay, label, path string) error {
	tree, err := MountOverlay(o, label)
	if err != nil {
		return err
	}
	return attachAt(tree, path)
}

// AttachSubpath mounts the part of a mount's source that its subpath names on a path that it makes, a directory or a file
// as the part is. The calling thread's working directory is its own.
func AttachSubpath(m *specs.Mount, sub, path string) error {
	o := parseOptions(m.Options)
	o.subpath = sub
	var part int
	var err error
	if m.Type == "bind" || o.bind {
		part, err = bindSource(m.Source, o)
	} else {
		part, err = fsPart(m, o, path)
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err = unix.Fstat(part, &st); err == nil {
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			err = os.MkdirAll(path, 0o700)
		} else {
			err = os.Remove(path)
			if err == nil || os.IsNotExist(err) {
				err = os.WriteFile(path, nil, 0o600)
			}
		}
	}
	if err != nil {
		unix.Close(part)
		return err
	}
	return attachAt(part, path)
}

// fsPart mounts a file system on path, and gives a part of it.
func fsPart(m *specs.Mount, o mountOptions, path string) (int, error) {
	tree, err := newFS(m.Type, m.Source, o.data, o.set)
	if err != nil {
		return -1, err
	}
	defer unix.Close(tree)
	if err := os.Mkdir(path, 0o700); err != nil {
		return -1, err
	}
	dest, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dest)
	return narrow(tree, dest, o.subpath)
}

func attachAt(tree int, path string) error {
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach at %s: %w", path, err)
	}
	return nil
}
