package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/openat"
)

// copier copies a tree by descriptors: no path is ever resolved from the top, so nothing leads out, whatever a container
// does to the tree meanwhile.
type copier struct {
	ctx      context.Context
	image    bool                 // the source is an image's layer: what only means something to overlay is no content
	upper    bool                 // the source is an overlay's directory of changes: see changeMark
	progress func(bytes int64)    // may be nil: content copied since the last call
	links    map[[2]uint64]string // device and inode of files with several names → name in the copy
	root     int                  // of the copy
}

// tree copies the content and the attributes of src to the empty directory dst.
func (c *copier) tree(src, dst *os.File) error {
	c.links, c.root = map[[2]uint64]string{}, int(dst.Fd())
	return c.dir(int(src.Fd()), c.root, "", 0)
}

// dir copies the content and then the attributes of a directory.
func (c *copier) dir(src, dst int, at string, depth int) error {
	if depth > openat.MaxDepth {
		return errs.New(errs.Invalid, "%s: more than %d directories deep", at, openat.MaxDepth)
	}
	if err := c.ctx.Err(); err != nil {
		return err
	}
	names, err := readNames(src)
	if err != nil {
		return fmt.Errorf("read %s: %w", at, err)
	}
	for _, name := range names {
		if err := c.entry(src, dst, name, filepath.Join(at, name), depth); err != nil {
			return err
		}
	}
	return wrapAt(at, c.directory(src, dst))
}

// directory copies a directory's own attributes.
func (c *copier) directory(src, dst int) error {
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return err
	}
	if err := c.xattrs(src, dst); err != nil {
		return err
	}
	if err := unix.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(dst, st.Mode&0o7777); err != nil {
		return err
	}
	return setTimes(dst, "", &st)
}

func readNames(dir int) ([]string, error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), ".")
	defer f.Close()
	return f.Readdirnames(-1)
}

func (c *copier) entry(src, dst int, name, at string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(src, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		id := [2]uint64{uint64(st.Dev), st.Ino}
		if first, ok := c.links[id]; ok {
			return wrapAt(at, c.link(first, dst, name))
		}
		c.links[id] = at
	}
	var err error
	switch kind {
	case unix.S_IFDIR:
		return c.subdir(src, dst, name, at, depth)
	case unix.S_IFREG:
		return wrapAt(at, c.file(src, dst, name, &st))
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		var n int
		if n, err = unix.Readlinkat(src, name, target); err == nil {
			err = unix.Symlinkat(string(target[:n]), dst, name)
		}
	case unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO:
		if c.image && kind == unix.S_IFCHR && st.Rdev == 0 {
			return nil // a whiteout, when there is one layer only and so no merging
		}
		err = unix.Mknodat(dst, name, st.Mode, int(st.Rdev))
	default:
		return nil // a socket means nothing without its program
	}
	if err == nil {
		err = unix.Fchownat(dst, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil && kind != unix.S_IFLNK {
		err = chmod(dst, name, st.Mode)
	}
	if err == nil {
		err = setTimes(dst, name, &st)
	}
	return wrapAt(at, err)
}

// link makes a further name of a file of the copy. A container that has the copy already may have put a link in the place of a
// directory on the way there.
func (c *copier) link(first string, dst int, name string) error {
	dir, err := openat.Open(c.root, filepath.Dir(first), &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: beneath})
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.Linkat(dir, filepath.Base(first), dst, name, 0)
}

// chmod changes the mode of what has the name now, unless that is a link by now: fchmodat(2) would follow it.
func chmod(dir int, name string, mode uint32) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.ELOOP
	}
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode&0o7777)
}

func wrapAt(at string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", at, err)
}

func (c *copier) subdir(src, dst int, name, at string, depth int) error {
	in, err := unix.Openat(src, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return wrapAt(at, err)
	}
	defer unix.Close(in)
	if err := unix.Mkdirat(dst, name, 0o700); err != nil {
		return wrapAt(at, err)
	}
	out, err := unix.Openat(dst, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return wrapAt(at, err)
	}
	defer unix.Close(out)
	return c.dir(in, out, at, depth+1)
}

