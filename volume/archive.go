package volume

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/openat"
)

// Keys of extended headers: of attributes as star, GNU tar and bsdtar have them, and of sparse files in GNU's format 1.0.
const (
	paxXattr     = "SCHILY.xattr."
	paxSparse    = "GNU.sparse."
	sparseFolder = "GNUSparseFile.0/" // how programs that do not know the format name the file
)

// archiver writes a tree as a tar archive in the pax format, which GNU tar, bsdtar and Go read: owners, modes, times to the
// nanosecond, extended attributes, hard links, devices, holes. Like copier it goes by descriptors. Sockets are left out.
type archiver struct {
	ctx   context.Context
	out   io.Writer
	tw    *tar.Writer
	under string // directory that the names in the archive begin with; "" for none
	layer bool   // the archive becomes an image's layer, where some names and devices mean "deleted"
	links map[[2]uint64]string
}

func writeArchive(ctx context.Context, out io.Writer, src *os.File, under string, layer bool) error {
	a := &archiver{ctx: ctx, out: out, tw: tar.NewWriter(out), under: under, layer: layer, links: map[[2]uint64]string{}}
	if err := a.dir(int(src.Fd()), ".", 0); err != nil {
		return err
	}
	return a.tw.Close()
}

// dir writes a directory and what is in it, by name, so that the same tree gives the same archive.
func (a *archiver) dir(fd int, at string, depth int) error {
	if depth > openat.MaxDepth {
		return errs.New(errs.Invalid, "%s: more than %d directories deep", at, openat.MaxDepth)
	}
	if err := a.ctx.Err(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return wrapAt(at, err)
	}
	h := a.header(at, &st)
	h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
	if err := addXattrs(h, fd); err != nil {
		return wrapAt(at, err)
	}
	if err := a.tw.WriteHeader(h); err != nil {
		return wrapAt(at, err)
	}
	names, err := readNames(fd)
	if err != nil {
		return wrapAt(at, err)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := a.entry(fd, name, path.Join(at, name), depth); err != nil {
			return err
		}
	}
	return nil
}

func (a *archiver) header(at string, st *unix.Stat_t) *tar.Header {
	name := path.Join(a.under, at)
	return &tar.Header{Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), Format: tar.FormatPAX,
		ModTime: time.Unix(st.Mtim.Unix()), PAXRecords: map[string]string{}}
}

func (a *archiver) entry(dir int, name, at string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return nil // deleted meanwhile
		}
		return wrapAt(at, err)
	}
	kind := st.Mode & unix.S_IFMT
	if a.layer && (strings.HasPrefix(name, ".wh.") || kind == unix.S_IFCHR && st.Rdev == 0) {
		return errs.New(errs.Unsupported, "%s: in an image this means a deleted file, so an image cannot hold it; back up to a tar archive instead", at)
	}
	if kind == unix.S_IFDIR {
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			return nil
		}
		if err != nil {
			return wrapAt(at, err)
		}
		defer unix.Close(fd)
		return a.dir(fd, at, depth+1)
	}
	h := a.header(at, &st)
	if st.Nlink > 1 {
		id := [2]uint64{uint64(st.Dev), st.Ino}
		if first, ok := a.links[id]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, path.Join(a.under, first)
			return wrapAt(at, a.tw.WriteHeader(h))
		}
		a.links[id] = at
	}
	switch kind {
	case unix.S_IFREG:
		return wrapAt(at, a.file(dir, name, h))
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, name, target)
		if err != nil {
			return wrapAt(at, err)
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, string(target[:n])
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if kind == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
	default:
		return nil // a socket means nothing without its program
	}
	return wrapAt(at, a.tw.WriteHeader(h))
}

// file writes a regular file. It has the size that it had at the beginning, whatever is done to it meanwhile.
func (a *archiver) file(dir int, name string, h *tar.Header) error {
	in, err := openRegular(dir, name)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(in.Fd()), &st); err != nil {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, st.Size
	if err := addXattrs(h, int(in.Fd())); err != nil {
		return err
	}
	if st.Blocks*512 < st.Size {
		var parts []part
		eachData(in, st.Size, func(at, length int64) error { parts = append(parts, part{at, length}); return nil })
		if len(parts) != 1 || parts[0].length < st.Size {
			return a.sparse(in, h, parts)
		}
	}
	if err := a.tw.WriteHeader(h); err != nil {
		return err
	}
	return a.copy(a.tw, in, 0, st.Size)
}

