package openat

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// levels is how many directories RemoveAll has open at a time.
const levels = 128

// RemoveAll is os.RemoveAll for trees that containers make. That one keeps a descriptor and a part of the stack for each
// level, so a tree that is deep enough takes the descriptors of the whole process and cannot be removed. Here what is deeper is
// moved up first.
func RemoveAll(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch err {
	case nil:
	case unix.ENOENT:
		return nil
	case unix.ENOTDIR, unix.ELOOP:
		return os.Remove(dir)
	default:
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	top := os.NewFile(uintptr(fd), dir)
	defer top.Close()
	r := remover{top: top}
	if err := r.clear(top, 0); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return os.Remove(dir)
}

type remover struct {
	top   *os.File
	moved int // directories that came up to it
}

// clear removes what is in a directory. When something stays, all else is removed, and the first reason is told.
func (r *remover) clear(f *os.File, depth int) (first error) {
	for stayed := 0; ; {
		// Names may be passed over while others are removed, so reading begins anew until none is left.
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		names, err := f.Readdirnames(1024 + stayed)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		before := stayed
		stayed = 0
		for _, name := range names {
			if err := r.remove(f, name, depth); err != nil {
				stayed++
				if first == nil {
					first = fmt.Errorf("%s: %w", name, err)
				}
			}
		}
		if len(names) == 0 || stayed == len(names) && stayed <= before {
			return first
		}
		if stayed == 0 {
			first = nil // what stayed before went now
		}
	}
}

func (r *remover) remove(f *os.File, name string, depth int) error {
	dir := int(f.Fd())
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR {
		return err
	}
	if depth == levels {
		if err := r.moveUp(dir, name); err == nil {
			return nil
		}
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	sub := os.NewFile(uintptr(fd), name)
	err = r.clear(sub, depth+1)
	sub.Close()
	if gone := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err == nil && gone != unix.ENOENT {
		err = gone
	}
	return err
}

// moveUp puts a directory into the topmost one, which is read until it is empty.
func (r *remover) moveUp(dir int, name string) error {
	for {
		r.moved++
		err := unix.Renameat2(dir, name, int(r.top.Fd()), ".deep-"+strconv.Itoa(r.moved), unix.RENAME_NOREPLACE)
		if err != unix.EEXIST {
			return err
		}
	}
}
