package rootview

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/openat"
	"github.com/shoalhq/shoal/model"
)

// CopyFrom gives a tar archive of a path: of a directory its whole tree under the directory's own name, otherwise the one
// entry. The reader must be closed; it reports what went wrong on the way.
func (FS) CopyFrom(ctx context.Context, v View, p string) (io.ReadCloser, model.PathStat, error) {
	r, err := open(ctx, v, false)
	if err != nil {
		return nil, model.PathStat{}, err
	}
	st, f, err := r.stat(p)
	if err != nil {
		r.Close()
		return nil, st, err
	}
	pr, pw := io.Pipe()
	go func() {
		defer r.Close()
		defer f.Close()
		pw.CloseWithError(writeTree(ctx, pw, f, st.Name, r.ids))
	}()
	return pr, st, nil
}

// Export writes the whole root filesystem as a tar archive, names relative to the root.
func (FS) Export(ctx context.Context, v View, w io.Writer) error {
	r, err := open(ctx, v, false)
	if err != nil {
		return err
	}
	defer r.Close()
	return writeTree(ctx, w, r.fd, "", r.ids)
}

// writeTree writes what at (an O_PATH descriptor) is, under the name; an empty name writes only a directory's content.
func writeTree(ctx context.Context, w io.Writer, at *os.File, name string, ids *model.IDMaps) error {
	t := &treeWriter{ctx: ctx, ids: ids, tar: tar.NewWriter(w), links: map[[2]uint64]string{}}
	var st unix.Stat_t
	if err := unix.Fstat(int(at.Fd()), &st); err != nil {
		return err
	}
	t.dev = st.Dev
	var err error
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = t.dir(int(at.Fd()), ".", name, &st)
	} else {
		err = t.reopened(int(at.Fd()), name, &st)
	}
	if err != nil {
		return err
	}
	return t.tar.Close()
}

type treeWriter struct {
	ctx   context.Context
	ids   *model.IDMaps
	tar   *tar.Writer
	links map[[2]uint64]string // device and inode of files with several names → the first name written
	dev   uint64
}

// dir writes the directory that entry is in the directory descriptor parent, and what is in it.
func (t *treeWriter) dir(parent int, entry, name string, st *unix.Stat_t) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	if strings.Count(name, "/") > openat.MaxDepth {
		return errs.New(errs.Invalid, "%s...: more than %d directories deep", name[:100], openat.MaxDepth)
	}
	fd, err := unix.Openat(parent, entry, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // removed meanwhile
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if name != "" {
		h := t.header(st, strings.TrimRight(name, "/")+"/", tar.TypeDir)
		h.PAXRecords = capability(fd)
		if err := t.tar.WriteHeader(h); err != nil {
			return err
		}
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		if err := t.entry(fd, n, below(name, n)); err != nil {
			return err
		}
	}
	return nil
}

// below joins names as Docker does: what is in "." is "./name".
func below(dir, name string) string {
	if dir == "" || strings.HasSuffix(dir, "/") {
		return dir + name
	}
	return dir + "/" + name
}

// entry writes one name of the directory fd.
func (t *treeWriter) entry(fd int, entry, name string) error {
	var st unix.Stat_t
	err := unix.Fstatat(fd, entry, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return t.dir(fd, entry, name, &st)
	case unix.S_IFREG:
		if t.linked(&st, name) {
			return t.hardLink(&st, name)
		}
		file, err := openat.Regular(fd, entry)
		if errors.Is(err, unix.ENOENT) || err == openat.ErrNotRegular {
			return nil // removed or replaced meanwhile
		}
		if err != nil {
			return &os.PathError{Op: "open", Path: name, Err: err}
		}
		return t.file(file, name)
	case unix.S_IFLNK:
		var buf [unix.PathMax]byte
		n, err := unix.Readlinkat(fd, entry, buf[:])
		if err != nil {
			return &os.PathError{Op: "readlink", Path: name, Err: err}
		}
		h := t.header(&st, name, tar.TypeSymlink)
		h.Linkname = string(buf[:n])
		return t.tar.WriteHeader(h)
	}
	return t.special(&st, name)
}

// reopened writes the single thing that an O_PATH descriptor is.
func (t *treeWriter) reopened(at int, name string, st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		// The descriptor's own entry in /proc leads to the very file, whatever has its name now.
		file, err := openat.Reopen(at, name)
		if err != nil {
			return &os.PathError{Op: "open", Path: name, Err: err}
		}
		return t.file(file, name)
	case unix.S_IFLNK:
		var buf [unix.PathMax]byte
		n, err := unix.Readlinkat(at, "", buf[:])
		if err != nil {
			return &os.PathError{Op: "readlink", Path: name, Err: err}
		}
		h := t.header(st, name, tar.TypeSymlink)
		h.Linkname = string(buf[:n])
		return t.tar.WriteHeader(h)
	}
	return t.special(st, name)
}

// file writes an open regular file and closes it. A file that shrinks meanwhile is filled with zeros, one that grows is
// cut at the size that the header told.
func (t *treeWriter) file(f *os.File, name string) error {
	defer f.Close()
	fd := int(f.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	h := t.header(&st, name, tar.TypeReg)
	h.Size = st.Size
	h.PAXRecords = capability(fd)
	if err := t.tar.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(t.tar, io.LimitReader(f, st.Size))
	if err != nil {
		return err
	}
	if n < st.Size {
		_, err = io.CopyN(t.tar, zeros{}, st.Size-n)
	}
	return err
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func (t *treeWriter) linked(st *unix.Stat_t, name string) bool {
	if st.Nlink < 2 {
		return false
	}
	key := [2]uint64{st.Dev, st.Ino}
	if _, seen := t.links[key]; seen {
		return true
	}
	t.links[key] = name
	return false
}

func (t *treeWriter) hardLink(st *unix.Stat_t, name string) error {
	h := t.header(st, name, tar.TypeLink)
	h.Linkname = t.links[[2]uint64{st.Dev, st.Ino}]
	return t.tar.WriteHeader(h)
}

// special writes devices and pipes; sockets have no place in an archive.
func (t *treeWriter) special(st *unix.Stat_t, name string) error {
	kind, ok := map[uint32]byte{unix.S_IFCHR: tar.TypeChar, unix.S_IFBLK: tar.TypeBlock, unix.S_IFIFO: tar.TypeFifo}[st.Mode&unix.S_IFMT]
	if !ok {
		return nil
	}
	h := t.header(st, name, kind)
	if kind != tar.TypeFifo {
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	return t.tar.WriteHeader(h)
}

func (t *treeWriter) header(st *unix.Stat_t, name string, kind byte) *tar.Header {
	h := &tar.Header{Typeflag: kind, Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX}
	inside(t.ids, h)
	return h
}

// capability is the file's capabilities, the one extended attribute that copies keep.
func capability(fd int) map[string]string {
	var b [64]byte
	n, err := unix.Fgetxattr(fd, xattrCapability, b[:])
	if err != nil || n <= 0 {
		return nil
	}
	return map[string]string{paxXattr + xattrCapability: string(b[:n])}
}

const (
	xattrCapability = "security.capability"
	paxXattr        = "SCHILY.xattr."
)
