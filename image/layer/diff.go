package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/containerd/containerd/v2/pkg/archive/tarheader"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/openat"
)

// Diff writes the archive of an overlay's upper directory: what a container added and changed, deletions as whiteouts.
// The directory may be in use; a file that shrinks meanwhile is padded with zeros, one that vanishes is left out.
// Entries are in order of their names. Sockets are left out, as no archive can hold them.
// It goes by descriptors: a container that exchanges a directory for a link meanwhile does not lead out.
func Diff(ctx context.Context, w io.Writer, upper string) error {
	d := &differ{ctx: ctx, tw: tar.NewWriter(w), links: map[[2]uint64]string{}}
	top, err := os.Open(upper)
	if err == nil {
		err = d.dir(top, "", 0)
	}
	if err != nil {
		return fmt.Errorf("archive of %s: %w", upper, err)
	}
	return d.tw.Close()
}

type differ struct {
	ctx   context.Context
	tw    *tar.Writer
	links map[[2]uint64]string // device and inode → first name
}

// dir adds what is in a directory, and closes it.
func (d *differ) dir(f *os.File, at string, depth int) error {
	defer f.Close()
	if depth > openat.MaxDepth {
		return errs.New(errs.Invalid, "more than %d directories deep", openat.MaxDepth)
	}
	if err := d.ctx.Err(); err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, base := range names {
		name := path.Join(at, base)
		isDir, err := d.add(f, base, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if !isDir {
			continue
		}
		fd, err := unix.Openat(int(f.Fd()), base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		switch {
		case err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP: // not any more
			continue
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := d.dir(os.NewFile(uintptr(fd), name), name, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// add writes what has a name in a directory, and says whether that is a directory.
func (d *differ) add(dir *os.File, base, name string) (isDir bool, err error) {
	path := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), base)
	info, err := os.Lstat(path)
	if os.IsNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	st := info.Sys().(*syscall.Stat_t)
	switch {
	case info.Mode()&os.ModeSocket != 0:
		return false, nil
	case info.Mode()&os.ModeCharDevice != 0 && st.Rdev == 0:
		dir, base := filepath.Split(name)
		return false, d.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: dir + whiteoutPrefix + base, ModTime: unixEpoch, Format: tar.FormatPAX})
	}
	link := ""
	if info.Mode()&os.ModeSymlink != 0 {
		if link, err = os.Readlink(path); err != nil {
			return false, err
		}
	}
	h, err := tarheader.FileInfoHeaderNoLookups(info, link)
	if err != nil {
		return false, err
	}
	h.Name, h.Format = name, tar.FormatPAX
	h.AccessTime, h.ChangeTime = zeroTime, zeroTime
	if info.Mode()&os.ModeDevice != 0 {
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
	}
	if info.IsDir() {
		h.Name += "/"
	} else if st.Nlink > 1 {
		id := [2]uint64{uint64(st.Dev), st.Ino}
		if first, ok := d.links[id]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else {
			d.links[id] = name
		}
	}
	opaque, err := xattrs(path, h)
	if err != nil {
		return false, err
	}
	if err := d.tw.WriteHeader(h); err != nil {
		return false, err
	}
	if opaque {
		return true, d.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: h.Name + whiteoutOpaque, ModTime: unixEpoch, Format: tar.FormatPAX})
	}
	if h.Typeflag != tar.TypeReg || h.Size == 0 {
		return info.IsDir(), nil
	}
	return false, d.body(dir, base, h.Size)
}

func (d *differ) body(dir *os.File, base string, size int64) error {
	f, err := openat.Regular(int(dir.Fd()), base)
	if err != nil && err != unix.ENOENT && err != openat.ErrNotRegular { // or gone, or replaced meanwhile
		return err
	}
	var n int64
	if err == nil {
		n, err = io.Copy(d.tw, io.LimitReader(f, size))
		f.Close()
		if err != nil {
			return err
		}
	}
	_, err = io.CopyN(d.tw, zeros{}, size-n)
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// xattrs adds the file's extended attributes, except overlay's own and the host's security labels, and says whether the
// directory is opaque.
func xattrs(path string, h *tar.Header) (opaque bool, err error) {
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(path, list)
	if err == unix.ERANGE {
		list = make([]byte, 65536)
		n, err = unix.Llistxattr(path, list)
	}
	if err == unix.ENOTSUP || err == unix.ENOENT || n == 0 {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("extended attributes of %s: %w", path, err)
	}
	for _, name := range splitNull(list[:n]) {
		if !wanted(name) && name != opaqueXattr && name != "user.overlay.opaque" {
			continue
		}
		value := make([]byte, 65536)
		size, err := unix.Lgetxattr(path, name, value)
		if err == unix.ENODATA || err == unix.ENOENT {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("extended attribute %s of %s: %w", name, path, err)
		}
		if !wanted(name) {
			opaque = opaque || string(value[:size]) == "y"
			continue
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+name] = string(value[:size])
	}
	return opaque, nil
}
