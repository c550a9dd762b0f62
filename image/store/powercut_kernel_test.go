//go:build kernel

package store_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/image/transfer"
	"github.com/shoalhq/shoal/lib/errs"
)

// powered is a store that can lose its power: what was not synced is lost in ways that file systems have.
type powered struct {
	root  string
	good  *store.Store // another one with the same images: the registry
	fetch bool
}

func (p *powered) open(t *testing.T) *store.Store {
	cfg := store.Config{Root: p.root, Driver: store.DriverOverlay}
	if p.fetch {
		cfg.Fetch = func(ctx context.Context, name string, into content.Store, desc ocispec.Descriptor) error {
			if name == "" {
				return errors.New("no name")
			}
			ctx, from, done, err := p.good.Content(ctx)
			if err != nil {
				return err
			}
			defer done()
			data, err := content.ReadBlob(ctx, from, desc)
			if err != nil {
				return err
			}
			return content.WriteBlob(ctx, into, "again-"+desc.Digest.Encoded(), bytes.NewReader(data), desc)
		}
	}
	s := store.New(cfg)
	t.Cleanup(func() { s.Close() })
	return s
}

// cut is the power cut: the mark that this boot's process left is another boot's.
func (p *powered) cut(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.root, "dirty"), []byte("another boot\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *powered) marked() bool {
	_, err := os.Stat(filepath.Join(p.root, "dirty"))
	return err == nil
}

