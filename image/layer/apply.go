// Package layer turns layer archives into directories and back: decompression, unpacking with every entry checked, and
// the archive of what a container changed. It must not know where layers are kept or what they are part of.
package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/pkg/archive"
	continuity "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/writeback"
)

// Whiteouts, as the OCI image specification (layer.md) has them.
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// Extended attributes by which overlay keeps its books; from an archive they would be orders to the kernel.
var overlayXattrs = []string{"trusted.overlay.", "user.overlay."}

const (
	paxXattr    = "SCHILY.xattr."
	opaqueXattr = "trusted.overlay.opaque"

	checkEvery   = 32 << 20 // bytes between two looks at the free space
	checkEntries = 4096     // entries between two looks at the free inodes
	keepFree     = 128 << 20
	keepInodes   = 1024
)

// Options say how a layer is unpacked.
type Options struct {
	Overlay bool            // whiteouts become overlay's (a device 0/0, an opaque mark); else they remove what they name
	Parents []string        // directories beneath, top first, from which directories that the archive only implies get their attributes
	Only    map[string]bool // when set, only the entries of these names (as Check gives them)
	Implied *Implied        // instead of Parents, when they are not there yet: collects those directories; may be nil
}

// Apply unpacks the archive into dir, which nobody else may write to meanwhile. Entries cannot leave dir, whatever their
// names and links say. Owners, modes, times and extended attributes are kept; attributes in overlay's own name space are
// dropped. It stops with errs.Exhausted before the disk is full, and with errs.Invalid at an archive that is none.
func Apply(ctx context.Context, dir string, r io.Reader, o Options) error {
	g := &guard{r: r, dir: filepath.Clean(dir), only: o.Only, hidden: map[string]bool{}, brought: map[string]bool{}, overlay: o.Overlay, implied: o.Implied,
		early: early{Starter: writeback.New(dir)}}
	defer g.early.Close()
	opts := []archive.ApplyOpt{archive.WithFilter(g.entry)}
	if o.Overlay {
		opts = append(opts, archive.WithConvertWhiteout(g.whiteout))
		if len(o.Parents) > 0 {
			opts = append(opts, archive.WithParents(o.Parents))
		}
	}
	_, err := archive.Apply(ctx, dir, g, opts...)
	g.early.next("")
	var link *os.LinkError
	ofDir := errors.As(err, &link) && errors.Is(err, unix.EPERM) // a hard link to a directory
	if err == nil || ctx.Err() != nil || !ofDir && (errs.KindOf(err) != errs.Internal && !errors.Is(err, fs.ErrNotExist) || hostFault(err)) {
		return err
	}
	return errs.New(errs.Invalid, "the layer's archive is malformed: %w", err)
}

// hostFault says whether it was this machine that failed and not the archive.
func hostFault(err error) bool {
	var no syscall.Errno
	if !errors.As(err, &no) {
		return false
	}
	switch no {
	case unix.EIO, unix.EROFS, unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.EPERM, unix.EACCES, unix.ENOSPC, unix.EDQUOT:
		return true
	}
	return false
}

// Guard gives r, which ends with errs.Exhausted when what is read from it and kept somewhere else leaves too little room
// on the disk of dir.
func Guard(r io.Reader, dir string) io.Reader { return &guard{r: r, dir: dir} }

// guard watches what goes by: enough disk must stay, and headers are cleaned.
type guard struct {
	r       io.Reader
	dir     string
	bytes   int64
	files   int64 // bytes that the files have which were announced so far: holes cost nothing in an archive
	entries int64
	overlay bool
	brought map[string]bool // the names that this archive brought; not for overlay
	only    map[string]bool
	implied *Implied
	hidden  map[string]bool // where this archive put whiteouts
	early   early
}

// early starts the writing to disk of the file that is being unpacked.
type early struct {
	*writeback.Starter
	name  string // "": no file
	since int64  // bytes since the last start, or since the file's beginning
}

func (e *early) read(n int) {
	if e.name == "" {
		return
	}
	if e.since += int64(n); e.since >= writeback.Step {
		e.since = 0
		e.File(e.name)
	}
}

// next is told that the file is finished, and which one follows.
func (e *early) next(name string) {
	if e.name != "" && e.since >= writeback.Worth {
		e.File(e.name)
	}
	e.name, e.since = name, 0
}

func (g *guard) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	before := g.bytes / checkEvery
	g.bytes += int64(n)
	if g.early.Starter != nil {
		g.early.read(n)
	}
	if g.bytes/checkEvery != before {
		if cerr := g.room(0); cerr != nil {
			return n, cerr
		}
	}
	return n, err
}

// room says whether enough is left of the disk when a file of size bytes has come, too.
func (g *guard) room(size int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(g.dir, &st); err != nil {
		return fmt.Errorf("free space of %s: %w", g.dir, err)
	}
	free := int64(st.Bavail) * st.Bsize
	if size > 0 && free-keepFree < size {
		return errs.New(errs.Exhausted, "a file of %d MB does not fit on the disk of %s, which has %d MB left; free some space (`shoal system prune`)", size>>20, g.dir, free>>20)
	}
	if free < keepFree {
		return errs.New(errs.Exhausted, "the disk of %s has only %d MB left after the first %d MB of this archive, and more follows; free some space (`shoal system prune`)",
			g.dir, free>>20, g.bytes>>20)
	}
	if st.Files > 0 && st.Ffree < keepInodes {
		return errs.New(errs.Exhausted, "the disk of %s has only %d inodes left after %d entries of this archive; free some (`shoal system prune`)", g.dir, st.Ffree, g.entries)
	}
	return nil
}

