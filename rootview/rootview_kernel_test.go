//go:build kernel

package rootview

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/openat"
	"github.com/shoalhq/shoal/lib/overlay"
	"github.com/shoalhq/shoal/model"
)

var ctx = context.Background()

func put(t *testing.T, path, text string) {
	t.Helper()
	os.MkdirAll(filepath.Dir(path), 0o755)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	os.MkdirAll(filepath.Dir(path), 0o755)
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// layers makes an image of two layers and an empty writable layer.
func layers(t *testing.T) model.OverlayDirs {
	base := t.TempDir()
	d := model.OverlayDirs{Lower: []string{base + "/top", base + "/bottom"}, Upper: base + "/upper", Work: base + "/work"}
	for _, p := range append(d.Lower, d.Upper, d.Work) {
		os.MkdirAll(p, 0o755)
	}
	put(t, base+"/bottom/etc/passwd", "root:x:0:0\n")
	put(t, base+"/bottom/etc/gone", "x")
	put(t, base+"/bottom/dir/a", "a")
	put(t, base+"/bottom/dir/b", "b")
	put(t, base+"/top/etc/hosts", "h")
	link(t, "/etc/passwd", base+"/top/abs")
	link(t, "../../../../../../etc", base+"/top/up")
	link(t, "loop", base+"/top/loop")
	os.MkdirAll(base+"/top/vol", 0o755)
	return d
}

func TestStat(t *testing.T) {
	v := View{Dirs: layers(t)}
	var f FS
	st, err := f.Stat(ctx, v, "/etc/passwd")
	if err != nil || st.Name != "passwd" || st.Size != 11 || !st.Mode.IsRegular() {
		t.Errorf("%+v %v", st, err)
	}
	st, err = f.Stat(ctx, v, "abs")
	if err != nil || st.Mode&os.ModeSymlink == 0 || st.LinkTarget != "/etc/passwd" {
		t.Errorf("link: %+v %v", st, err)
	}
	if st, err = f.Stat(ctx, v, "/up/passwd"); err != nil || st.Size != 11 {
		t.Errorf("a link that climbs stays in the root: %+v %v", st, err)
	}
	for path, kind := range map[string]errs.Kind{"/nope": errs.NotFound, "/etc/passwd/": errs.Invalid, "/etc/passwd/x": errs.Invalid, "/loop/x": errs.Invalid} {
		if _, err := f.Stat(ctx, v, path); !errs.Is(err, kind) {
			t.Errorf("%s: %v, want %v", path, err, kind)
		}
	}
}

func entries(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	got := map[string]string{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		data, _ := io.ReadAll(tr)
		got[h.Name] = string(data)
	}
}

func TestCopyFromNamesEntriesAfterTheRequest(t *testing.T) {
	v := View{Dirs: layers(t)}
	r, st, err := FS{}.CopyFrom(ctx, v, "/up/.")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := entries(t, r)
	if _, ok := got["./passwd"]; !ok || st.Name != "." {
		t.Errorf("%v %+v", got, st)
	}
	r, _, err = FS{}.CopyFrom(ctx, v, "/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := entries(t, r); len(got) != 1 || got["hosts"] != "h" {
		t.Error(got)
	}
}

func archiveOf(t *testing.T, hs ...*tar.Header) io.Reader {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		text := h.PAXRecords["text"]
		h.PAXRecords = nil
		h.Size = int64(len(text))
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, text)
	}
	w.Close()
	return &b
}

func file(name, text string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, PAXRecords: map[string]string{"text": text}}
}

func TestCopyToStaysInside(t *testing.T) {
	d := layers(t)
	outside := t.TempDir()
	put(t, outside+"/victim", "safe")
	put(t, outside+"/other", "safe")
	err := FS{}.CopyTo(ctx, View{Dirs: d}, "/dir", archiveOf(t,
		file("../../../../../../../../"+outside+"/victim", "climbed"),
		file("sub/deep/file", "made"),
	), CopyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	through := archiveOf(t, &tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: outside}, file("out/victim", "followed"))
	if err := (FS{}).CopyTo(ctx, View{Dirs: d}, "/dir", through, CopyOptions{}); err == nil {
		t.Error("wrote through a link to what the container does not have")
	}
	if got, _ := os.ReadFile(outside + "/victim"); string(got) != "safe" {
		t.Fatalf("a file outside was changed: %q", got)
	}
	if got, _ := os.ReadFile(d.Upper + "/dir/sub/deep/file"); string(got) != "made" {
		t.Errorf("parents are not made: %q", got)
	}
	hard := archiveOf(t, &tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "../../../../../../../.." + outside + "/other"})
	if err := (FS{}).CopyTo(ctx, View{Dirs: d}, "/dir", hard, CopyOptions{}); err == nil {
		t.Error("linked to a file outside")
	}
}

