//go:build kernel

package projquota

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// TestLimit wants a disk with project quotas, as the virtual machine has one; elsewhere the refusal is tried.
func TestLimit(t *testing.T) {
	withoutResource(t)
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, d := range []string{a, b} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	err := Limit(4<<20, a)
	if errs.Is(err, errs.Unsupported) || errs.Is(err, errs.Forbidden) {
		if id, err := Project(a); err != nil || id != 0 {
			t.Fatal(id, err)
		}
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := Join(b, a); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a, "x"), make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b, "y"), make([]byte, 3<<20), 0o600); err == nil {
		t.Error("more than the limit was written")
	} else {
		t.Log(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(a, &st); err != nil || st.Blocks*uint64(st.Bsize) != 4<<20 {
		t.Errorf("df shows %d bytes", st.Blocks*uint64(st.Bsize))
	}
	if err := Release(a); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b, "z"), make([]byte, 6<<20), 0o600); err != nil {
		t.Error("the limit is still there:", err)
	}
	if err := Release(t.TempDir()); err != nil {
		t.Error("a directory without a limit:", err)
	}
}

// withoutResource takes CAP_SYS_RESOURCE, for which ext4 knows no limit, from the thread of the test.
func withoutResource(t *testing.T) {
	runtime.LockOSThread() // for good: the thread ends with the test
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
}
