// Package rootview reaches into a container's root filesystem, whether it runs or not: look at a path, copy trees in and
// out, list what changed, count the bytes. Every name is resolved by the kernel inside the container's root
// (openat2 with RESOLVE_IN_ROOT) and every step below it goes through directory descriptors, so that neither a link in an
// image nor a program that swaps names meanwhile leads out. It must not change what containers are or do.
package rootview

import (
	"context"
	"errors"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/openat"
	"github.com/shoalhq/shoal/lib/osthread"
	"github.com/shoalhq/shoal/lib/overlay"
	"github.com/shoalhq/shoal/model"
)

// View says how to see a container's files.
type View struct {
	Dirs   model.OverlayDirs
	Pid    int                // of the init process when it runs: its own view is used, with all its mounts
	Mounts []model.MountPoint // when it does not run: what to mount in addition, in order
}

// root is an open view. Its descriptors keep the mounts alive.
type root struct {
	fd   *os.File
	nsFD *os.File      // mount namespace made for the view; nil when none was
	ids  *model.IDMaps // which ids of the host are the container's; nil: they are the same
}

func (r *root) Close() {
	r.fd.Close()
	if r.nsFD != nil {
		r.nsFD.Close()
	}
}

// open gives the container's root directory. With write false the view of a container that does not run is read-only.
func open(ctx context.Context, v View, write bool) (*root, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if v.Pid != 0 {
		f, err := os.OpenFile("/proc/"+strconv.Itoa(v.Pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, errs.New(errs.Conflict, "look into the running container: %w", err)
		}
		ids, err := idsOf(v.Pid)
		if err != nil {
			f.Close()
			return nil, errs.New(errs.Conflict, "look into the running container: %w", err)
		}
		return &root{fd: f, ids: ids}, nil
	}
	dirs := overlay.Dirs{Lower: v.Dirs.Lower, Upper: v.Dirs.Upper, Work: v.Dirs.Work}
	if !write && v.Dirs.Upper != "" {
		dirs = overlay.Dirs{Lower: append([]string{v.Dirs.Upper}, v.Dirs.Lower...)}
	}
	mnt, err := overlay.Mount(dirs)
	if err != nil {
		return nil, errs.Wrap(err, "mount the container's files")
	}
	if len(v.Mounts) == 0 {
		return &root{fd: mnt}, nil
	}
	defer mnt.Close()
	r, err := withMounts(mnt, v.Mounts, write)
	if !write && errors.Is(err, errNoPlace) {
		return open(ctx, v, true) // never started: the places to mount on are to be made
	}
	return r, err
}

// errNoPlace says that a directory to mount on is not there, in a view that cannot make it.
var errNoPlace = errors.New("nothing to mount on")

// withMounts makes a mount namespace that holds the root and the container's mounts, which lives as long as the view.
func withMounts(mnt *os.File, mounts []model.MountPoint, write bool) (*root, error) {
	var r *root
	var err error
	osthread.Run(func() { r, err = assemble(mnt, mounts, write) })
	return r, err
}

func assemble(mnt *os.File, mounts []model.MountPoint, write bool) (*root, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return nil, os.NewSyscallError("unshare the mount namespace", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, os.NewSyscallError("make mounts private", err)
	}
	ns, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	r := &root{nsFD: os.NewFile(uintptr(ns), "mnt")}
	trees := cloneSources(mounts) // before the root covers a part of the host's tree
	defer closeAll(trees)
	// Any directory will do to hang the root on; /proc is always there.
	const place = "/proc"
	if err := unix.MoveMount(int(mnt.Fd()), "", unix.AT_FDCWD, place, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		r.nsFD.Close()
		return nil, os.NewSyscallError("attach the container's root", err)
	}
	fd, err := unix.Open(place, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		r.nsFD.Close()
		return nil, err
	}
	r.fd = os.NewFile(uintptr(fd), "root")
	for i, m := range mounts {
		if err := r.show(trees[i], m, write); err != nil {
			r.Close()
			return nil, err
		}
	}
	return r, nil
}

// cloneSources opens a copy of each mount's source; -1 for what cannot be shown: a tmpfs, which is empty while the
// container does not run, or a source that is gone.
func cloneSources(mounts []model.MountPoint) []int {
	trees := make([]int, len(mounts))
	for i, m := range mounts {
		trees[i] = -1
		if m.Source == "" {
			continue
		}
		if fd, err := cloneSource(&m); err == nil {
			trees[i] = fd
		}
	}
	return trees
}

const cloneFlags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE

// cloneSource opens a mount's source, or the part of it that the container sees, out of which nothing in it leads.
func cloneSource(m *model.MountPoint) (int, error) {
	sub := m.Subpath()
	if sub == "" {
		return unix.OpenTree(unix.AT_FDCWD, m.Source, cloneFlags)
	}
	top, err := unix.Open(m.Source, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(top)
	part, err := openat.Open(top, sub, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return -1, err
	}
	defer unix.Close(part)
	return unix.OpenTree(part, "", cloneFlags|unix.AT_EMPTY_PATH)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// show puts a mount at its destination. One that is not there is made, as the container's start would; where that cannot
// be, the mount is left out.
func (r *root) show(tree int, m model.MountPoint, write bool) error {
	if tree < 0 {
		return nil
	}
	at, err := r.openAt(m.Destination, unix.O_PATH, true)
	if errs.Is(err, errs.NotFound) {
		if !write {
			return errNoPlace
		}
		at, err = r.makePlace(m.Destination, tree)
	}
	if err != nil {
		return nil
	}
	defer at.Close()
	if !m.RW {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
			return os.NewSyscallError("make "+m.Destination+" read-only", err)
		}
	}
	err = unix.MoveMount(tree, "", int(at.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	return os.NewSyscallError("show "+m.Destination, err)
}

// makePlace makes what a mount goes on: the directories that are missing, and at the end a file if the mount is one.
func (r *root) makePlace(dest string, tree int) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return nil, err
	}
	names := strings.Split(strings.Trim(path.Clean(dest), "/"), "/")
	for i, name := range names {
		at := "/" + strings.Join(names[:i+1], "/")
		if f, err := r.openAt(at, unix.O_PATH, true); err == nil {
			f.Close()
			continue
		}
		parent, err := r.openAt(path.Dir(at), unix.O_PATH|unix.O_DIRECTORY, true)
		if err != nil {
			return nil, err
		}
		if i == len(names)-1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			err = unix.Mknodat(int(parent.Fd()), name, unix.S_IFREG|0o644, 0)
		} else {
			err = unix.Mkdirat(int(parent.Fd()), name, 0o755)
		}
		parent.Close()
		if err != nil {
			return nil, pathError(at, err)
		}
	}
	return r.openAt(dest, unix.O_PATH, true)
}

// openAt opens a path of the container. Links in the directories are followed inside the root; a link at the end is
// followed only with follow.
func (r *root) openAt(name string, flags int, follow bool) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if !follow {
		how.Flags |= unix.O_NOFOLLOW
	}
	rel := strings.TrimLeft(name, "/")
	if rel == "" {
		rel = "."
	}
	fd, err := openat.Open(int(r.fd.Fd()), rel, &how)
	if err != nil {
		return nil, pathError(name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func pathError(name string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return errs.New(errs.NotFound, "Could not find the file %s in container: %w", name, err)
	case errors.Is(err, unix.ENOTDIR):
		return errs.New(errs.Invalid, "%s in container: %w", name, err)
	case errors.Is(err, unix.ELOOP):
		return errs.New(errs.Invalid, "%s in container: too many links, or a link of /proc, which are not followed", name)
	}
	return &os.PathError{Op: "open", Path: name + " in container", Err: err}
}

// clean makes a path absolute and says whether it asked for a directory by its end ("/" or "/.").
func clean(p string) (abs string, wantDir bool) {
	wantDir = strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || p == "."
	return path.Clean("/" + p), wantDir
}
