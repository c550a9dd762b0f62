package rootview

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/osthread"
	"github.com/shoalhq/shoal/lib/userns"
)

func itoa(n int) string { return strconv.Itoa(n) }

// CopyOptions are the choices of CopyTo.
type CopyOptions struct {
	NoOverwriteDirNonDir bool       // a directory may not take the place of something else, nor the other way
	Owner                *[2]uint32 // user and group that everything gets; nil keeps the archive's
	ReadOnlyRoot         bool
}

// CopyTo unpacks a tar archive into an existing directory of the container.
func (FS) CopyTo(ctx context.Context, v View, dir string, archive io.Reader, o CopyOptions) error {
	r, err := open(ctx, v, true)
	if err != nil {
		return err
	}
	defer r.Close()
	abs, _ := clean(dir)
	f, err := r.openAt(abs, unix.O_RDONLY|unix.O_DIRECTORY, true)
	if err != nil {
		if errors.Is(err, unix.ENOTDIR) {
			return errs.New(errs.Invalid, "extraction point is not a directory: %s in container", abs)
		}
		return err
	}
	defer f.Close()
	if o.ReadOnlyRoot && r.sameMountAsRoot(f) {
		return errs.New(errs.Forbidden, "container rootfs is marked read-only: copy into one of its volumes, or create it without --read-only")
	}
	if unix.Faccessat(int(f.Fd()), ".", unix.W_OK, unix.AT_EACCESS) == unix.EROFS {
		return errs.New(errs.Forbidden, "mounted volume is marked read-only: %s in container", abs)
	}
	x := &extractor{root: r, dir: abs, o: o}
	if r.ids == nil {
		return x.run(ctx, archive)
	}
	osthread.Run(func() {
		if err = userns.ActAs(r.ids.Root()); err == nil {
			err = x.run(ctx, archive)
		}
	})
	return err
}

func (r *root) sameMountAsRoot(f *os.File) bool {
	a, err1 := mountID(int(r.fd.Fd()))
	b, err2 := mountID(int(f.Fd()))
	return err1 == nil && err2 == nil && a == b
}

func mountID(fd int) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st)
	return st.Mnt_id, err
}

type extractor struct {
	root *root
	dir  string // absolute in the container
	o    CopyOptions
	dirs []dirTime // set last: making entries changes a directory's time
}

type dirTime struct {
	name string
	h    *tar.Header
}

func (x *extractor) run(ctx context.Context, archive io.Reader) error {
	t := tar.NewReader(archive)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return errs.New(errs.Invalid, "the archive cannot be read: %w", err)
		}
		if x.o.Owner != nil {
			h.Uid, h.Gid = int(x.o.Owner[0]), int(x.o.Owner[1])
		}
		outside(x.root.ids, h)
		if err := x.entry(h, t); err != nil {
			return err
		}
	}
	for i := len(x.dirs) - 1; i >= 0; i-- {
		if f, err := x.root.openAt(x.dirs[i].name, unix.O_RDONLY|unix.O_DIRECTORY, false); err == nil {
			setTimes(int(f.Fd()), "", x.dirs[i].h)
			f.Close()
		}
	}
	return nil
}

func (x *extractor) entry(h *tar.Header, content io.Reader) error {
	rel := path.Clean("/" + h.Name)
	if rel == "/" {
		if h.Typeflag == tar.TypeDir {
			return nil // the directory itself is there
		}
		return errs.New(errs.Invalid, "the archive has an entry named %q", h.Name)
	}
	full := path.Join(x.dir, rel)
	parent, err := x.parent(path.Dir(full))
	if err != nil {
		return err
	}
	defer parent.Close()
	fd, name := int(parent.Fd()), path.Base(full)
	if err := x.makeRoom(fd, name, full, h); err != nil {
		return err
	}
	if err := x.make(fd, name, full, h, content); err != nil {
		return errs.Wrap(err, "copy %s into the container", full)
	}
	return nil
}