func (c *copier) file(src, dst int, name string, st *unix.Stat_t) error {
	in, err := openRegular(src, name)
	if err != nil {
		return err
	}
	defer in.Close()
	fd, err := unix.Openat(dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(fd), name)
	defer out.Close()
	if err := c.content(in, out, st.Size); err != nil {
		return err
	}
	o := int(out.Fd())
	if err := unix.Fchown(o, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := c.xattrs(int(in.Fd()), o); err != nil { // after chown, which takes security.capability away
		return err
	}
	if err := unix.Fchmod(o, st.Mode&0o7777); err != nil {
		return err
	}
	return setTimes(o, "", st)
}

// setTimes sets the times of dir/name, or of the descriptor itself when name is "".
func setTimes(dir int, name string, st *unix.Stat_t) error {
	times := []unix.Timespec{st.Atim, st.Mtim}
	if name == "" {
		name = fmt.Sprintf("/proc/self/fd/%d", dir)
		return unix.UtimesNanoAt(unix.AT_FDCWD, name, times, 0)
	}
	return unix.UtimesNanoAt(dir, name, times, unix.AT_SYMLINK_NOFOLLOW)
}

// openRegular opens a regular file to read.
func openRegular(dir int, name string) (*os.File, error) {
	f, err := openat.Regular(dir, name)
	if err == openat.ErrNotRegular {
		return nil, errs.New(errs.Conflict, "it was a file and is something else now; pause the containers that change it (--pause)")
	}
	return f, err
}

// content copies what is in a file and leaves out its holes.
func (c *copier) content(in, out *os.File, size int64) error {
	if err := out.Truncate(size); err != nil {
		return err
	}
	return eachData(in, size, func(at, length int64) error {
		if _, err := in.Seek(at, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(at, io.SeekStart); err != nil {
			return err
		}
		for length > 0 {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			n, err := io.Copy(out, io.LimitReader(in, min(length, copyStep))) // by copy_file_range where the kernel can
			if err != nil {
				return err
			}
			if n == 0 {
				return nil // it became shorter meanwhile
			}
			if c.progress != nil {
				c.progress(n)
			}
			length -= n
		}
		return nil
	})
}

// copyStep is how much is copied between two looks at whether anybody still wants it.
const copyStep = 16 << 20

// eachData calls f for the parts of a file that are no holes, in order.
func eachData(in *os.File, size int64, f func(at, length int64) error) error {
	for at := int64(0); at < size; {
		from, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if err == unix.ENXIO { // nothing but a hole up to the end
			return nil
		}
		to := size
		if err != nil { // a filesystem that does not know
			from = at
		} else if end, err := unix.Seek(int(in.Fd()), from, unix.SEEK_HOLE); err == nil {
			to = min(end, size)
		}
		if from >= size || to <= from {
			return nil
		}
		if err := f(from, to-from); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// xattrs copies what a filesystem can take.
func (c *copier) xattrs(src, dst int) error {
	return eachXattr(src, func(name string, value []byte) error {
		if c.image && (strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")) {
			return nil
		}
		if c.upper {
			if keep, err := changeMark(name); !keep || err != nil {
				return err
			}
		}
		return setXattr(dst, name, value)
	})
}

// xattrMax is the kernel's limit of a value and of the list of names (XATTR_SIZE_MAX, XATTR_LIST_MAX).
const xattrMax = 65536

// eachXattr calls f for the extended attributes of a file; labels of SELinux belong to the place, not to the content.
func eachXattr(fd int, f func(name string, value []byte) error) error {
	list := make([]byte, 1024)
	n, err := unix.Flistxattr(fd, list)
	if err == unix.ERANGE {
		list = make([]byte, xattrMax)
		n, err = unix.Flistxattr(fd, list)
	}
	if err != nil || n == 0 {
		if errors.Is(err, unix.ENOTSUP) {
			err = nil
		}
		return err
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if name == "security.selinux" {
			continue
		}
		value := make([]byte, xattrMax)
		n, err := unix.Fgetxattr(fd, name, value)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue // gone meanwhile
		}
		if err == nil {
			err = f(name, value[:n])
		}
		if err != nil {
			return fmt.Errorf("extended attribute %s: %w", name, err)
		}
	}
	return nil
}

func setXattr(fd int, name string, value []byte) error {
	if err := unix.Fsetxattr(fd, name, value, 0); !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}
