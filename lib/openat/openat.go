// Package openat opens files below a directory with openat2(2), whose lookups the kernel may ask to repeat. It knows nothing of
// what is opened; callers say how links and mounts are to be treated.
package openat

import "golang.org/x/sys/unix"

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