func TestCopyToRefusals(t *testing.T) {
	d := layers(t)
	dirEntry := &tar.Header{Name: "a", Typeflag: tar.TypeDir, Mode: 0o755}
	if err := (FS{}).CopyTo(ctx, View{Dirs: d}, "/dir", archiveOf(t, dirEntry), CopyOptions{NoOverwriteDirNonDir: true}); !errs.Is(err, errs.Invalid) {
		t.Errorf("directory over file: %v", err)
	}
	if err := (FS{}).CopyTo(ctx, View{Dirs: d}, "/etc/passwd", archiveOf(t, file("x", "")), CopyOptions{}); !errs.Is(err, errs.Invalid) {
		t.Errorf("into a file: %v", err)
	}
	if err := (FS{}).CopyTo(ctx, View{Dirs: d}, "/dir", archiveOf(t, file("x", "")), CopyOptions{ReadOnlyRoot: true}); !errs.Is(err, errs.Forbidden) {
		t.Errorf("read-only root: %v", err)
	}
	if err := (FS{}).CopyTo(ctx, View{Dirs: d}, "/dir", strings.NewReader("no archive at all, but long enough to be one block"), CopyOptions{}); !errs.Is(err, errs.Invalid) {
		t.Errorf("no archive: %v", err)
	}
}

func TestVolumesAreSeen(t *testing.T) {
	d := layers(t)
	vol := t.TempDir()
	put(t, vol+"/data", "v")
	v := View{Dirs: d, Mounts: []model.MountPoint{{Source: vol, Destination: "/vol", RW: true}, {Source: "/gone", Destination: "/vol2"}}}
	r, _, err := FS{}.CopyFrom(ctx, v, "/vol")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := entries(t, r); got["vol/data"] != "v" {
		t.Error(got)
	}
	if err := (FS{}).CopyTo(ctx, v, "/vol", archiveOf(t, file("new", "n")), CopyOptions{ReadOnlyRoot: true}); err != nil {
		t.Errorf("a volume of a read-only container: %v", err)
	}
	if got, _ := os.ReadFile(vol + "/new"); string(got) != "n" {
		t.Errorf("the volume has %q", got)
	}
	v.Mounts[0].RW = false
	if err := (FS{}).CopyTo(ctx, v, "/vol", archiveOf(t, file("new", "n")), CopyOptions{}); !errs.Is(err, errs.Forbidden) {
		t.Errorf("a read-only volume: %v", err)
	}
	table, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(table), filepath.Dir(d.Upper)) {
		t.Error("a mount was left in the host's table")
	}
}

