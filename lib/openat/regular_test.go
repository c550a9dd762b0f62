package openat

import (
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRegularOpensNothingElse: a pipe, which stands for a device here, is not opened even for a moment, and no link is followed.
func TestRegularOpensNothingElse(t *testing.T) {
	dir := t.TempDir()
	for _, err := range []error{os.WriteFile(dir+"/file", []byte("x"), 0o600), os.Symlink("file", dir+"/link"), unix.Mkfifo(dir+"/pipe", 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, dir+"/pipe", unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "pipe", "."} {
		if _, err := Regular(unix.AT_FDCWD, dir+"/"+name); err != ErrNotRegular {
			t.Errorf("%s: %v", name, err)
		}
	}
	var b [4096]byte
	if n, err := unix.Read(watch, b[:]); err != unix.EAGAIN {
		t.Errorf("it was opened (%d bytes of events, %v)", n, err)
	}
	f, err := Regular(unix.AT_FDCWD, dir+"/file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if data, err := io.ReadAll(f); err != nil || string(data) != "x" {
		t.Errorf("%q %v", data, err)
	}
}
