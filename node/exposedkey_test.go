package node

import (
	"crypto/x509"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoDeviceIsOpenedForAKey: a container may make a device under a name that looks like a certificate's in a directory that
// is searched for keys, and opening some devices does things (a watchdog). A pipe stands for it.
func TestNoDeviceIsOpenedForAKey(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(dir+"/x.pem", 0o600); err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, dir+"/x.pem", unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	if found := clientKey(dir, x509.NewCertPool()); found != "" {
		t.Error(found)
	}
	var b [4096]byte
	if n, err := unix.Read(watch, b[:]); err != unix.EAGAIN {
		t.Errorf("it was opened (%d bytes of events, %v)", n, err)
	}
}
