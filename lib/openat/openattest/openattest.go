// Package openattest helps tests of trees that somebody else made: it makes one, and lets tests say that they need openat2,
// which the emulators of other processors may lack (qemu-user 7.2) and no kernel that Shoal runs on does. It must not be used
// outside of tests.
package openattest

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/openat"
)

// Need skips the test where there is no openat2.
func Need(t testing.TB) {
	t.Helper()
	fd, err := openat.Open(unix.AT_FDCWD, ".", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC})
	if err == unix.ENOSYS {
		t.Skip("openat2 is not there: an emulator without it")
	} else if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
}
