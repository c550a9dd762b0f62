//go:build kernel

package store_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/image/transfer"
	"github.com/shoalhq/shoal/lib/cputime"
	"github.com/shoalhq/shoal/lib/overlay"
	"github.com/shoalhq/shoal/model"
)

func overlayStore(t testing.TB, root string) *store.Store {
	s := store.New(store.Config{Root: root})
	t.Cleanup(func() { s.Close() })
	return s
}

// merged shows a stack of layers as a container sees it.
func merged(t testing.TB, d overlay.Dirs) string {
	t.Helper()
	f, err := overlay.Mount(d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root := fmt.Sprintf("/proc/self/fd/%d/", f.Fd())
	var out []string
	filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if rel, _ := filepath.Rel(root, path); rel != "." {
			out = append(out, rel)
		}
		return nil
	})
	return strings.Join(out, " ")
}

// Whiteouts and opaque directories must mean the same in the archive, in the layers, and in a commit of the layers.
func TestOverlayWhiteouts(t *testing.T) {
	s := overlayStore(t, filepath.Join(t.TempDir(), "images"))
	ctx := t.Context()
	file := func(name string) imagetest.File { return imagetest.File{Name: name, Data: name} }
	img := imagetest.Image{Tags: []string{"app:1"}, Layers: [][]byte{
		imagetest.Layer(t, file("a/1"), file("a/2"), file("b/1"), file("c"), file("d/e/f"), imagetest.File{Name: "g/", Mode: 0o2711}),
		imagetest.Layer(t, file("a/.wh.1"), file("b/.wh..wh..opq"), file("b/2"), file(".wh.c"), file("d/"), file("d/.wh.e"), file("d/e/new"), file("g/h")),
	}}
	out, err := transfer.Load(ctx, s, bytes.NewReader(imagetest.Docker(img)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	lowers, err := s.Lowers(ctx, out[0].ID)
	if err != nil || len(lowers) != 2 {
		t.Fatal(lowers, err)
	}
	if driver, _ := s.Driver(ctx); driver != store.DriverOverlay {
		t.Skip("overlay does not work here")
	}
	const want = "a a/2 b b/2 d d/e d/e/new g g/h"
	if got := merged(t, overlay.Dirs{Lower: lowers}); got != want {
		t.Fatal(got)
	}
	if st, err := os.Stat(lowers[0] + "/g"); err != nil || st.Mode()&os.ModeSetgid == 0 || st.Mode().Perm() != 0o711 {
		t.Fatal("an implied directory lost its attributes:", st.Mode(), err)
	}

	upper, work := t.TempDir(), t.TempDir() // what a container does
	f, err := overlay.Mount(overlay.Dirs{Lower: lowers, Upper: upper, Work: work})
	if err != nil {
		t.Fatal(err)
	}
	in := fmt.Sprintf("/proc/self/fd/%d/", f.Fd())
	for _, err := range []error{os.Remove(in + "a/2"), os.RemoveAll(in + "b"), os.Mkdir(in+"b", 0o700), os.WriteFile(in+"b/fresh", nil, 0o600),
		os.RemoveAll(in + "d"), unix.Mknod(in+"null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.Setxattr(in+"g/h", "user.k", []byte("v"), 0)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	id, err := s.Commit(ctx, model.ImageCommit{Ref: "mine:1", Base: out[0].ID, Upper: upper})
	if err != nil {
		t.Fatal(err)
	}
	if lowers, err = s.Lowers(ctx, id); err != nil {
		t.Fatal(err)
	}
	if got := merged(t, overlay.Dirs{Lower: lowers}); got != "a b b/fresh g g/h null" {
		t.Fatal(got)
	}
	value := make([]byte, 8)
	if n, err := unix.Getxattr(lowers[0]+"/g/h", "user.k", value); err != nil || string(value[:n]) != "v" {
		t.Fatal(err)
	}
	if st, err := os.Stat(lowers[0] + "/null"); err != nil || st.Mode()&os.ModeCharDevice == 0 {
		t.Fatal(err)
	}
}

// Overlay's private attributes in an archive would let an image show directories that are not its own.
func TestOverlayAttributesAreDropped(t *testing.T) {
	s := overlayStore(t, filepath.Join(t.TempDir(), "images"))
	img := imagetest.Image{Tags: []string{"bad:1"}, Layers: [][]byte{imagetest.Layer(t,
		imagetest.File{Name: "d/", Pax: map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.kept": "1"}})}}
	out, err := transfer.Load(t.Context(), s, bytes.NewReader(imagetest.Docker(img)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	lowers, _ := s.Lowers(t.Context(), out[0].ID)
	value := make([]byte, 64)
	if _, err := unix.Getxattr(lowers[0]+"/d", "trusted.overlay.redirect", value); err != unix.ENODATA {
		t.Fatal(err)
	}
	if _, err := unix.Getxattr(lowers[0]+"/d", "user.kept", value); err != nil {
		t.Fatal(err)
	}
}

// The promises about time: a start with many images, the first answer, the later ones. What is held to a limit is the
// work, so that a busy machine is none of its concerns.
func TestSpeed(t *testing.T) {
	root := filepath.Join(t.TempDir(), "images")
	s := overlayStore(t, root)
	ctx := t.Context()
	const many = 300
	base := app(t, "app:0", 1)
	load(t, s, base)
	for i := range many {
		id, err := s.Commit(ctx, model.ImageCommit{Ref: fmt.Sprintf("app:%d", i), Base: "app:0", Comment: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(id, err)
		}
	}
	s.Close()
	start := cputime.Used()
	s = overlayStore(t, root)
	img, err := s.Resolve(ctx, "app:7", "")
	if err != nil {
		t.Fatal(err)
	}
	first := cputime.Used() - start
	start = cputime.Used()
	if _, err := s.Lowers(ctx, img.ID); err != nil {
		t.Fatal(err)
	}
	lowers := cputime.Used() - start
	start = cputime.Used()
	if l, err := s.List(ctx, store.ListOptions{}); err != nil || len(l) != many+1 {
		t.Fatal(len(l), err)
	}
	list := cputime.Used() - start
	start = cputime.Used()
	s.List(ctx, store.ListOptions{})
	again := cputime.Used() - start
	start = cputime.Used()
	for range 1000 {
		s.Resolve(ctx, "app:7", "")
		s.Lowers(ctx, img.ID)
	}
	t.Logf("%d images: open and first resolve %v, first lowers %v, first list %v, list again %v, resolve+lowers %v", many+1, first, lowers, list, again, (cputime.Used()-start)/1000)
	if first > time.Second || again > 50*time.Millisecond {
		t.Error("too slow")
	}
}
