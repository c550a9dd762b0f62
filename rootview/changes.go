package rootview

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/openat"
	"github.com/shoalhq/shoal/model"
)

// Changes lists what the writable layer has that the image has not, sorted by path, as `docker diff` does.
func (FS) Changes(ctx context.Context, dirs model.OverlayDirs) ([]model.Change, error) {
	var changes []model.Change
	err := openat.Walk(dirs.Upper, func(name string, at int, base string, st *unix.Stat_t) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		rel := "/" + name
		if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			changes = append(changes, model.Change{Path: rel, Kind: model.ChangeDeleted})
			return nil
		}
		kind := model.ChangeAdded
		if inLayers(dirs.Lower, rel) {
			kind = model.ChangeModified
		}
		changes = append(changes, model.Change{Path: rel, Kind: kind})
		if st.Mode&unix.S_IFMT == unix.S_IFDIR && kind == model.ChangeModified && opaqueAt(at, base) {
			changes = append(changes, hidden(dirs, rel)...)
		}
		return nil
	})
	slices.SortFunc(changes, func(a, b model.Change) int { return strings.Compare(a.Path, b.Path) })
	return changes, err
}

// inLayers says whether the merged lower layers show rel.
func inLayers(lower []string, rel string) bool {
	for _, l := range lower {
		switch inLayer(l, rel) {
		case shown:
			return true
		case removed:
			return false
		}
	}
	return false
}

type verdict int

const (
	silent  verdict = iota // the layer says nothing of it
	shown                  // the layer has it
	removed                // the layer hides what those below have
)

// inLayer goes down the path, since a whiteout or an opaque directory on the way decides as well, and so does a link or a file
// where the upper layer has a directory by now: that link would lead to the host's files.
func inLayer(layer, rel string) verdict {
	at := layer
	for part := range strings.SplitSeq(strings.Trim(rel, "/"), "/") {
		if at != layer && !plainDir(at) {
			return removed
		}
		hides := at != layer && opaquePath(at)
		at = filepath.Join(at, part)
		var st unix.Stat_t
		if unix.Lstat(at, &st) != nil {
			if hides {
				return removed
			}
			return silent
		}
		if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			return removed
		}
	}
	return shown
}

// plainDir says whether a path ends at a directory, not at a link to one.
func plainDir(p string) bool {
	var st unix.Stat_t
	return unix.Lstat(p, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

func opaquePath(p string) bool { return opaqueAt(unix.AT_FDCWD, p) }

func opaqueAt(dir int, name string) bool {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return opaque(fd)
}

// hidden lists the names of the lower directory rel that an opaque upper directory hides and does not have itself.
func hidden(dirs model.OverlayDirs, rel string) (gone []model.Change) {
	seen := map[string]bool{}
	for _, l := range dirs.Lower {
		if inLayer(l, rel) != shown || !plainDir(filepath.Join(l, rel)) {
			continue
		}
		es, err := os.ReadDir(filepath.Join(l, rel))
		if err != nil {
			continue
		}
		for _, e := range es {
			name := filepath.Join(rel, e.Name())
			if seen[name] || !inLayers(dirs.Lower, name) {
				continue
			}
			seen[name] = true
			if _, err := os.Lstat(filepath.Join(dirs.Upper, name)); os.IsNotExist(err) {
				gone = append(gone, model.Change{Path: name, Kind: model.ChangeDeleted})
			}
		}
	}
	return gone
}

// Size is the disk use in bytes of the writable layer and, when asked for, of the whole root filesystem.
func (FS) Size(ctx context.Context, dirs model.OverlayDirs, rootfs bool) (model.ContainerSize, error) {
	var s model.ContainerSize
	var err error
	if s.Writable, err = treeSize(ctx, dirs.Upper); err != nil || !rootfs {
		return s, err
	}
	s.RootFS = s.Writable
	for _, l := range dirs.Lower {
		n, err := layerSize(ctx, l)
		if err != nil {
			return s, err
		}
		s.RootFS += n
	}
	return s, nil
}

// layerSizes remembers sizes of layers, which never change.
var layerSizes sync.Map // directory → int64

func layerSize(ctx context.Context, dir string) (int64, error) {
	if n, ok := layerSizes.Load(dir); ok {
		return n.(int64), nil
	}
	n, err := treeSize(ctx, dir)
	if err == nil {
		layerSizes.Store(dir, n)
	}
	return n, err
}

// treeSize adds up the sizes of files, each inode once.
func treeSize(ctx context.Context, dir string) (total int64, err error) {
	if dir == "" {
		return 0, nil
	}
	seen := map[uint64]bool{}
	err = openat.Walk(dir, func(_ string, _ int, _ string, st *unix.Stat_t) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR || st.Nlink > 1 && seen[st.Ino] {
			return nil
		}
		seen[st.Ino] = true
		total += st.Size
		return nil
	})
	if os.IsNotExist(err) { // the container is gone meanwhile
		err = nil
	}
	return total, err
}

// SharedMemory mounts a tmpfs of size bytes on dir, for containers that share their /dev/shm; with size 0 it unmounts it.
func (FS) SharedMemory(dir string, size int64) error {
	if size == 0 {
		err := unix.Unmount(dir, unix.MNT_DETACH)
		if err == unix.EINVAL || err == unix.ENOENT {
			return nil // not mounted
		}
		return err
	}
	return os.NewSyscallError("mount shm on "+dir, unix.Mount("shm", dir, "tmpfs",
		unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size="+itoa(int(size))))
}
