package openat_test

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/openat"
	"github.com/shoalhq/shoal/lib/openat/openattest"
)

// TestWhileOthersRename walks ".." while directories are renamed, where a bare openat2 fails with EAGAIN now and then.
func TestWhileOthersRename(t *testing.T) {
	openattest.Need(t)
	dir := t.TempDir()
	deep := filepath.Join(dir, "a", "b", "c", "d")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
		os.Mkdir(one, 0o755)
		for !stop.Load() {
			os.Rename(one, two)
			os.Rename(two, one)
		}
	}()
	defer func() { stop.Store(true); <-done }()
	name, bare := "a/b/c/d/../../../../a/b/c/d/../../../../a", 0
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	for range 20000 {
		if fd, err := unix.Openat2(root, name, how); err == nil {
			unix.Close(fd)
		} else if err == unix.EAGAIN {
			bare++
		}
		fd, err := openat.Open(root, name, how)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
	t.Logf("the bare call was asked to repeat %d times of 20000", bare)
	if _, err := openat.Open(root, "missing", how); err != unix.ENOENT {
		t.Errorf("missing: %v", err)
	}
}
