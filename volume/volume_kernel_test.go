//go:build kernel

package volume

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/model"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// layers makes two image layers: the upper deletes a file and makes a directory opaque, and links lead out.
func layers(t *testing.T) []string {
	low, high := filepath.Join(t.TempDir(), "low"), filepath.Join(t.TempDir(), "high")
	for _, d := range []string{low + "/data/sub/deep", low + "/data/old", high + "/data/old", high + "/var"} {
		must(t, os.MkdirAll(d, 0o755))
	}
	must(t, os.WriteFile(low+"/data/a", []byte("a"), 0o640))
	must(t, os.Link(low+"/data/a", low+"/data/sub/b"))
	must(t, os.WriteFile(low+"/data/deleted", []byte("x"), 0o600))
	must(t, os.WriteFile(low+"/data/old/hidden", []byte("x"), 0o600))
	must(t, os.Symlink("/etc/passwd", low+"/data/link"))
	must(t, unix.Mkfifo(low+"/data/fifo", 0o600))
	must(t, unix.Setxattr(low+"/data/a", "user.k", []byte("v"), 0))
	must(t, unix.Mknod(high+"/data/deleted", unix.S_IFCHR, 0))
	must(t, unix.Setxattr(high+"/data/old", "trusted.overlay.opaque", []byte("y"), 0))
	must(t, os.WriteFile(high+"/data/new", []byte("new"), 0o4755))
	must(t, os.Chmod(high+"/data/new", 0o755|os.ModeSetuid))
	must(t, os.Symlink("../../../../../../data", high+"/var/inside"))
	must(t, os.Symlink("/", high+"/var/root"))
	must(t, os.Chmod(high+"/data", 0o2770))
	must(t, unix.Chmod(high+"/data", 0o2770))
	must(t, os.Chown(high+"/data", 1234, 4321))
	must(t, unix.Chmod(high+"/data", 0o2770))
	return []string{high, low}
}

func TestFill(t *testing.T) {
	v := open(t, t.TempDir())
	ctx := t.Context()
	lowers := layers(t)
	vol := make1(t, v, model.Volume{Name: "data"})
	failpoint.Arm("volume/fill/rename=error(cut)")
	if err := v.Fill(ctx, "data", lowers, "/data", ""); err == nil {
		t.Fatal("no error")
	}
	failpoint.Arm("")
	if empty, _ := isEmpty(vol.Mountpoint); !empty {
		t.Fatal("half filled")
	}
	must(t, v.Fill(ctx, "data", lowers, "/var/inside", ""))
	at := func(name string) *syscall.Stat_t {
		st, err := os.Lstat(filepath.Join(vol.Mountpoint, name))
		if err != nil {
			return nil
		}
		return st.Sys().(*syscall.Stat_t)
	}
	if at("deleted") != nil || at("old/hidden") != nil {
		t.Fatal("what the upper layer deleted is back")
	}
	if at("a") == nil || at("a").Ino != at("sub/b").Ino || at("a").Mode&0o777 != 0o640 {
		t.Fatal("hard link")
	}
	if at("new").Mode&0o7777 != 0o4755 || at("").Mode&0o7777 != 0o2770 || at("").Uid != 1234 || at("").Gid != 4321 || at("fifo").Mode&unix.S_IFMT != unix.S_IFIFO {
		t.Fatalf("modes %o %o %d", at("new").Mode, at("").Mode, at("").Uid)
	}
	if to, _ := os.Readlink(filepath.Join(vol.Mountpoint, "link")); to != "/etc/passwd" {
		t.Fatal(to)
	}
	value := make([]byte, 8)
	if n, err := unix.Getxattr(filepath.Join(vol.Mountpoint, "a"), "user.k", value); err != nil || string(value[:n]) != "v" {
		t.Fatal(err)
	}
	must(t, os.WriteFile(filepath.Join(vol.Mountpoint, "a"), []byte("mine"), 0o600))
	must(t, v.Fill(ctx, "data", lowers, "/data", ""))
	if b, _ := os.ReadFile(filepath.Join(vol.Mountpoint, "a")); string(b) != "mine" {
		t.Fatal("filled twice")
	}
	make1(t, v, model.Volume{Name: "other"})
	for _, path := range []string{"/not/there", "/data/a", "/data/link"} {
		must(t, v.Fill(ctx, "other", lowers, path, ""))
	}
	must(t, v.Fill(ctx, "other", lowers[1:], "/data", "")) // one layer
	if _, err := os.Stat(filepath.Join(v.data("other"), "deleted")); err != nil {
		t.Fatal(err)
	}
	if table, _ := os.ReadFile("/proc/self/mountinfo"); len(table) == 0 {
		t.Fatal("no mount table")
	}
}

