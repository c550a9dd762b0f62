package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/containerd/v2/pkg/archive/tarheader"
	"golang.org/x/sys/unix"
)

// Diff writes the archive of an overlay's upper directory: what a container added and changed, deletions as whiteouts.
// The directory may be in use; a file that shrinks meanwhile is padded with zeros, one that vanishes is left out.
// Entries are in order of their names. Sockets are left out, as no archive can hold them.
func Diff(ctx context.Context, w io.Writer, upper string) error {
	d := &differ{tw: tar.NewWriter(w), root: upper, links: map[[2]uint64]string{}}
	err := filepath.WalkDir(upper, func(path string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if os.IsNotExist(err) && path != upper {
				return nil
			}
			return err
		}
		if path == upper {
			return nil
		}
		return d.add(path)
	})
	if err != nil {
		return fmt.Errorf("archive of %s: %w", upper, err)
	}
	return d.tw.Close()
}

type differ struct {
	tw    *tar.Writer
	root  string
	links map[[2]uint64]string // device and inode → first name
}

func (d *differ) add(path string) error {
	info, err := os.Lstat(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	name, err := filepath.Rel(d.root, path)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	switch {
	case info.Mode()&os.ModeSocket != 0:
		return nil
	case info.Mode()&os.ModeCharDevice != 0 && st.Rdev == 0:
		dir, base := filepath.Split(name)
		return d.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: dir + whiteoutPrefix + base, ModTime: unixEpoch, Format: tar.FormatPAX})
	}
	link := ""
	if info.Mode()&os.ModeSymlink != 0 {
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	}
	h, err := tarheader.FileInfoHeaderNoLookups(info, link)
	if err != nil {
		return err
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
		return err
	}
	if err := d.tw.WriteHeader(h); err != nil {
		return err
	}
	if opaque {
		return d.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: h.Name + whiteoutOpaque, ModTime: unixEpoch, Format: tar.FormatPAX})
	}
	if h.Typeflag != tar.TypeReg || h.Size == 0 {
		return nil
	}
	return d.body(path, h.Size)
}

func (d *differ) body(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil && !os.IsNotExist(err) {
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
