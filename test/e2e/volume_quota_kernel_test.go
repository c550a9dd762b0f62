//go:build kernel

package e2e

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/test/world"
)

// A size is kept where the filesystem can, and refused with the reason where it cannot. In the virtual machine it can.
func TestVolumeSize(t *testing.T) {
	w := world.New(t)
	r := w.Shoal("volume", "create", "-o", "size=8m", "sized")
	if r.Code != 0 {
		if !strings.Contains(r.Err, "prjquota") && !strings.Contains(r.Err, "btrfs quota enable") {
			t.Errorf("the refusal names no way out: %+v", r)
		}
		if r := w.Shoal("run", "--rm", "--network", "none", "--storage-opt", "size=8m", "toolbox", "true"); r.Code != 125 || !strings.Contains(r.Err, "prjquota") {
			t.Errorf("--storage-opt: %+v", r)
		}
		want(t, "half-made", w.Must(w.Shoal("volume", "ls", "-q"))+w.Must(w.Shoal("ps", "-aq")), "")
		t.Skip(r.Err)
	}
	fill := "dd if=/dev/zero of=/d/x bs=1M count=6 2>/dev/null && ! dd if=/dev/zero of=/d/y bs=1M count=6 2>/dev/null && echo full"
	run := func(args ...string) string {
		return w.Must(w.Shoal(append([]string{"run", "--rm", "--network", "none"}, args...)...))
	}
	want(t, "a bounded volume", run("-v", "sized:/d", "toolbox", "sh", "-c", fill), "full")
	var st unix.Statfs_t
	btrfs := unix.Statfs(w.Dir, &st) == nil && st.Type == unix.BTRFS_SUPER_MAGIC // shows the whole disk, and cannot bound layers
	if !btrfs {
		want(t, "df", run("-v", "sized:/d", "toolbox", "sh", "-c", "df -k /d | grep -c ' 8192 '"), "1")
	}
	want(t, "another is free", run("-v", "free:/d", "toolbox", "sh", "-c", "dd if=/dev/zero of=/d/x bs=1M count=20 2>/dev/null && echo fits"), "fits")
	w.Must(w.Shoal("volume", "rm", "sized"))
	// Content that comes from elsewhere is bounded, too.
	w.Must(w.Shoal("volume", "create", "-o", "size=8m", "sized"))
	want(t, "copied up", run("-v", "sized:/etc", "toolbox", "sh", "-c", "cat /etc/passwd | head -c 4; ! dd if=/dev/zero of=/etc/x bs=1M count=12 2>/dev/null"), "root")
	tar := w.Dir + "/free.tar"
	w.Must(w.Shoal("volume", "backup", "-o", tar, "free"))
	if r := w.Shoal("volume", "restore", "--replace", "-i", tar, "sized"); r.Code == 0 || !strings.Contains(r.Err, "quota") && !strings.Contains(r.Err, "space") {
		t.Errorf("20 MB were restored to a volume of 8: %+v", r)
	}
	want(t, "is as it was", run("-v", "sized:/d", "toolbox", "head", "-c", "4", "/d/passwd"), "root")
	if btrfs {
		if r := w.Shoal("run", "--rm", "--network", "none", "--storage-opt", "size=8m", "toolbox", "true"); r.Code != 125 || !strings.Contains(r.Err, "btrfs can limit one directory") {
			t.Errorf("--storage-opt: %+v", r)
		}
		return
	}
	want(t, "a bounded layer", run("--storage-opt", "size=8m", "toolbox", "sh", "-c", "mkdir /d; "+fill+"; mv /d/x /x && echo moved"), "full\nmoved")
	want(t, "changes of the image count", run("--storage-opt", "size=8m", "toolbox", "sh", "-c", "rm -rf /etc && mkdir /etc && echo x > /etc/f && echo fine"), "fine")
	want(t, "the next is free", run("toolbox", "sh", "-c", "dd if=/dev/zero of=/x bs=1M count=20 2>/dev/null && echo fits"), "fits")
}