func TestChangesAndReadFile(t *testing.T) {
	d := layers(t)
	mnt, err := overlay.Mount(overlay.Dirs{Lower: d.Lower, Upper: d.Upper, Work: d.Work})
	if err != nil {
		t.Fatal(err)
	}
	at := "/proc/self/fd/" + itoa(int(mnt.Fd()))
	put(t, at+"/etc/passwd", "changed")
	os.Remove(at + "/etc/gone")
	put(t, at+"/new/file", "x")
	os.RemoveAll(at + "/dir")
	os.Mkdir(at+"/dir", 0o755)
	put(t, at+"/dir/c", "c")
	mnt.Close()
	text := changes(t, d)
	want := []string{"C /dir", "D /dir/a", "D /dir/b", "A /dir/c", "C /etc", "D /etc/gone", "C /etc/passwd", "A /new", "A /new/file"}
	if !slices.Equal(text, want) {
		t.Errorf("changes\n%q\nwant\n%q", text, want)
	}
	for path, want := range map[string]string{"/etc/passwd": "changed", "/etc/hosts": "h", "/abs": "changed", "/up/hosts": "h", "/dir/c": "c"} {
		if data, err := (FS{}).ReadFile(ctx, d, path, 100); err != nil || string(data) != want {
			t.Errorf("%s: %q %v", path, data, err)
		}
	}
	for _, path := range []string{"/etc/gone", "/dir/a", "/nope"} {
		if _, err := (FS{}).ReadFile(ctx, d, path, 100); !errs.Is(err, errs.NotFound) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := (FS{}).ReadFile(ctx, d, "/etc/passwd", 3); !errs.Is(err, errs.Invalid) {
		t.Errorf("limit: %v", err)
	}
	if s, err := (FS{}).Size(ctx, d, true); err != nil || s.Writable != int64(len("changed")+2) || s.RootFS <= s.Writable {
		t.Errorf("size %+v %v", s, err)
	}
}

// changes are those of a container as docker diff shows them.
func changes(t *testing.T, d model.OverlayDirs) (text []string) {
	t.Helper()
	got, err := FS{}.Changes(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range got {
		text = append(text, string("CAD"[c.Kind])+" "+c.Path)
	}
	return text
}

// TestLinksInLayersLeadNowhere: a container that has replaced a link of its image by a directory is told nothing of where the
// link led to on the host, and what is no regular file is not opened.
func TestLinksInLayersLeadNowhere(t *testing.T) {
	d := layers(t)
	host := t.TempDir()
	put(t, host+"/secret", "x")
	put(t, host+"/sub/deep", "x")
	link(t, host, d.Lower[0]+"/a")
	mnt, err := overlay.Mount(overlay.Dirs{Lower: d.Lower, Upper: d.Upper, Work: d.Work})
	if err != nil {
		t.Fatal(err)
	}
	at := "/proc/self/fd/" + itoa(int(mnt.Fd()))
	os.Remove(at + "/a")
	put(t, at+"/a/sub/deep", "mine")
	for _, name := range []string{"/etc/passwd", "/etc/hosts"} {
		os.Remove(at + name)
	}
	if err := unix.Mknod(at+"/etc/passwd", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil { // zeros without end
		t.Fatal(err)
	}
	if err := unix.Mkfifo(at+"/etc/hosts", 0o666); err != nil {
		t.Fatal(err)
	}
	mnt.Close()
	text := changes(t, d)
	if want := []string{"C /a", "A /a/sub", "A /a/sub/deep", "C /etc", "C /etc/hosts", "C /etc/passwd"}; !slices.Equal(text, want) {
		t.Errorf("changes\n%q\nwant\n%q", text, want)
	}
	for _, name := range []string{"/etc/passwd", "/etc/hosts"} {
		if _, err := (FS{}).ReadFile(ctx, d, name, 100); !errs.Is(err, errs.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDepthIsBounded: a tree without end ends a copy, not the daemon.
func TestDepthIsBounded(t *testing.T) {
	d := layers(t)
	at, err := os.OpenRoot(d.Upper)
	if err != nil {
		t.Fatal(err)
	}
	for range openat.MaxDepth + 10 {
		if err := at.Mkdir("d", 0o755); err != nil {
			t.Fatal(err)
		}
		below, err := at.OpenRoot("d")
		at.Close()
		if err != nil {
			t.Fatal(err)
		}
		at = below
	}
	at.Close()
	if err := (FS{}).Export(ctx, View{Dirs: d}, io.Discard); !errs.Is(err, errs.Invalid) {
		t.Error(err)
	}
}

func TestPlacesToMountOnAreMade(t *testing.T) {
	host := t.TempDir()
	put(t, host+"/v/x", "seen")
	put(t, host+"/f", "file")
	v := View{Dirs: layers(t), Mounts: []model.MountPoint{
		{Type: "volume", Source: host + "/v", Destination: "/new/deep", RW: true},
		{Type: "bind", Source: host + "/f", Destination: "/etc/new.conf", RW: true},
		{Type: "bind", Source: host + "/v", Destination: "/loop/x", RW: true}, // cannot be
	}}
	var f FS
	for name, size := range map[string]int64{"/new/deep/x": 4, "/etc/new.conf": 4} {
		if st, err := f.Stat(ctx, v, name); err != nil || st.Size != size {
			t.Errorf("%s: %+v %v", name, st, err)
		}
	}
	if err := f.CopyTo(ctx, v, "/new/deep", bytes.NewReader(nil), CopyOptions{}); err != nil {
		t.Error(err)
	}
}
