// Package openat goes about trees that somebody else makes, and may change meanwhile: it opens below a directory with
// openat2(2), whose lookups the kernel may ask to repeat, opens nothing but regular files, walks and removes. It knows nothing of
// what is opened; callers say how links and mounts are to be treated.
package openat

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// tries bounds the repetitions: somebody who renames without end must not hold up the caller for ever. A lookup takes some
// microseconds, so this is some milliseconds of bad luck in a row.
const tries = 1000

// Open is openat2(2) that does a lookup again when the kernel asks for that: with RESOLVE_IN_ROOT and RESOLVE_BENEATH it answers
// EAGAIN when ".." is walked while anything on the machine is renamed or mounted.
func Open(dir int, name string, how *unix.OpenHow) (fd int, err error) {
	for range tries {
		fd, err = unix.Openat2(dir, name, how)
		if err != unix.EAGAIN && err != unix.EINTR {
			break
		}
	}
	return fd, err
}

// ErrNotRegular says that something else than a regular file has the name.
var ErrNotRegular = errors.New("no regular file")

// Regular opens a regular file of a directory to read. Somebody may put something else in its place at any time, and opening a
// pipe waits and opening a device does things: so what is there is looked at first, and then that very thing is opened.
func Regular(dir int, name string) (*os.File, error) {
	at, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	return Reopen(at, name)
}

// RegularIn is Regular for a path as it is seen by those whose root the directory is: links, followed unless flags has
// unix.O_NOFOLLOW, do not lead out.
func RegularIn(root int, path string, flags uint64) (*os.File, error) {
	at, err := Open(root, strings.TrimLeft(filepath.Clean("/"+path), "/"), &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | flags,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	return Reopen(at, path)
}

// Reopen is Regular for what is open with O_PATH; the name is the file's in errors.
func Reopen(at int, name string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, ErrNotRegular
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(at), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
