package volume

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/openat"
)

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// extractor unpacks a tar archive that nobody vouches for into an empty directory: no name leads out of it, and no link in
// it is followed.
type extractor struct {
	ctx  context.Context
	root int
	dirs []*tar.Header // get their attributes at the end, when nothing is put into them any more

	parent     int    // descriptor of the directory that the last entry went to, or -1
	parentName string // and its name
}

// readArchive unpacks r, which may be packed with gzip or zstd, into dst.
func readArchive(ctx context.Context, r io.Reader, dst *os.File) error {
	plain, done, err := decompress(bufio.NewReaderSize(r, 1<<20))
	if err != nil {
		return err
	}
	defer done()
	x := &extractor{ctx: ctx, root: int(dst.Fd()), parent: -1}
	defer x.closeParent()
	end := &endReader{r: plain}
	tr := tar.NewReader(end)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			if end.zeros < blockSize { // archive/tar takes any end between two entries for the end
				return errs.New(errs.Invalid, "the archive breaks off after %d entries: the blocks that end a tar archive are missing", n)
			}
			return x.finish()
		}
		if err != nil {
			return badArchive(n, err)
		}
		if err := x.entry(h, tr); err != nil {
			return wrapAt(fmt.Sprintf("%q in the archive", h.Name), err)
		}
	}
}

// endReader counts the zero bytes at the end of what was read.
type endReader struct {
	r     io.Reader
	zeros int
}

func (e *endReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	content := len(bytes.TrimRight(p[:n], "\x00"))
	if content > 0 {
		e.zeros = 0
	}
	e.zeros += n - content
	return n, err
}

func badArchive(n int, err error) error {
	switch {
	case n == 0 && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrHeader)):
		return errs.New(errs.Invalid, "this is no tar archive: %w", err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errs.New(errs.Invalid, "the archive breaks off after %d entries: %w", n, err)
	case errors.Is(err, tar.ErrHeader):
		return errs.New(errs.Invalid, "after %d entries the tar archive is damaged: %w", n, err)
	}
	return err
}

// decompress finds out how the archive is packed.
func decompress(r *bufio.Reader) (io.Reader, func(), error) {
	magic, err := r.Peek(4)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		return z, func() {}, errs.As(errs.Invalid, err)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(256<<20), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, nil, errs.As(errs.Invalid, err)
		}
		return z, z.Close, nil
	}
	return r, func() {}, nil
}

func (x *extractor) entry(h *tar.Header, content io.Reader) error {
	name, err := inside(h.Name)
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if name == "." {
		if h.Typeflag != tar.TypeDir {
			return errs.New(errs.Invalid, "the volume itself must be a directory")
		}
		x.dirs = append(x.dirs, h)
		return nil
	}
	dir, err := x.open(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	if h.Typeflag == tar.TypeDir {
		x.dirs = append(x.dirs, h)
		if err := unix.Mkdirat(dir, base, 0o700); err != unix.EEXIST {
			return err
		}
		return x.isDir(dir, base)
	}
	if err := unix.Unlinkat(dir, base, 0); err != nil && err != unix.ENOENT { // a later entry of the same name counts
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return x.file(dir, base, h, content)
	case tar.TypeLink:
		return x.link(dir, base, h.Linkname)
	case tar.TypeSymlink:
		if err := unix.Symlinkat(h.Linkname, dir, base); err != nil {
			return err
		}
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[h.Typeflag]
		if err := unix.Mknodat(dir, base, kind|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))); err != nil {
			return err
		}
	default:
		return errs.New(errs.Invalid, "an entry of type %q is nothing that a volume can hold", h.Typeflag)
	}
	return attributes(dir, base, h)
}

// attributes gives something that is neither file nor directory its owner, mode and time. Nobody else can reach it yet.
func attributes(dir int, name string, h *tar.Header) error {
	if err := unix.Fchownat(dir, name, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Fchmodat(dir, name, uint32(h.Mode)&0o7777, 0); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(dir, name, times(h), unix.AT_SYMLINK_NOFOLLOW)
}

func times(h *tar.Header) []unix.Timespec {
	at := func(t time.Time) unix.Timespec {
		ts, err := unix.TimeToTimespec(t)
		if err != nil {
			return unix.Timespec{}
		}
		return ts
	}
	accessed := h.AccessTime
	if accessed.IsZero() {
		accessed = h.ModTime
	}
	return []unix.Timespec{at(accessed), at(h.ModTime)}
}

// attributesOf does the same for an open file or directory.
func attributesOf(fd int, h *tar.Header) error {
	if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
		return err
	}
	for _, key := range sortedKeys(h.PAXRecords) {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok {
			continue
		}
		if err := setXattr(fd, xattrName.Replace(name), []byte(h.PAXRecords[key])); err != nil { // after chown, which takes security.capability away
			return fmt.Errorf("extended attribute %s: %w", name, err)
		}
	}
	if err := unix.Fchmod(fd, uint32(h.Mode)&0o7777); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), times(h), 0)
}

