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
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/lib/overlay"
)

// maxDepth bounds the depth of a tree that is copied: an image may nest as deep as it likes, a stack may not.
const maxDepth = 1024

// Fill copies what an image has at path into the volume, if the volume is empty, and gives the volume's directory that
// directory's owner and mode. An image that has no directory there changes nothing. The content appears at once: until
// the copy is whole the volume stays empty, whatever happens. lowers are the image's layers, top first; its symbolic
// links are followed within the image only.
func (v *Volumes) Fill(ctx context.Context, name string, lowers []string, path string) error {
	defer v.busy.Lock(name)()
	vol, err := v.get(name)
	if err != nil {
		return err
	}
	if len(vol.Options) > 0 || len(lowers) == 0 {
		return nil
	}
	if empty, err := isEmpty(vol.Mountpoint); err != nil || !empty {
		return errs.Wrap(err, "fill volume %s", name)
	}
	view, err := overlay.Mount(overlay.Dirs{Lower: lowers})
	if err != nil {
		return errs.Wrap(err, "fill volume %s: look into the image", name)
	}
	defer view.Close()
	how := &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(int(view.Fd()), strings.TrimLeft(filepath.Clean("/"+path), "/")+"/.", how)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return errs.Wrap(err, "fill volume %s: open %s in the image", name, path)
	}
	src := os.NewFile(uintptr(fd), path)
	defer src.Close()
	return errs.Wrap(v.fill(ctx, vol.Mountpoint, src), "fill volume %s from %s", name, path)
}

// fill copies into a new directory beside the volume's and puts it in its place.
func (v *Volumes) fill(ctx context.Context, data string, src *os.File) error {
	if old, _ := filepath.Glob(filepath.Join(filepath.Dir(data), halfMade+"*")); len(old) > 0 { // of a crash
		for _, dir := range old {
			os.RemoveAll(dir)
		}
	}
	fresh := filepath.Join(filepath.Dir(data), halfMade+ids.New())
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(fresh) // is gone by then if all went well
	dst, err := os.Open(fresh)
	if err != nil {
		return err
	}
	defer dst.Close()
	c := &copier{ctx: ctx, links: map[[2]uint64]string{}, root: int(dst.Fd())}
	if err := c.dir(int(src.Fd()), int(dst.Fd()), "", 0); err != nil {
		return err
	}
	if err := unix.Syncfs(int(dst.Fd())); err != nil {
		return err
	}
	if err := failpoint.Hit("volume/fill/rename"); err != nil {
		return err
	}
	return unix.Rename(fresh, data) // data is an empty directory: it is replaced
}

func isEmpty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, err := f.Readdirnames(1)
	if err == io.EOF {
		err = nil
	}
	return len(names) == 0, err
}

// copier copies a tree by descriptors: no path is ever resolved from the top, so nothing leads out.
type copier struct {
	ctx   context.Context
	links map[[2]uint64]string // device and inode of files with several names → name in the copy
	root  int                  // of the copy
}

// dir copies the content and then the attributes of a directory.
func (c *copier) dir(src, dst int, at string, depth int) error {
	if depth > maxDepth {
		return errs.New(errs.Invalid, "%s: more than %d directories deep", at, maxDepth)
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
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return err
	}
	if err := copyXattrs(src, dst); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	if err := unix.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	if err := unix.Fchmod(dst, st.Mode&0o7777); err != nil {
		return fmt.Errorf("%s: %w", at, err)
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
			return wrapAt(at, unix.Linkat(c.root, first, dst, name, 0))
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
		if kind == unix.S_IFCHR && st.Rdev == 0 {
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
		err = unix.Fchmodat(dst, name, st.Mode&0o7777, 0)
	}
	if err == nil {
		err = setTimes(dst, name, &st)
	}
	return wrapAt(at, err)
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
	fd, err := unix.Openat(src, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(fd), name)
	defer in.Close()
	fd, err = unix.Openat(dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(fd), name)
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil { // by copy_file_range where the kernel can
		return err
	}
	o := int(out.Fd())
	if err := unix.Fchown(o, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := copyXattrs(int(in.Fd()), o); err != nil { // after chown, which takes security.capability away
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

// copyXattrs copies what a filesystem can take; overlay's own are not content.
func copyXattrs(src, dst int) error {
	list := make([]byte, 65536)
	n, err := unix.Flistxattr(src, list)
	if err != nil || n == 0 {
		if errors.Is(err, unix.ENOTSUP) {
			err = nil
		}
		return err
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") || name == "security.selinux" {
			continue
		}
		value := make([]byte, 65536)
		n, err := unix.Fgetxattr(src, name, value)
		if err == nil {
			err = unix.Fsetxattr(dst, name, value[:n], 0)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("extended attribute %s: %w", name, err)
		}
	}
	return nil
}