// parent opens the directory for an entry and makes it when the archive did not name it.
func (x *extractor) parent(dir string) (*os.File, error) {
	f, err := x.root.openAt(dir, unix.O_RDONLY|unix.O_DIRECTORY, true)
	if err == nil || !errors.Is(err, unix.ENOENT) || dir == "/" {
		return f, err
	}
	above, err := x.parent(path.Dir(dir))
	if err != nil {
		return nil, err
	}
	defer above.Close()
	if err := unix.Mkdirat(int(above.Fd()), path.Base(dir), 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &os.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	return x.root.openAt(dir, unix.O_RDONLY|unix.O_DIRECTORY, true)
}

// makeRoom removes what stands where the entry goes, unless both are directories.
func (x *extractor) makeRoom(fd int, name, full string, h *tar.Header) error {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil // nothing there; anything else shows when the entry is made
	}
	thereDir, newDir := st.Mode&unix.S_IFMT == unix.S_IFDIR, h.Typeflag == tar.TypeDir
	if x.o.NoOverwriteDirNonDir && thereDir != newDir {
		if thereDir {
			return errs.New(errs.Invalid, "cannot overwrite directory %q with non-directory %q", full, h.Name)
		}
		return errs.New(errs.Invalid, "cannot overwrite non-directory %q with directory %q", full, h.Name)
	}
	if thereDir && newDir {
		return nil
	}
	return errs.Wrap(removeAll(fd, name), "make room for %s", full)
}

// removeAll removes a name and what is below it, through descriptors only.
func removeAll(parent int, name string) error {
	err := unix.Unlinkat(parent, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(fd), name)
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeAll(fd, n); err != nil {
			return err
		}
	}
	return unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
}

func (x *extractor) make(fd int, name, full string, h *tar.Header, content io.Reader) error {
	mode := uint32(h.Mode) & 0o7777
	switch h.Typeflag {
	case tar.TypeDir:
		if err := unix.Mkdirat(fd, name, mode); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		x.dirs = append(x.dirs, dirTime{full, h})
	case tar.TypeReg:
		return writeFile(fd, name, mode, h, content)
	case tar.TypeSymlink:
		if err := unix.Symlinkat(h.Linkname, fd, name); err != nil {
			return err
		}
	case tar.TypeLink:
		return x.link(fd, name, h)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[h.Typeflag]
		if err := unix.Mknodat(fd, name, kind|mode, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))); err != nil {
			return err
		}
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return errs.New(errs.Invalid, "archive entries of type %q are not known", h.Typeflag)
	}
	return own(fd, name, mode, h)
}

// link makes a hard link to a file that the archive named before. The target is looked up in the container, never
// through a link at its end.
func (x *extractor) link(fd int, name string, h *tar.Header) error {
	f, err := x.root.openAt(path.Join(x.dir, path.Clean("/"+h.Linkname)), unix.O_PATH, false)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+itoa(int(f.Fd())), fd, name, unix.AT_SYMLINK_FOLLOW)
}

func writeFile(parent int, name string, mode uint32, h *tar.Header, content io.Reader) error {
	fd, err := unix.Openat(parent, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if _, err := io.Copy(f, content); err != nil {
		return err
	}
	if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return err
	}
	if c, ok := h.PAXRecords[paxXattr+xattrCapability]; ok {
		if err := unix.Fsetxattr(fd, xattrCapability, []byte(c), 0); err != nil {
			return err
		}
	}
	setTimes(fd, "", h)
	return f.Close()
}

// own sets owner, mode and time of what is no regular file.
func own(fd int, name string, mode uint32, h *tar.Header) error {
	if err := unix.Fchownat(fd, name, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeSymlink {
		// No fchmodat with AT_SYMLINK_NOFOLLOW on older kernels: go through the thing itself.
		at, err := unix.Openat(fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(at)
		var st unix.Stat_t
		if err := unix.Fstat(at, &st); err != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return err
		}
		if err := unix.Chmod("/proc/self/fd/"+itoa(at), mode); err != nil {
			return err
		}
	}
	setTimes(fd, name, h)
	return nil
}

// setTimes is for show: a file system that keeps no times is no error.
func setTimes(fd int, name string, h *tar.Header) {
	access := h.AccessTime
	if access.IsZero() || access.Before(time.Unix(0, 0)) {
		access = h.ModTime
	}
	ts := []unix.Timespec{unix.NsecToTimespec(access.UnixNano()), unix.NsecToTimespec(h.ModTime.UnixNano())}
	if name == "" {
		name = "/proc/self/fd/" + itoa(fd)
		unix.UtimesNanoAt(unix.AT_FDCWD, name, ts, 0)
		return
	}
	if !strings.Contains(name, "/") {
		unix.UtimesNanoAt(fd, name, ts, unix.AT_SYMLINK_NOFOLLOW)
	}
}