// TestFillInPlace: a directory of the host gets the image's content too, once, and whole.
func TestFillInPlace(t *testing.T) {
	v := open(t, t.TempDir())
	ctx := t.Context()
	lowers := layers(t)
	dir := t.TempDir()
	make1(t, v, model.Volume{Name: "bound", Options: map[string]string{"type": "none", "o": "bind", "device": dir}})
	failpoint.Arm("volume/fill/aside=error(cut)")
	if err := v.Fill(ctx, "bound", lowers, "/data", ""); err == nil {
		t.Fatal("no error")
	}
	failpoint.Arm("")
	if empty, _ := isEmpty(dir); !empty {
		t.Fatal("half filled")
	}
	must(t, os.MkdirAll(dir+"/"+partMade+"/torn", 0o755)) // by a crash
	must(t, v.Fill(ctx, "bound", lowers, "/data", ""))
	plain := make1(t, v, model.Volume{Name: "plain"})
	must(t, v.Fill(ctx, "plain", lowers, "/data", ""))
	same(t, "filled in place", describe(t, dir), describe(t, plain.Mountpoint))
	// A crash between the two steps is finished later.
	second := t.TempDir()
	must(t, os.Rename(dir, second+"/"+wholeMade))
	make1(t, v, model.Volume{Name: "second", Options: map[string]string{"type": "none", "o": "bind", "device": second}})
	must(t, v.Fill(ctx, "second", lowers, "/data", ""))
	same(t, "finished", describe(t, second), describe(t, plain.Mountpoint))
	must(t, os.Remove(second+"/a"))
	must(t, v.Fill(ctx, "second", lowers, "/data", ""))
	if _, err := os.Stat(second + "/a"); err == nil {
		t.Fatal("filled twice")
	}
}

// TestFillFollowsNoLink: what a container puts under the names that filling in place uses leads nowhere outside the volume.
func TestFillFollowsNoLink(t *testing.T) {
	v := open(t, t.TempDir())
	lowers := layers(t)
	for _, name := range []string{partMade, wholeMade} {
		outside := t.TempDir()
		must(t, os.WriteFile(outside+"/secret", nil, 0o600))
		vol := make1(t, v, model.Volume{Name: "v" + name})
		must(t, os.Mkdir(vol.Mountpoint+"/sub", 0o755))
		for _, at := range []string{vol.Mountpoint, vol.Mountpoint + "/sub"} {
			must(t, os.Symlink(outside, at+"/"+name))
		}
		v.Fill(t.Context(), vol.Name, lowers, "/data", "") // may fail: it is no name for users
		v.Fill(t.Context(), vol.Name, lowers, "/data", "sub")
		if names, err := os.ReadDir(outside); err != nil || len(names) != 1 {
			t.Errorf("%s: a directory outside has become %v (%v)", name, names, err)
		}
	}
}

