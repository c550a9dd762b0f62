package rootview

import (
	"context"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/openat"
	"github.com/shoalhq/shoal/model"
)

// FS offers the operations on views. It has no state of its own.
type FS struct{}

// Stat describes a path as `docker cp` wants it: a link at the end is described itself, with where it leads, unless the
// path ends in a slash.
func (FS) Stat(ctx context.Context, v View, p string) (model.PathStat, error) {
	r, err := open(ctx, v, false)
	if err != nil {
		return model.PathStat{}, err
	}
	defer r.Close()
	st, f, err := r.stat(p)
	if err == nil {
		f.Close()
	}
	return st, err
}

// stat describes p and gives an O_PATH descriptor of it.
func (r *root) stat(p string) (model.PathStat, *os.File, error) {
	abs, wantDir := clean(p)
	f, err := r.openAt(abs, unix.O_PATH, wantDir)
	if err != nil {
		return model.PathStat{}, nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return model.PathStat{}, nil, err
	}
	out := model.PathStat{Name: baseName(p, abs), Size: st.Size, Mode: goMode(st.Mode), Mtime: time.Unix(st.Mtim.Unix())}
	if wantDir && !out.Mode.IsDir() {
		f.Close()
		return out, nil, errs.New(errs.Invalid, "%s in container is not a directory; leave out the slash at its end", abs)
	}
	if out.Mode&fs.ModeSymlink != 0 {
		out.LinkTarget = r.leadsTo(abs)
	}
	return out, f, nil
}

// baseName is the last part of a path as asked for: of one that ends in a dot, which means what is in the directory, a dot.
func baseName(p, abs string) string {
	if p = strings.TrimRight(p, "/"); p == "." || strings.HasSuffix(p, "/.") {
		return "."
	}
	return path.Base(abs)
}

// leadsTo is the absolute path in the container that a link ends at; of a dangling one, its text.
func (r *root) leadsTo(abs string) string {
	var buf [unix.PathMax]byte
	at := abs
	for range 40 {
		f, err := r.openAt(at, unix.O_PATH, false)
		if err != nil {
			return at
		}
		n, err := unix.Readlinkat(int(f.Fd()), "", buf[:])
		f.Close()
		if err != nil { // no link any more
			return at
		}
		target := string(buf[:n])
		if !strings.HasPrefix(target, "/") {
			target = path.Join(path.Dir(at), target)
		}
		at = path.Clean(target)
	}
	return at
}

// ReadFile reads a small file of the root filesystem that nothing has mounted; NotFound when it is not there.
func (FS) ReadFile(ctx context.Context, dirs model.OverlayDirs, p string, limit int64) ([]byte, error) {
	// The layers are looked through by hand: mounting takes longer than reading a passwd file.
	all := dirs.Lower
	if dirs.Upper != "" {
		all = append([]string{dirs.Upper}, all...)
	}
	if len(all) == 0 {
		return nil, errs.New(errs.NotFound, "%s: the container has no files", p)
	}
	if data, ok, err := readLayers(all, p, limit); ok {
		return data, err
	}
	r, err := open(ctx, View{Dirs: dirs}, false)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	at, err := r.openAt(p, unix.O_PATH, true)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	f, err := openat.Reopen(int(at.Fd()), p)
	if err == openat.ErrNotRegular {
		return nil, errs.New(errs.NotFound, "%s in container is %w", p, err)
	}
	if err != nil {
		return nil, pathError(p, err)
	}
	defer f.Close()
	return readLimited(f, p, limit)
}

// readLayers reads p from the topmost layer that decides about it. ok is false where links, whiteouts or opaque
// directories are met, which only the kernel's merged view gets right.
func readLayers(layers []string, p string, limit int64) (data []byte, ok bool, err error) {
	rel := strings.TrimLeft(path.Clean("/"+p), "/")
	for _, dir := range layers {
		fd, err := openat.Open(unix.AT_FDCWD, dir, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC})
		if err != nil {
			return nil, false, nil
		}
		f, missing, plain := plainIn(fd, rel)
		unix.Close(fd)
		switch {
		case !plain:
			return nil, false, nil
		case missing:
			continue
		}
		defer f.Close()
		data, err = readLimited(f, p, limit)
		return data, true, err
	}
	return nil, true, errs.New(errs.NotFound, "%s is not in the container's files", p)
}

// plainIn opens rel below the layer when the way to it is made of plain directories; missing when the layer says
// nothing of it.
func plainIn(layer int, rel string) (f *os.File, missing, plain bool) {
	parts := strings.Split(rel, "/")
	at := layer
	defer func() {
		if at != layer {
			unix.Close(at)
		}
	}()
	for i, part := range parts {
		var st unix.Stat_t
		if err := unix.Fstatat(at, part, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, err == unix.ENOENT, err == unix.ENOENT
		}
		kind := st.Mode & unix.S_IFMT
		last := i == len(parts)-1
		if last && kind == unix.S_IFREG {
			f, err := openat.Regular(at, part)
			return f, false, err == nil
		}
		if last || kind != unix.S_IFDIR {
			return nil, false, false
		}
		fd, err := unix.Openat(at, part, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil || opaque(fd) {
			if err == nil {
				unix.Close(fd)
			}
			return nil, false, false
		}
		if at != layer {
			unix.Close(at)
		}
		at = fd
	}
	return nil, false, false
}

// opaque says whether a directory of an upper layer hides those below.
func opaque(fd int) bool {
	var b [2]byte
	for _, name := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		if n, err := unix.Fgetxattr(fd, name, b[:]); err == nil && n == 1 && b[0] == 'y' {
			return true
		}
	}
	return false
}

func readLimited(f *os.File, name string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = errs.New(errs.Invalid, "%s in container is larger than %s bytes", name, strconv.FormatInt(limit, 10))
	}
	return data, err
}

// goMode turns a kernel's mode into Go's.
func goMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	}
	if m&unix.S_ISUID != 0 {
		mode |= fs.ModeSetuid
	}
	if m&unix.S_ISGID != 0 {
		mode |= fs.ModeSetgid
	}
	if m&unix.S_ISVTX != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}