// entry sees each header before it is applied.
func (g *guard) entry(h *tar.Header) (bool, error) {
	if g.only != nil && !g.only[entryName(h.Name)] {
		return false, nil
	}
	if skip, err := misplacedWhiteout(h); skip || err != nil {
		return false, err
	}
	if !g.overlay && g.ownWhiteout(h) {
		return false, nil
	}
	g.entries++
	if h.Typeflag == tar.TypeReg {
		g.early.next(h.Name)
	} else {
		g.early.next("")
	}
	if g.implied != nil {
		g.implied.entry(h)
	}
	if g.entries%checkEntries == 0 {
		if err := g.room(0); err != nil {
			return false, err
		}
	}
	if h.Typeflag == tar.TypeReg {
		before := g.files / checkEvery
		if g.files += h.Size; g.files/checkEvery != before || g.files < 0 {
			if err := g.room(h.Size); err != nil {
				return false, err
			}
		}
	}
	for key := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok {
			continue
		}
		for _, private := range overlayXattrs {
			if strings.HasPrefix(name, private) {
				delete(h.PAXRecords, key)
			}
		}
	}
	if h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0 {
		return false, errs.New(errs.Invalid, "entry %q is a device 0/0, which no filesystem has: in a layer it would hide what lies beneath", h.Name)
	}
	if g.overlay && len(g.hidden) > 0 {
		return true, g.uncover(h)
	}
	return true, nil
}

// misplacedWhiteout refuses a name below a whiteout, and skips the books that AUFS kept at the top of old layers.
func misplacedWhiteout(h *tar.Header) (skip bool, err error) {
	name := entryName(h.Name)
	if strings.HasPrefix(name, whiteoutPrefix+whiteoutPrefix) && name != whiteoutOpaque {
		return true, nil
	}
	dir, _ := filepath.Split(name)
	if strings.HasPrefix(dir, whiteoutPrefix) || strings.Contains(dir, "/"+whiteoutPrefix) {
		return false, errs.New(errs.Invalid, "entry %q is below a whiteout, which has nothing below it", h.Name)
	}
	return false, nil
}

// ownWhiteout says whether an entry is a whiteout of what the same archive brought: it speaks of the layers beneath only.
// For overlay see whiteout.
func (g *guard) ownWhiteout(h *tar.Header) bool {
	dir, base := filepath.Split(entryName(h.Name))
	if name, ok := strings.CutPrefix(base, whiteoutPrefix); ok {
		return g.brought[dir+name]
	}
	for name := dir + base; name != "" && !g.brought[name]; name = strings.TrimSuffix(dir, "/") {
		g.brought[name] = true
		dir, _ = filepath.Split(name)
	}
	return false
}

// uncover makes room for an entry at or under a name that the same archive hid before: what lies beneath stays hidden, so
// the whiteout becomes an opaque directory. Symbolic links on the way are left to Apply, which refuses what cannot be.
func (g *guard) uncover(h *tar.Header) error {
	name := strings.Trim(filepath.Clean("/"+h.Name), "/")
	for i := range len(name) + 1 {
		if i < len(name) && name[i] != '/' || i == len(name) && h.Typeflag != tar.TypeDir {
			continue
		}
		path := filepath.Join(g.dir, name[:i])
		if !g.hidden[path] {
			continue
		}
		parent, err := continuity.RootPath(g.dir, filepath.Dir(name[:i]))
		if err != nil || parent != filepath.Dir(path) {
			return err
		}
		delete(g.hidden, path)
		if st, err := os.Lstat(path); err != nil || st.Mode()&os.ModeCharDevice == 0 {
			continue // something else came in its place
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		if err := unix.Setxattr(path, opaqueXattr, []byte{'y'}, 0); err != nil {
			return err
		}
	}
	return nil
}

// whiteout writes the mark that overlay understands instead of the entry. A whiteout speaks of the layers beneath only:
// what the same archive brings under that name stays.
func (g *guard) whiteout(h *tar.Header, path string) (bool, error) {
	dir, base := filepath.Split(path)
	if base == whiteoutOpaque {
		return false, unix.Setxattr(filepath.Clean(dir), opaqueXattr, []byte{'y'}, 0)
	}
	name, ok := strings.CutPrefix(base, whiteoutPrefix)
	if !ok {
		return true, nil
	}
	if name == "" || name == "." || name == ".." || strings.HasPrefix(name, whiteoutPrefix) {
		return false, errs.New(errs.Invalid, "entry %q is no whiteout that the image specification knows", h.Name)
	}
	target := filepath.Join(dir, name)
	err := unix.Mknod(target, unix.S_IFCHR, 0)
	if err == nil {
		g.hidden[target] = true
		return false, nil
	}
	if !errors.Is(err, unix.EEXIST) {
		return false, fmt.Errorf("whiteout of %q: %w", h.Name, err)
	}
	if st, err := os.Lstat(target); err != nil || !st.IsDir() {
		return false, err
	}
	return false, unix.Setxattr(target, opaqueXattr, []byte{'y'}, 0)
}