// TestCopyFollowsNoLink: a container that has the copy while it grows, and puts links into it, gets no further name of the
// host's files, nor another mode for them.
func TestCopyFollowsNoLink(t *testing.T) {
	from, to, outside := t.TempDir(), t.TempDir(), t.TempDir()
	must(t, os.Mkdir(from+"/d", 0o755))
	must(t, os.WriteFile(from+"/d/a", []byte("x"), 0o600))
	must(t, os.Link(from+"/d/a", from+"/d/b"))
	for _, name := range []string{"a", "b"} {
		must(t, os.WriteFile(outside+"/"+name, nil, 0o600))
	}
	src, err := os.Open(from)
	must(t, err)
	defer src.Close()
	dst, err := os.Open(to)
	must(t, err)
	defer dst.Close()
	c := copier{ctx: t.Context(), image: true, progress: func(int64) {
		must(t, os.Rename(to+"/d", to+"/moved"))
		must(t, os.Symlink(outside, to+"/d"))
	}}
	if err := c.tree(src, dst); err == nil {
		t.Error("nobody noticed")
	}
	must(t, os.Symlink(outside+"/a", to+"/fifo"))
	if err := chmod(int(dst.Fd()), "fifo", 0o4777); err == nil {
		t.Error("nobody noticed")
	}
	for _, name := range []string{"a", "b"} {
		var st unix.Stat_t
		must(t, unix.Stat(outside+"/"+name, &st))
		if st.Nlink != 1 || st.Mode != unix.S_IFREG|0o600 {
			t.Errorf("the host's file %s has %d names and the mode %o", name, st.Nlink, st.Mode)
		}
	}
}

// TestFillWhileRunning: a container that runs with an empty volume sees what another's image puts there.
func TestFillWhileRunning(t *testing.T) {
	v := open(t, t.TempDir())
	ctx := t.Context()
	vol := make1(t, v, model.Volume{Name: "data"})
	must(t, errOf(v.Mount(ctx, "data", "c1")))
	seen, err := os.Open(vol.Mountpoint) // as the container has it
	must(t, err)
	defer seen.Close()
	must(t, v.Fill(ctx, "data", layers(t), "/data", ""))
	if names, err := seen.Readdirnames(-1); err != nil || !slices.Contains(names, "new") {
		t.Fatal("the running container has lost the volume:", names, err)
	}
	must(t, os.WriteFile(vol.Mountpoint+"/by-the-other", nil, 0o600))
	var st unix.Stat_t
	must(t, unix.Fstatat(int(seen.Fd()), "by-the-other", &st, 0))
}

func TestSharedFilesystem(t *testing.T) {
	root := t.TempDir()
	v := open(t, root)
	ctx := t.Context()
	vol := make1(t, v, model.Volume{Name: "tmp", Options: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,nosuid,mode=1770"}})
	t.Cleanup(func() { unix.Unmount(vol.Mountpoint, unix.MNT_DETACH) })
	for _, c := range []string{"c1", "c2", "c1"} {
		if m, err := v.Mount(ctx, "tmp", c); err != nil || m.Source != vol.Mountpoint {
			t.Fatal(m, err)
		}
	}
	if st, err := os.Stat(vol.Mountpoint); err != nil || st.Mode().Perm() != 0o770 {
		t.Fatal(st, err)
	}
	must(t, os.WriteFile(filepath.Join(vol.Mountpoint, "f"), []byte("x"), 0o600))
	if err := v.Remove(ctx, "tmp", true); !errs.Is(err, errs.Conflict) {
		t.Fatal("removed while mounted:", err)
	}
	v = open(t, root) // the daemon was restarted
	must(t, errOf(v.Mount(ctx, "tmp", "c1")))
	must(t, errOf(v.Mount(ctx, "tmp", "c2")))
	if _, err := os.Stat(filepath.Join(vol.Mountpoint, "f")); err != nil {
		t.Fatal("mounted anew:", err)
	}
	must(t, v.Unmount(ctx, "tmp", "c1"))
	must(t, v.Unmount(ctx, "tmp", "c1"))
	if mounted, _ := mountinfo.Mounted(vol.Mountpoint); !mounted {
		t.Fatal("unmounted too early")
	}
	must(t, v.Unmount(ctx, "tmp", "c2"))
	if mounted, _ := mountinfo.Mounted(vol.Mountpoint); mounted {
		t.Fatal("still mounted")
	}
	must(t, v.Remove(ctx, "tmp", false))
	make1(t, v, model.Volume{Name: "bad", Options: map[string]string{"type": "nosuchfs", "device": "x"}})
	if _, err := v.Mount(ctx, "bad", "c"); err == nil {
		t.Fatal("mounted a filesystem that does not exist")
	} else {
		t.Log(err)
	}
}
