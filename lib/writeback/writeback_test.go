package writeback

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFilesAreTakenAsTheyAre(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), make([]byte, Worth), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil { // opening it must not wait for a writer
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	s := New(dir)
	for _, name := range []string{"file", "/file", "../file", "fifo", "link", "link/x", "missing", "", "."} {
		s.File(name)
	}
	s.Close()
	s.Close()
	New(dir).Close()
	gone := New(filepath.Join(dir, "gone"))
	gone.File("x")
	gone.Close()
}

func TestTooManyAreLeftOut(t *testing.T) {
	s := New(t.TempDir())
	for range 10 * waiting {
		s.File("x")
	}
	s.Close()
}
