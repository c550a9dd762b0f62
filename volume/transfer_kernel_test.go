//go:build kernel

package volume

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/model"
)

// content fills a volume with one of everything, and describe tells what is there.
func content(t *testing.T, dir string) {
	must(t, os.MkdirAll(dir+"/sub/deep", 0o755))
	must(t, os.WriteFile(dir+"/a", []byte("a"), 0o640))
	must(t, os.Link(dir+"/a", dir+"/sub/b"))
	must(t, os.Chown(dir+"/a", 3000000, 70000))
	must(t, os.Symlink("/etc/passwd", dir+"/link"))
	must(t, os.Lchown(dir+"/link", 12, 34))
	must(t, unix.Mkfifo(dir+"/fifo", 0o600))
	must(t, unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(dir+"/loop", unix.S_IFBLK|0o660, int(unix.Mkdev(7, 300))))
	must(t, unix.Mknod(dir+"/whiteout", unix.S_IFCHR, 0))
	must(t, os.WriteFile(dir+"/.wh.name", nil, 0o600))
	must(t, unix.Setxattr(dir+"/a", "user.odd=name%", []byte("v\x00\n=\xff"), 0))
	must(t, unix.Setxattr(dir+"/sub", "trusted.overlay.opaque", []byte("y"), 0))
	must(t, unix.Setxattr(dir+"/a", "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	must(t, os.WriteFile(dir+"/"+strings.Repeat("long", 60), []byte("name"), 0o600))
	must(t, os.WriteFile(dir+"/new\nline", []byte("x"), 0o600))
	must(t, os.WriteFile(dir+"/setuid", []byte("x"), 0o755))
	must(t, unix.Chmod(dir+"/setuid", 0o4755))
	for name, at := range map[string][]int64{"hole in the middle": {0, 10 << 20}, "hole at the end": {0}, "hole at the beginning": {5<<20 + 77}, "only a hole": {}} {
		f, err := os.Create(dir + "/" + name)
		must(t, err)
		for _, off := range at {
			_, err := f.WriteAt([]byte("data at "+name), off)
			must(t, err)
		}
		must(t, f.Truncate(12<<20+1))
		f.Close()
	}
	must(t, unix.UtimesNano(dir+"/a", []unix.Timespec{{Sec: 1e9, Nsec: 123456789}, {Sec: 1e9, Nsec: 987654321}}))
	must(t, os.Chown(dir+"/sub", 5, 6))
	must(t, unix.Chmod(dir+"/sub", 0o2511))
	must(t, unix.UtimesNano(dir+"/sub", []unix.Timespec{{Sec: 7}, {Sec: 1e9, Nsec: 5}}))
	must(t, os.Chown(dir, 77, 88))
	must(t, unix.Chmod(dir, 0o3770))
}

// describe is a line for everything in a tree: all that a copy must keep.
func describe(t *testing.T, dir string) string {
	var out strings.Builder
	first := map[uint64]string{}
	must(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		must(t, err)
		info, err := d.Info()
		must(t, err)
		st := info.Sys().(*syscall.Stat_t)
		name, _ := filepath.Rel(dir, p)
		fmt.Fprintf(&out, "%q %o %d:%d %d links=%d dev=%x", name, st.Mode, st.Uid, st.Gid, st.Mtim.Nano(), st.Nlink, st.Rdev)
		switch info.Mode().Type() {
		case 0:
			b, err := os.ReadFile(p)
			must(t, err)
			sum := 0
			for _, c := range b {
				sum = sum*31 + int(c)
			}
			fmt.Fprintf(&out, " size=%d sum=%x sparse=%v", len(b), sum, st.Blocks*512 < st.Size)
			if other, ok := first[st.Ino]; ok {
				fmt.Fprintf(&out, " is %q", other)
			}
			first[st.Ino] = name
		case os.ModeSymlink:
			to, _ := os.Readlink(p)
			fmt.Fprintf(&out, " to %s", to)
		}
		list := make([]byte, 4096)
		if n, err := unix.Llistxattr(p, list); err == nil && n > 0 {
			for _, key := range slices.Sorted(strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00")) {
				value := make([]byte, 4096)
				n, _ := unix.Lgetxattr(p, key, value)
				fmt.Fprintf(&out, " %s=%q", key, value[:n])
			}
		}
		out.WriteByte('\n')
		return nil
	}))
	return out.String()
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		a, b := "(nothing)", "(nothing)"
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			t.Errorf("%s differs:\n got %s\nwant %s", what, a, b)
		}
	}
}

