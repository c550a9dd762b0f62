package spare

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestSpace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "reserve")
	s := New(path)
	blocks := func() int64 {
		st, err := os.Stat(path)
		if err != nil {
			return 0
		}
		return st.Sys().(*syscall.Stat_t).Blocks * 512
	}
	for range 2 {
		if err := s.Keep(); err != nil || blocks() < size {
			t.Fatal(err, blocks())
		}
	}
	calls := 0
	if err := s.Retry(func() error { calls++; return nil }); err != nil || calls != 1 {
		t.Error(err, calls)
	}
	calls = 0
	if err := s.Retry(func() error {
		if calls++; calls == 1 {
			return &os.PathError{Op: "write", Err: syscall.ENOSPC}
		}
		if blocks() != 0 {
			t.Error("the reserve was not given back")
		}
		return nil
	}); err != nil || calls != 2 || blocks() < size {
		t.Error(err, calls, blocks())
	}
	os.Remove(path)
	calls = 0
	if err := s.Retry(func() error { calls++; return syscall.ENOSPC }); err != syscall.ENOSPC || calls != 1 {
		t.Error(err, calls)
	}
}
