//go:build kernel

package projquota

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
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

// On btrfs a limited directory is a subvolume; what takes its place has the same limit.
func TestLimitOnBtrfs(t *testing.T) {
	mkfs, err := exec.LookPath("mkfs.btrfs")
	if err != nil {
		t.Skip("needs the package btrfs-progs")
	}
	disk, at := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Skipf("%s: %v %s", name, err, out)
		}
	}
	run("truncate", "-s", "120M", disk)
	run(mkfs, "-q", disk)
	run("mount", "-t", "btrfs", "-o", "loop", disk, at)
	defer unix.Unmount(at, 0)
	mk := func(name string) string {
		dir := filepath.Join(at, name)
		if err := os.Mkdir(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	if err := Limit(4<<20, mk("early")); !errs.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "btrfs quota enable") {
		t.Errorf("without quotas: %v", err)
	}
	run("btrfs", "quota", "enable", at)
	a, fresh := mk("a"), mk("fresh")
	if err := Limit(4<<20, a, fresh); !errs.Is(err, errs.Unsupported) {
		t.Errorf("two directories: %v", err)
	}
	if err := Limit(4<<20, a); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(a); err != nil || st.Mode().Perm() != 0o750 || !Subvolume(a) {
		t.Errorf("the directory is not what it was: %v %v", st, err)
	}
	if err := Join(fresh, a); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{a, fresh} {
		if err := os.WriteFile(filepath.Join(dir, "x"), make([]byte, 6<<20), 0o600); !errors.Is(err, unix.EDQUOT) {
			t.Errorf("%s: more than the limit was written: %v", dir, err)
		}
		if err := Check(dir); err != nil {
			t.Error(err)
		}
		if err := Release(dir); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}
	plain := mk("plain")
	if err := Join(plain, mk("other")); err != nil || Subvolume(plain) {
		t.Errorf("a directory without a limit: %v", err)
	}
}
