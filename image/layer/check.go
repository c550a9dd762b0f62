package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/openat"
)

// Check compares the files of dir, which Apply made of the archive r, with the archive: type, content, targets of links.
// It returns what is wrong by entry name; Apply of these alone (Options.Only) puts them right. Owners, modes and times are not compared: what
// a power cut takes is content. Of an archive that writes through its own symbolic links, which none of a real tree does,
// nothing is said. Nothing of dir is executed, opened for writing or followed out of it.
func Check(ctx context.Context, dir string, r io.Reader) (map[string]string, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		root = -1 // everything is missing
	} else {
		defer unix.Close(root)
	}
	c := &checker{root: root, bad: map[string]string{}, links: map[string]string{}, seen: map[string]int{}, buf: make([]byte, 1<<18)}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := c.entry(h, tr); err != nil {
			return nil, err
		}
	}
	for name, target := range c.links {
		if c.seen[target] > 1 {
			delete(c.bad, name) // which of the files of that name it meant cannot be told any more
		}
	}
	if c.strange {
		return nil, nil
	}
	return c.bad, nil
}

type checker struct {
	root  int
	bad   map[string]string
	links map[string]string // hard links and what they point to
	seen  map[string]int    // how often a name was written

	strange bool // the archive writes through its own links: what is where in the end cannot be told
	buf     []byte
}

func entryName(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (c *checker) entry(h *tar.Header, body io.Reader) error {
	name := entryName(h.Name)
	if name == "" || h.Typeflag == tar.TypeXGlobalHeader || strings.HasPrefix(path.Base(name), whiteoutPrefix) {
		return nil
	}
	if !c.real(name) {
		c.strange = true
	}
	if c.strange {
		return nil
	}
	c.seen[name]++
	delete(c.bad, name) // the last entry of a name counts
	delete(c.links, name)
	if h.Typeflag != tar.TypeDir && c.root >= 0 { // whatever was below is gone
		for other := range c.bad {
			if strings.HasPrefix(other, name+"/") {
				delete(c.bad, other)
			}
		}
	}
	what, err := c.compare(name, h, body)
	if what != "" {
		c.bad[name] = what
	}
	return err
}

// real says whether the directory of an entry is reached without symbolic links, as in the archive of any real tree; one
// that is missing is.
func (c *checker) real(name string) bool {
	dir := path.Dir(name)
	if dir == "." || c.root < 0 {
		return true
	}
	fd, err := openat.Open(c.root, dir, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS})
	if err == nil {
		unix.Close(fd)
	}
	return err == nil || errors.Is(err, unix.ENOENT)
}

// open opens an entry as it is, without following it.
func (c *checker) open(name string, flags uint64) (int, error) {
	return openat.Open(c.root, name, &unix.OpenHow{Flags: flags | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
}

func (c *checker) compare(name string, h *tar.Header, body io.Reader) (string, error) {
	fd, err := c.open(name, unix.O_PATH)
	if err != nil {
		return "missing", nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err.Error(), nil
	}
	want := map[byte]uint32{tar.TypeReg: unix.S_IFREG, tar.TypeDir: unix.S_IFDIR, tar.TypeSymlink: unix.S_IFLNK, tar.TypeChar: unix.S_IFCHR,
		tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[h.Typeflag]
	if want != 0 && st.Mode&unix.S_IFMT != want {
		return "is of another type", nil
	}
	switch h.Typeflag {
	case tar.TypeLink:
		target := entryName(h.Linkname)
		if c.bad[target] != "" {
			c.links[name] = target
			return "is a hard link to " + target, nil
		}
	case tar.TypeSymlink:
		buf := make([]byte, unix.PathMax)
		if n, err := unix.Readlinkat(fd, "", buf); err != nil || string(buf[:n]) != h.Linkname {
			return "leads elsewhere", nil
		}
	case tar.TypeReg:
		if st.Size != h.Size {
			return fmt.Sprintf("has %d of %d bytes", st.Size, h.Size), nil
		}
		return c.content(name, h.Size, body)
	}
	return "", nil
}

func (c *checker) content(name string, size int64, body io.Reader) (string, error) {
	fd, err := c.open(name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err.Error(), nil
	}
	defer unix.Close(fd)
	half := len(c.buf) / 2
	for at := int64(0); at < size; {
		n, err := io.ReadFull(body, c.buf[:min(int64(half), size-at)])
		if err != nil {
			return "", err
		}
		got := c.buf[half : half+n]
		for read := 0; read < n; {
			k, err := unix.Pread(fd, got[read:], at+int64(read))
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return "cannot be read: " + err.Error(), nil
			}
			if k == 0 {
				return "was cut off", nil
			}
			read += k
		}
		if !bytes.Equal(got, c.buf[:n]) {
			return fmt.Sprintf("differs after byte %d", at), nil
		}
		at += int64(n)
	}
	return "", nil
}
