//go:build kernel

package node

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What containers may write, /etc/hosts and its like, must not be able to fill the exec root.
func TestNamesCannotFillTheExecRoot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "exec")
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	for range 2 { // a second daemon finds the mounts of the first
		if err := mountExecRoot(dir); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(dir, "names", "hosts"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := bytes.Repeat([]byte{'x'}, 1<<20)
	for written := 0; err == nil; written++ {
		if _, err = f.Write(chunk); written > 64 {
			t.Fatal("more than 64 MiB could be written")
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "other"), chunk, 0o600); err != nil {
		t.Fatal(err)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if n := bytes.Count(mounts, []byte(dir)); n != 2 {
		t.Fatalf("%d mounts, want 2", n)
	}
}
