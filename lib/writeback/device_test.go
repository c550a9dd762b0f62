package writeback

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoDeviceIsOpened: an archive may have a file and then, under the same name, a device, whose opening does things. A pipe
// stands for it.
func TestNoDeviceIsOpened(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(dir+"/x", 0o600); err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, dir+"/x", unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	start(root, "x")
	var b [4096]byte
	if n, err := unix.Read(watch, b[:]); err != unix.EAGAIN {
		t.Errorf("it was opened (%d bytes of events, %v)", n, err)
	}
}