func TestBackupRestoreClone(t *testing.T) {
	root := t.TempDir()
	v := open(t, root)
	ctx := t.Context()
	vol := make1(t, v, model.Volume{Name: "data", Labels: map[string]string{"k": "v"}})
	content(t, vol.Mountpoint)
	before := describe(t, vol.Mountpoint)
	var archive, again bytes.Buffer
	must(t, v.Backup(ctx, "data", &archive, false))
	must(t, v.Backup(ctx, "data", &again, false))
	if !bytes.Equal(archive.Bytes(), again.Bytes()) {
		t.Error("the same tree gives two archives")
	}
	if archive.Len() > 200000 {
		t.Errorf("%d bytes: the holes were written", archive.Len())
	}
	restored, err := v.Restore(ctx, model.Volume{Name: "restored"}, false, bytes.NewReader(archive.Bytes()))
	must(t, err)
	same(t, "restored", describe(t, restored.Mountpoint), before)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(archive.Bytes())
	z.Close()
	_, err = v.Restore(ctx, model.Volume{Name: "packed"}, false, &packed)
	must(t, err)
	copied := int64(0)
	clone, err := v.Clone(ctx, "data", model.Volume{Name: "clone"}, func(n int64) { copied += n })
	must(t, err)
	same(t, "clone", describe(t, clone.Mountpoint), before)
	if err := v.Backup(ctx, "data", io.Discard, true); !errs.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), ".wh.name") {
		t.Error("names with a meaning in layers:", err)
	}
	if users := v.Users("data"); len(users) > 0 {
		t.Error("still held by", users)
	}
	if clone.Labels["k"] != "v" || copied == 0 || copied > 100000 {
		t.Error(clone.Labels, copied)
	}
	if version, err := exec.Command("tar", "--version").Output(); err != nil || !bytes.Contains(version, []byte("GNU tar")) {
		t.Log("GNU tar is not here as a witness")
		return
	}
	// GNU tar reads it as we do.
	dir := t.TempDir()
	cmd := exec.Command("tar", "-C", dir, "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", "-")
	cmd.Stdin = bytes.NewReader(archive.Bytes())
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("GNU tar: %v: %s", err, text)
	}
	same(t, "unpacked by GNU tar", describe(t, dir), before)
	// And we read its archives.
	out, err := exec.Command("tar", "-C", vol.Mountpoint, "--xattrs", "--xattrs-include=*", "--format=pax", "--sparse", "-cf", "-", ".").Output()
	must(t, err)
	theirs, err := v.Restore(ctx, model.Volume{Name: "theirs"}, false, bytes.NewReader(out))
	must(t, err)
	same(t, "restored from GNU tar's", describe(t, theirs.Mountpoint), before)
}

func TestReplaceContent(t *testing.T) {
	root := t.TempDir()
	v := open(t, root)
	ctx := t.Context()
	vol := make1(t, v, model.Volume{Name: "data", Labels: map[string]string{"k": "v"}})
	must(t, os.WriteFile(vol.Mountpoint+"/old", []byte("old"), 0o600))
	var archive bytes.Buffer
	must(t, v.Backup(ctx, "data", &archive, false))
	must(t, os.WriteFile(vol.Mountpoint+"/newer", []byte("x"), 0o600))
	restore := func(replace bool) error {
		return errOf2(v.Restore(ctx, model.Volume{Name: "data"}, replace, bytes.NewReader(archive.Bytes())))
	}
	if err := restore(false); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "--replace") {
		t.Fatal(err)
	}
	must(t, v.Use(ctx, "data", "c1", true))
	if err := restore(true); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "c1") {
		t.Fatal(err)
	}
	must(t, v.Unmount(ctx, "data", "c1"))
	for _, how := range []string{"error(cut)", "enospc"} {
		failpoint.Arm("volume/build/place=" + how)
		if err := restore(true); err == nil {
			t.Fatal("no error")
		}
		failpoint.Arm("")
		if _, err := os.Stat(vol.Mountpoint + "/newer"); err != nil {
			t.Fatal("a restore that failed changed the volume:", err)
		}
	}
	must(t, restore(true))
	if _, err := os.Stat(vol.Mountpoint + "/newer"); err == nil {
		t.Fatal("the old content is still there")
	}
	if b, _ := os.ReadFile(vol.Mountpoint + "/old"); string(b) != "old" {
		t.Fatal(string(b))
	}
	if x, err := open(t, root).Inspect(ctx, "data"); err != nil || x.Labels["k"] != "v" {
		t.Fatal(x, err)
	}
	if list, _ := os.ReadDir(root); len(list) != 1 {
		t.Fatal("left over:", list)
	}
	make1(t, v, model.Volume{Name: "tmp", Options: map[string]string{"type": "tmpfs", "device": "tmpfs"}})
	if err := errOf2(v.Restore(ctx, model.Volume{Name: "tmp"}, true, bytes.NewReader(archive.Bytes()))); !errs.Is(err, errs.Unsupported) {
		t.Fatal(err)
	}
	var empty bytes.Buffer
	must(t, v.Backup(ctx, "tmp", &empty, false)) // is mounted for it
	if mounts, _ := mountsBelow(root); len(mounts) > 0 {
		t.Fatal("still mounted:", mounts)
	}
}