// inside makes a name of an archive relative to the volume, or refuses it.
func inside(name string) (string, error) {
	if strings.Contains(name, "\x00") || slices.Contains(strings.Split(name, "/"), "..") {
		return "", errs.New(errs.Invalid, "the name leads out of the volume")
	}
	return path.Clean(strings.TrimLeft(name, "/")), nil
}

const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// open gives a directory of the volume, made when the archive does not have it.
func (x *extractor) open(name string) (int, error) {
	if name == "." {
		return x.root, nil
	}
	if x.parent >= 0 && x.parentName == name {
		return x.parent, nil
	}
	how := &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: beneath}
	fd, err := openat.Open(x.root, name, how)
	if err == unix.ENOENT {
		for i := range len(name) + 1 {
			if i == len(name) || name[i] == '/' {
				if err := x.makeDir(name[:i]); err != nil {
					return -1, err
				}
			}
		}
		fd, err = openat.Open(x.root, name, how)
	}
	if err == unix.ELOOP || err == unix.ENOTDIR || err == unix.EXDEV {
		return -1, errs.New(errs.Invalid, "%s is no directory in the archive: %w", name, err)
	}
	if err != nil {
		return -1, err
	}
	x.closeParent()
	x.parent, x.parentName = fd, name
	return fd, nil
}

func (x *extractor) makeDir(name string) error {
	fd, err := openat.Open(x.root, path.Dir(name), &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: beneath})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Mkdirat(fd, path.Base(name), 0o755); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}

func (x *extractor) closeParent() {
	if x.parent >= 0 {
		unix.Close(x.parent)
		x.parent = -1
	}
}

func (x *extractor) isDir(dir int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return errs.New(errs.Invalid, "it is in the archive twice, once as a directory and once as something else")
	}
	return nil
}

func (x *extractor) file(dir int, name string, h *tar.Header, content io.Reader) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(fd), name)
	defer out.Close()
	if _, sparse := h.PAXRecords[paxSparse+"major"]; sparse || h.Typeflag == tar.TypeGNUSparse {
		err = x.withHoles(out, content, h.Size)
	} else {
		_, err = io.Copy(out, content)
	}
	if err != nil {
		return badArchive(len(x.dirs), err)
	}
	return attributesOf(fd, h)
}

// withHoles writes a file whose blocks of zeros are to be holes.
func (x *extractor) withHoles(out *os.File, content io.Reader, size int64) error {
	if err := out.Truncate(size); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	empty := make([]byte, 4096)
	for at := int64(0); at < size; {
		if err := x.ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(content, buf[:min(int64(len(buf)), size-at)])
		if err != nil {
			return err
		}
		for from := 0; from < n; from += len(empty) {
			piece := buf[from:min(from+len(empty), n)]
			if bytes.Equal(piece, empty[:len(piece)]) {
				continue
			}
			if _, err := out.WriteAt(piece, at+int64(from)); err != nil {
				return err
			}
		}
		at += int64(n)
	}
	return nil
}

// link makes a further name of something that the archive had before.
func (x *extractor) link(dir int, name, target string) error {
	to, err := inside(target)
	if err != nil {
		return wrapAt("hard link to "+target, err)
	}
	fd, err := openat.Open(x.root, path.Dir(to), &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: beneath})
	if err == nil {
		defer unix.Close(fd)
		err = unix.Linkat(fd, path.Base(to), dir, name, 0)
	}
	if err == unix.ENOENT || err == unix.ELOOP || err == unix.ENOTDIR {
		return errs.New(errs.Invalid, "it is a hard link to %q, which the archive does not have before it", target)
	}
	return err
}

// finish gives directories their attributes, children before parents.
func (x *extractor) finish() error {
	for _, h := range slices.Backward(x.dirs) {
		name, _ := inside(h.Name)
		fd, err := openat.Open(x.root, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: beneath})
		if err == nil {
			err = attributesOf(fd, h)
			unix.Close(fd)
		}
		if err != nil {
			return wrapAt(fmt.Sprintf("%q in the archive", h.Name), err)
		}
	}
	return nil
}