// copy copies length bytes; what a file has lost meanwhile is zeros.
func (a *archiver) copy(out io.Writer, in *os.File, at, length int64) error {
	for length > 0 {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		step := min(length, copyStep)
		n, err := io.Copy(out, io.NewSectionReader(in, at, step))
		if err != nil {
			return err
		}
		if n < step {
			if _, err := io.CopyN(out, zeros{}, step-n); err != nil {
				return err
			}
		}
		at, length = at+step, length-step
	}
	return nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

type part struct{ at, length int64 }

// sparse writes a file with holes in GNU's format 1.0 (https://www.gnu.org/software/tar/manual/html_node/PAX-1.html), which
// archive/tar reads but does not write: an extended header, then a file that begins with the list of parts.
func (a *archiver) sparse(in *os.File, h *tar.Header, parts []part) error {
	if n := len(parts); n == 0 || parts[n-1].at+parts[n-1].length < h.Size {
		parts = append(parts, part{h.Size, 0}) // says where a hole at the end ends
	}
	var list strings.Builder
	fmt.Fprintf(&list, "%d\n", len(parts))
	stored := int64(0)
	for _, p := range parts {
		fmt.Fprintf(&list, "%d\n%d\n", p.at, p.length)
		stored += p.length
	}
	pad(&list)
	stored += int64(list.Len())
	records := map[string]string{paxSparse + "major": "1", paxSparse + "minor": "0", paxSparse + "name": h.Name,
		paxSparse + "realsize": strconv.FormatInt(h.Size, 10), "uid": strconv.Itoa(h.Uid), "gid": strconv.Itoa(h.Gid),
		"size": strconv.FormatInt(stored, 10), "mtime": fmt.Sprintf("%d.%09d", h.ModTime.Unix(), h.ModTime.Nanosecond())}
	for k, v := range h.PAXRecords {
		records[k] = v
	}
	var extended strings.Builder
	for _, k := range sortedKeys(records) {
		extended.WriteString(paxRecord(k, records[k]))
	}
	length := extended.Len()
	pad(&extended)
	if err := a.tw.Flush(); err != nil { // fills up the block of the file before
		return err
	}
	plain := sparseFolder + filepath.Base(h.Name)
	for _, text := range []string{string(ustar("PaxHeaders/sparse", 'x', 0o644, int64(length))), extended.String(),
		string(ustar(plain[:min(len(plain), 99)], tar.TypeReg, h.Mode, stored)), list.String()} {
		if _, err := io.WriteString(a.out, text); err != nil {
			return err
		}
	}
	for _, p := range parts {
		if err := a.copy(a.out, in, p.at, p.length); err != nil {
			return err
		}
	}
	if rest := stored % blockSize; rest > 0 {
		_, err := a.out.Write(make([]byte, blockSize-rest))
		return err
	}
	return nil
}

// blockSize is what everything in a tar archive is a multiple of.
const blockSize = 512

func pad(b *strings.Builder) {
	if rest := b.Len() % blockSize; rest > 0 {
		b.WriteString(strings.Repeat("\x00", blockSize-rest))
	}
}

// paxRecord is "LENGTH KEY=VALUE\n", where the length counts its own digits.
func paxRecord(key, value string) string {
	body := " " + key + "=" + value + "\n"
	n := len(body) + 1
	for len(strconv.Itoa(n))+len(body) != n {
		n = len(strconv.Itoa(n)) + len(body)
	}
	return strconv.Itoa(n) + body
}

// ustar is a header block (POSIX.1-1988, pax(1)) of owner 0 at the time 0: the extended header says better.
func ustar(name string, kind byte, mode, size int64) []byte {
	b := make([]byte, blockSize)
	copy(b, name)
	if size >= 1<<33 { // more than the octal digits hold: the extended header has it
		size = 0
	}
	copy(b[100:], fmt.Sprintf("%07o\x00%07o\x00%07o\x00%011o\x00%011o\x00", mode, 0, 0, size, 0))
	copy(b[148:], "        ")
	b[156] = kind
	copy(b[257:], "ustar\x0000")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// xattrKey and xattrName escape what a key of an extended header cannot have, as GNU tar does.
var (
	xattrKey  = strings.NewReplacer("%", "%25", "=", "%3D")
	xattrName = strings.NewReplacer("%25", "%", "%3D", "=")
)

func addXattrs(h *tar.Header, fd int) error {
	return eachXattr(fd, func(name string, value []byte) error {
		h.PAXRecords[paxXattr+xattrKey.Replace(name)] = string(value)
		return nil
	})
}