// TestHostileArchives: nothing gets out of the volume, and nothing is left of what cannot be restored.
func TestHostileArchives(t *testing.T) {
	root := t.TempDir()
	v := open(t, root)
	victim := filepath.Join(t.TempDir(), "victim")
	must(t, os.WriteFile(victim, []byte("safe"), 0o600))
	dir := filepath.Dir(victim)
	type e struct {
		kind       byte
		name, link string
	}
	for name, c := range map[string]struct {
		entries []e
		says    string // of the error; "" when it is restored
	}{
		"dots":                    {[]e{{tar.TypeReg, "../x", ""}}, "leads out"},
		"dots in the middle":      {[]e{{tar.TypeReg, "a/../../x", ""}}, "leads out"},
		"absolute":                {[]e{{tar.TypeReg, victim, ""}}, ""},
		"through a link":          {[]e{{tar.TypeSymlink, "l", dir}, {tar.TypeReg, "l/victim", ""}}, "no directory"},
		"through a link up":       {[]e{{tar.TypeSymlink, "l", ".."}, {tar.TypeReg, "l/x", ""}}, "no directory"},
		"directory over a link":   {[]e{{tar.TypeSymlink, "l", dir}, {tar.TypeDir, "l", ""}}, "twice"},
		"file over a link":        {[]e{{tar.TypeSymlink, "l", victim}, {tar.TypeReg, "l", ""}}, ""},
		"hard link out":           {[]e{{tar.TypeLink, "h", "../../../.." + victim}}, "leads out"},
		"hard link, absolute":     {[]e{{tar.TypeLink, "h", victim}}, "does not have before"},
		"hard link through links": {[]e{{tar.TypeSymlink, "l", dir}, {tar.TypeLink, "h", "l/victim"}}, "does not have before"},
		"hard link to a link":     {[]e{{tar.TypeSymlink, "l", victim}, {tar.TypeLink, "h", "l"}}, ""},
		"the volume is a link":    {[]e{{tar.TypeSymlink, ".", dir}}, "must be a directory"},
		"file over a directory":   {[]e{{tar.TypeDir, "d", ""}, {tar.TypeReg, "d", ""}}, "is a directory"},
		"NUL in a name":           {[]e{{tar.TypeReg, "a", ""}, {'Z', "b", ""}}, "type"},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			tw := tar.NewWriter(&b)
			for _, x := range c.entries {
				must(t, tw.WriteHeader(&tar.Header{Typeflag: x.kind, Name: x.name, Linkname: x.link, Mode: 0o4777, Uid: 1, Size: 0}))
			}
			must(t, tw.Close())
			_, err := v.Restore(t.Context(), model.Volume{Name: "hostile"}, false, &b)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%v", err)
			}
			if err != nil {
				if left, _ := os.ReadDir(root); len(left) > 0 {
					t.Errorf("left over: %v", left)
				}
				return
			}
			must(t, v.Remove(t.Context(), "hostile", false))
		})
	}
	if st, err := os.Stat(victim); err != nil || st.Mode().Perm() != 0o600 || st.Size() != 4 {
		t.Fatal("it got out:", st, err)
	}
	for name, archive := range map[string]string{"nothing": "", "text": strings.Repeat("no archive ", 100), "gzip of nothing": "\x1f\x8b\x08", "zeros": "\x00\x00"} {
		if _, err := v.Restore(t.Context(), model.Volume{Name: "hostile"}, false, strings.NewReader(archive)); err == nil {
			t.Errorf("%s: restored", name)
		} else {
			t.Log(name, err)
		}
	}
}

// TestCutOff: an archive that ends early, at any place, makes no volume.
func TestCutOff(t *testing.T) {
	v := open(t, t.TempDir())
	vol := make1(t, v, model.Volume{Name: "data"})
	for i := range 5 {
		must(t, os.WriteFile(fmt.Sprintf("%s/%d", vol.Mountpoint, i), bytes.Repeat([]byte{byte(i + 1)}, 700), 0o600))
	}
	var archive bytes.Buffer
	must(t, v.Backup(t.Context(), "data", &archive, false))
	for n := 0; n < archive.Len()-1024; n += 256 {
		if _, err := v.Restore(t.Context(), model.Volume{Name: "half"}, false, bytes.NewReader(archive.Bytes()[:n])); err == nil {
			t.Fatalf("%d of %d bytes are a volume", n, archive.Len())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Restore(ctx, model.Volume{Name: "half"}, false, &archive); err == nil {
		t.Fatal("restored after it was given up")
	}
	if list, _ := os.ReadDir(v.cfg.Root); len(list) != 1 {
		t.Fatal("left over:", list)
	}
}

func errOf2(_ model.Volume, err error) error { return err }
