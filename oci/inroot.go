package oci

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/openat"
)

// openIn opens a file of a root filesystem as a process within it would: links end at its root.
func openIn(dir, name string, flags int) (*os.File, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(root)
	fd, err := openat.Open(root, strings.TrimPrefix(name, "/"), &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func statIn(dir, name string) (os.FileInfo, error) {
	f, err := openIn(dir, name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}
