package registry_test

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/image/registry"
	"github.com/shoalhq/shoal/image/server"
	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/image/transfer"
	"github.com/shoalhq/shoal/lib/clock"
	"github.com/shoalhq/shoal/lib/errs"
)

// An image with digests of another algorithm is pushed to the built-in registry and pulled from it by tag and by digest.
func TestOtherAlgorithms(t *testing.T) {
	for _, a := range []digest.Algorithm{digest.SHA512, digest.SHA384} {
		kept := store.New(store.Config{Root: filepath.Join(t.TempDir(), "images"), Driver: store.DriverNative})
		reg, err := server.New(server.Config{Dir: filepath.Join(t.TempDir(), "registry"), Store: kept, Clock: clock.Real{}})
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewServer(reg)
		t.Cleanup(func() { s.Close(); reg.Close(); kept.Close() })
		name := strings.TrimPrefix(s.URL, "http://") + "/team/app"
		r := newRig(t, registry.Settings{})
		img := imagetest.Image{Tags: []string{name + ":1"}, Algorithm: a, Pack: imagetest.Gzip, Layers: [][]byte{imagetest.Layer(t, imagetest.File{Name: "f", Data: "x"})}}
		loaded, err := transfer.Load(t.Context(), r.store, bytes.NewReader(imagetest.OCI(img)), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.client.Push(t.Context(), name+":1", "", nil, nil); err != nil {
			t.Fatal(a, err)
		}
		got, err := r.store.Resolve(t.Context(), name+":1", "")
		if err != nil || len(got.RepoDigests) != 1 || !strings.Contains(got.RepoDigests[0], "@"+a.String()+":") {
			t.Fatalf("%+v %v", got.RepoDigests, err)
		}
		for _, ref := range []string{name + ":1", got.RepoDigests[0]} {
			other := newRig(t, registry.Settings{})
			if err := other.pull(ref, nil); err != nil {
				t.Fatal(ref, err)
			}
			if img, err := other.store.Resolve(t.Context(), ref, ""); err != nil || img.ID != loaded[0].ID {
				t.Errorf("%s: %+v %v", ref, img.ID, err)
			}
		}
	}
}

// A registry that gives other content for a digest of another algorithm is found out, too.
func TestLiesInOtherAlgorithms(t *testing.T) {
	f, addr := newFake(t)
	var m map[string]any
	json.Unmarshal(f.manifests["1"], &m)
	layers := m["layers"].([]any)
	wrong := digest.SHA512.FromString("something else")
	layers[1].(map[string]any)["digest"] = wrong
	f.put("1", f.types["1"], m)
	f.blobs[wrong.String()] = f.blobs[f.layer.Digest.String()]
	r := newRig(t, registry.Settings{})
	r.refused(r.pull(addr+"/app:1", nil), errs.Damaged, "verification failed")
}
