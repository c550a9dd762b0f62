//go:build kernel

package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/image/registry"
	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/image/transfer"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// The disk is full in the middle of a pull and of a load: by what the store keeps free, and, with files too small for that to be
// looked at, by the disk itself. It is said, nothing is recorded, and with more room the same goes through.
func TestDiskFullForReal(t *testing.T) {
	for _, c := range []struct {
		disk, more string
		size       int
	}{{"6m", "64m", 8 << 20}, {"150m", "400m", 48 << 20}} {
		random := make([]byte, c.size/2) // so that packing and the filesystem cannot make it small
		rand.NewChaCha8([32]byte{1}).Read(random)
		layer := imagetest.Layer(t, imagetest.File{Name: "small", Data: "x"}, imagetest.File{Name: "a", Data: string(random)}, imagetest.File{Name: "b", Data: string(random)})
		for _, how := range []string{"pull", "load"} {
			t.Run(fmt.Sprintf("%s on %s", how, c.disk), func(t *testing.T) {
				dir := t.TempDir()
				if err := unix.Mount("small", dir, "tmpfs", 0, "size="+c.disk); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil { // containerd forgets to close a file
						t.Error(err)
					}
				})
				r := &rig{t: t, store: store.New(store.Config{Root: dir + "/images", Driver: store.DriverOverlay})}
				t.Cleanup(func() { r.store.Close() })
				r.client = registry.New(registry.Config{Store: r.store, Settings: func() registry.Settings { return registry.Settings{Attempts: 2} }, Clock: hurry{}})
				f, addr := newFake(t)
				name := addr + "/big:1"
				f.put("1", ocispec.MediaTypeImageManifest, bigImage(f, layer))
				bring := func() error { return r.pull(name, nil) }
				if how == "load" {
					archive := imagetest.OCI(imagetest.Image{Tags: []string{name}, Layers: [][]byte{layer}, Pack: imagetest.Gzip})
					bring = func() error {
						_, err := transfer.Load(t.Context(), r.store, bytes.NewReader(archive), nil, nil)
						return err
					}
				}
				err := bring()
				if !errs.Is(err, errs.Exhausted) || !strings.Contains(err.Error(), "free some space") {
					t.Errorf("%v: %v", errs.KindOf(err), err)
				}
				if u, err := r.store.DiskUsage(t.Context()); err != nil || len(u.Images) > 0 {
					t.Errorf("recorded: %+v %v", u, err)
				}
				if err := unix.Mount("small", dir, "tmpfs", unix.MS_REMOUNT, "size="+c.more); err != nil {
					t.Fatal(err)
				}
				if err := bring(); err != nil {
					t.Fatal("with more room:", err)
				}
				if _, err := r.store.Remove(t.Context(), name, model.ImageRemoveOptions{}); err != nil {
					t.Fatal(err)
				}
				if u, err := r.store.DiskUsage(t.Context()); err != nil || u.ContentSize+u.LayersSize > 0 {
					t.Errorf("left: %+v %v", u, err)
				}
			})
		}
	}
}

// bigImage is the manifest of an image of one layer.
func bigImage(f *fake, layer []byte) ocispec.Manifest {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	m.Layers = []ocispec.Descriptor{f.blob(ocispec.MediaTypeImageLayer, layer)}
	config, _ := json.Marshal(ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}}})
	m.Config = f.blob(ocispec.MediaTypeImageConfig, config)
	return m
}
