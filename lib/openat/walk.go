package openat

import (
	"errors"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// MaxDepth bounds the depth of trees that are walked: a container may nest as deep as it likes, while each level takes a
// descriptor and a part of the stack.
const MaxDepth = 1024

// Walk calls visit for everything below a directory: its name from there, and what is known of it; links are not followed.
// Somebody may change the tree meanwhile: what vanishes is passed over, and a directory that is exchanged for a link leads
// nowhere. fs.SkipDir leaves out what is in a directory; below 1024 levels nothing is looked at.
func Walk(dir string, visit func(name string, at int, base string, st *unix.Stat_t) error) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return walk(f, "", 0, visit)
}

// walk closes the directory.
func walk(f *os.File, name string, depth int, visit func(name string, at int, base string, st *unix.Stat_t) error) error {
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	at := int(f.Fd())
	for _, base := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(at, base, &st, unix.AT_SYMLINK_NOFOLLOW); err == unix.ENOENT {
			continue
		} else if err != nil {
			return &os.PathError{Op: "stat", Path: path.Join(name, base), Err: err}
		}
		below := path.Join(name, base)
		if err := visit(below, at, base, &st); errors.Is(err, fs.SkipDir) {
			continue
		} else if err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR || depth == MaxDepth {
			continue
		}
		fd, err := unix.Openat(at, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "open", Path: below, Err: err}
		}
		if err := walk(os.NewFile(uintptr(fd), below), below, depth+1, visit); err != nil {
			return err
		}
	}
	return nil
}