func zero(t *testing.T, path string) {
	t.Helper()
	st, err := os.Stat(path)
	if err == nil {
		err = os.WriteFile(path, make([]byte, st.Size()), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string) {
	t.Helper()
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func powerImages(t *testing.T) []byte {
	shared := imagetest.Layer(t, imagetest.File{Name: "bin/"}, imagetest.File{Name: "bin/sh", Data: strings.Repeat("shell", 70000)},
		imagetest.File{Name: "bin/link", Kind: '1', Link: "bin/sh"}, imagetest.File{Name: "bin/ash", Kind: '2', Link: "sh"}, imagetest.File{Name: "etc/", Mode: 0o700})
	top := imagetest.Layer(t, imagetest.File{Name: "app", Data: "version 1"}, imagetest.File{Name: "app", Data: "version 2"}, imagetest.File{Name: "bin/.wh.ash"})
	return imagetest.Docker(
		imagetest.Image{Tags: []string{"one:1"}, Layers: [][]byte{shared, top}, Pack: imagetest.Gzip},
		imagetest.Image{Tags: []string{"two:1"}, Layers: [][]byte{shared, imagetest.Layer(t, imagetest.File{Name: "two", Data: "2"})}, Pack: imagetest.Zstd})
}

func TestPowerCut(t *testing.T) {
	archive := powerImages(t)
	good := overlayStore(t, filepath.Join(t.TempDir(), "good"))
	if _, err := transfer.Load(t.Context(), good, bytes.NewReader(archive), nil, nil); err != nil {
		t.Fatal(err)
	}
	type place struct {
		layers                  []string // top first
		config, layer, manifest string
	}
	for name, c := range map[string]struct {
		harm   func(t *testing.T, p place)
		names  string // what must be named
		number int
		needs  bool // needs the registry
	}{
		"nothing":           {func(*testing.T, place) {}, "", 0, false},
		"file cut off":      {func(t *testing.T, p place) { truncate(t, p.layers[1]+"/bin/sh") }, "2 unpacked files", 1, false},
		"file of zeros":     {func(t *testing.T, p place) { zero(t, p.layers[0]+"/app") }, "app, which differs", 1, false},
		"file gone":         {func(t *testing.T, p place) { remove(t, p.layers[0]+"/app") }, "app, which missing", 1, false},
		"link gone":         {func(t *testing.T, p place) { remove(t, p.layers[1]+"/bin/ash") }, "bin/ash", 1, false},
		"directory gone":    {func(t *testing.T, p place) { remove(t, p.layers[1]+"/etc") }, "etc", 1, false},
		"layer of zeros":    {func(t *testing.T, p place) { zero(t, p.layer) }, "another digest", 1, true},
		"layer cut off":     {func(t *testing.T, p place) { truncate(t, p.layer) }, "its 0 bytes", 1, true},
		"config of zeros":   {func(t *testing.T, p place) { zero(t, p.config) }, "config sha256:", 1, true},
		"manifest cut off":  {func(t *testing.T, p place) { truncate(t, p.manifest) }, "manifest sha256:", 1, true},
		"all of it gone":    {func(t *testing.T, p place) { remove(t, p.manifest); remove(t, p.config); remove(t, p.layer) }, "its file is gone", 3, true},
		"layer and its dir": {func(t *testing.T, p place) { zero(t, p.layer); truncate(t, p.layers[0]+"/app") }, "unpacked files", 2, true},
	} {
		for _, registry := range []bool{true, false} {
			t.Run(name+map[bool]string{true: " with registry", false: " without registry"}[registry], func(t *testing.T) {
				pw := &powered{root: filepath.Join(t.TempDir(), "images"), good: good, fetch: registry}
				s := pw.open(t)
				if _, err := transfer.Load(t.Context(), s, bytes.NewReader(archive), nil, nil); err != nil {
					t.Fatal(err)
				}
				if !pw.marked() {
					t.Fatal("a store that was written to is not marked")
				}
				img, err := s.Resolve(t.Context(), "one:1", "")
				if err != nil {
					t.Fatal(err)
				}
				var p place
				if p.layers, err = s.Lowers(t.Context(), img.ID); err != nil {
					t.Fatal(err)
				}
				blob := func(d string) string {
					return filepath.Join(pw.root, "content/blobs/sha256", digest.Digest(d).Encoded())
				}
				p.config, p.manifest = blob(img.ID), blob(img.Manifest.Digest)
				p.layer = blob(digest.FromBytes(imagetest.Gzip(imagetest.Layer(t, imagetest.File{Name: "app", Data: "version 1"}, imagetest.File{Name: "app", Data: "version 2"}, imagetest.File{Name: "bin/.wh.ash"}))).String())
				s.Close()
				if pw.marked() {
					t.Fatal("the mark stays after a clean end")
				}
				c.harm(t, p)
				pw.cut(t)

				s = pw.open(t)
				v, err := s.Verify(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				whole := registry || !c.needs
				text := ""
				for _, d := range v.Damaged {
					text += d.Image + ": " + d.What + ": " + d.Problem + "\n"
					if !strings.HasPrefix(d.What, "blob") && !strings.Contains(d.Image, "one") && !strings.Contains(d.Image, "two") {
						t.Error("does not name the image:", d)
					}
					if d.Mended != whole && !strings.Contains(d.What, "layer") {
						t.Errorf("%+v", d)
					}
				}
				if want := c.number; whole && len(v.Damaged) != want || !strings.Contains(text, c.names) && whole {
					t.Fatalf("want %d damaged and %q in:\n%s", want, c.names, text)
				}
				if !whole {
					pw.withoutRegistry(t, s, archive)
				}
				if again, err := s.Verify(t.Context()); err != nil || len(again.Damaged) > 0 || len(s.Damaged()) > 0 {
					t.Fatal(again, err)
				}
				pw.sound(t, s, p.layers)
				s.Close()
				if pw.marked() {
					t.Fatal("the mark stays when all is mended")
				}
			})
		}
	}
}

// withoutRegistry finds the damage named, the other image untouched, and a load putting it right.
func (p *powered) withoutRegistry(t *testing.T, s *store.Store, archive []byte) {
	t.Helper()
	if len(s.Damaged()) == 0 {
		t.Fatal("what is damaged is not named")
	}
	if _, err := s.Resolve(t.Context(), "two:1", ""); err != nil {
		t.Fatal("the sound image:", err)
	}
	if err := s.Mend(t.Context(), "one:1"); err == nil {
		t.Fatal("mended from nothing")
	}
	if _, err := s.Resolve(t.Context(), "one:1", ""); err != nil && !errs.Is(err, errs.Damaged) {
		t.Fatal(err)
	}
	if _, err := transfer.Load(t.Context(), s, bytes.NewReader(archive), nil, nil); err != nil {
		t.Fatal("load again:", err)
	}
	if got := s.Damaged(); len(got) > 0 {
		t.Fatal("still damaged after a load:", got)
	}
	if _, err := s.Verify(t.Context()); err != nil { // the layers of what came back
		t.Fatal(err)
	}
}

// sound compares what containers see.
func (p *powered) sound(t *testing.T, s *store.Store, layers []string) {
	t.Helper()
	if _, err := s.Resolve(t.Context(), "one:1", ""); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(layers[0] + "/app"); err != nil || string(data) != "version 2" {
		t.Fatalf("app: %q %v", data, err)
	}
	sh, err := os.ReadFile(layers[1] + "/bin/sh")
	link, lerr := os.ReadFile(layers[1] + "/bin/link")
	if err != nil || lerr != nil || len(sh) != 350000 || !bytes.Equal(sh, link) {
		t.Fatal("sh:", len(sh), len(link), err, lerr)
	}
	if to, err := os.Readlink(layers[1] + "/bin/ash"); err != nil || to != "sh" {
		t.Fatal(to, err)
	}
	if st, err := os.Stat(layers[1] + "/etc"); err != nil || st.Mode().Perm() != 0o700 {
		t.Fatal(st, err)
	}
}

// A daemon that dies without the machine leaves nothing to verify, and one that only reads leaves no mark.
func TestDeathIsNoPowerCut(t *testing.T) {
	root := filepath.Join(t.TempDir(), "images")
	s := overlayStore(t, root)
	load(t, s, app(t, "a:1", 1))
	first := store.New(store.Config{Root: root})
	first.VerifyAfterCrash() // the mark is this boot's: would fail on the locked store
	s.Close()
	s = overlayStore(t, root)
	if _, err := s.Resolve(t.Context(), "a:1", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "dirty")); err == nil {
		t.Fatal("reading marks the store")
	}
}
