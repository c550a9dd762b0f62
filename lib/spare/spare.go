// Package spare keeps a little of a disk in reserve, so that what frees space can still write its records when the disk is
// full. It must not be used by what takes space.
package spare

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// size is enough for the pages that some databases write anew to forget something.
const size = 4 << 20

// Space is a file that takes the reserve's place on the disk. It may be used by several goroutines.
type Space struct{ path string }

// New names the file and makes nothing.
func New(path string) Space { return Space{path} }

// Keep takes the reserve unless it is there, or the disk is so small or so full that the reserve would be a good part of what
// is left.
func (s Space) Keep() error {
	if st, err := os.Stat(s.path); err == nil {
		if st.Size() == size {
			return nil
		}
		os.Remove(s.path) // of a process that was killed in between
	}
	f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err = unix.Fstatfs(int(f.Fd()), &st); err == nil {
		if st.Bavail*uint64(st.Bsize) < 16*size {
			err = unix.ENOSPC
		} else {
			err = unix.Fallocate(int(f.Fd()), 0, 0, size)
		}
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = f.Write(make([]byte, size))
	}
	if err != nil {
		os.Remove(s.path)
	}
	return err
}

// Retry does something that frees space, and when the disk is too full for it does it again with the reserve given back.
func (s Space) Retry(free func() error) error {
	err := free()
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		if os.Remove(s.path) != nil {
			return err // there is none, or another takes it at this moment
		}
		err = free()
	}
	_ = s.Keep() // when it fails, the disk is still too full: the next time
	return err
}
