package layer

import (
	"archive/tar"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	continuity "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
)

// Implied collects the directories that an archive has entries below, but no entry for: an archive that was unpacked
// without its parents leaves them with made-up attributes. The zero value is ready.
type Implied struct {
	named map[string]bool // true: has an entry
}

func (i *Implied) entry(h *tar.Header) {
	if i.named == nil {
		i.named = map[string]bool{"": false}
	}
	name := strings.Trim(path.Clean("/"+h.Name), "/")
	if h.Typeflag == tar.TypeDir {
		i.named[name] = true
	}
	if dir, base := path.Split(name); strings.HasPrefix(base, whiteoutPrefix) && base != whiteoutOpaque {
		i.named[dir+base[len(whiteoutPrefix):]] = true // hidden: if it comes again, it is another one
	}
	for name != "" {
		name = strings.TrimPrefix(path.Dir("/"+name), "/")
		if _, ok := i.named[name]; ok {
			return // and so are those above it
		}
		i.named[name] = false
	}
}

// Settle gives the implied directories of dir the attributes that they have in the first of the parents, top first, that
// has them. What is no directory there was replaced, and keeps what it has.
func (i *Implied) Settle(dir string, parents []string) error {
	var list []string
	for name, explicit := range i.named {
		if !explicit {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	for _, name := range list {
		own, err := continuity.RootPath(dir, name)
		if err != nil {
			return err
		}
		if st, err := os.Lstat(own); err != nil || !st.IsDir() {
			continue // a later entry of the archive took its place
		}
		for _, p := range parents {
			there, err := continuity.RootPath(p, name)
			if err != nil {
				return err
			}
			st, err := os.Lstat(there)
			if os.IsNotExist(err) {
				continue
			}
			if err != nil {
				return err
			}
			if st.IsDir() {
				if err := copyAttributes(own, there, st.Sys().(*syscall.Stat_t)); err != nil {
					return err
				}
			}
			break
		}
	}
	return nil
}

// copyAttributes makes the directory own look like the other one.
func copyAttributes(own, other string, st *syscall.Stat_t) error {
	if err := os.Lchown(own, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(own, st.Mode&0o7777); err != nil {
		return err
	}
	names := make([]byte, 65536)
	n, err := unix.Llistxattr(other, names)
	if err != nil && err != unix.ENOTSUP {
		return &os.PathError{Op: "list extended attributes of", Path: other, Err: err}
	}
	for _, name := range splitNull(names[:max(n, 0)]) {
		if !wanted(name) {
			continue
		}
		value := make([]byte, 65536)
		size, err := unix.Lgetxattr(other, name, value)
		if err == nil {
			err = unix.Lsetxattr(own, name, value[:size], 0)
		}
		if err != nil && err != unix.ENOTSUP {
			return &os.PathError{Op: "copy extended attribute " + name + " to", Path: own, Err: err}
		}
	}
	times := []unix.Timespec{{Sec: st.Atim.Sec, Nsec: st.Atim.Nsec}, {Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec}}
	return unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Clean(own), times, unix.AT_SYMLINK_NOFOLLOW)
}
