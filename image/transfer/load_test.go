package transfer

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// open makes a store with the driver that needs no root.
func open(t testing.TB) *store.Store {
	s := store.New(store.Config{Root: filepath.Join(t.TempDir(), "images"), Driver: store.DriverNative})
	t.Cleanup(func() { s.Close() })
	return s
}

func load(t testing.TB, s *store.Store, archive []byte) []Loaded {
	t.Helper()
	out, err := Load(t.Context(), s, bytes.NewReader(archive), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tree lists what the image's root filesystem has.
func tree(t testing.TB, s *store.Store, id string) string {
	t.Helper()
	dirs, err := s.Lowers(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	filepath.WalkDir(dirs[0], func(path string, d os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dirs[0], path); rel != "." {
			out = append(out, rel)
		}
		return err
	})
	return strings.Join(out, " ")
}

func sample(t testing.TB) imagetest.Image {
	return imagetest.Image{Tags: []string{"app:1"}, Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Config: ocispec.ImageConfig{Cmd: []string{"/bin/app"}, Labels: map[string]string{"a": "b"}},
		Layers: [][]byte{
			imagetest.Layer(t, imagetest.File{Name: "bin/"}, imagetest.File{Name: "bin/app", Data: "program"}, imagetest.File{Name: "tmp/old", Data: "x"}, imagetest.File{Name: "dir/a"}, imagetest.File{Name: "dir/b"}),
			imagetest.Layer(t, imagetest.File{Name: "tmp/.wh.old"}, imagetest.File{Name: "dir/.wh..wh..opq"}, imagetest.File{Name: "dir/c"}),
		}}
}

func TestLoadAllFormats(t *testing.T) {
	img := sample(t)
	for name, archive := range map[string]func() []byte{
		"docker":         func() []byte { return imagetest.Docker(img) },
		"docker, gzip":   func() []byte { i := img; i.Pack = imagetest.Gzip; return imagetest.Gzip(imagetest.Docker(i)) },
		"oci, gzip":      func() []byte { i := img; i.Pack = imagetest.Gzip; return imagetest.OCI(i) },
		"oci, zstd":      func() []byte { i := img; i.Pack = imagetest.Zstd; return imagetest.Zstd(imagetest.OCI(i)) },
		"oci, untouched": func() []byte { return imagetest.OCI(img) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			var said []string
			out, err := Load(t.Context(), s, bytes.NewReader(archive()), nil, func(p model.ImageProgress) { said = append(said, p.Action) })
			if err != nil || len(out) != 1 || out[0].Name != "app:1" {
				t.Fatal(out, err)
			}
			if got := tree(t, s, out[0].ID); got != "bin bin/app dir dir/c tmp" {
				t.Fatal(got)
			}
			got, err := s.Resolve(t.Context(), "app:1", "")
			if err != nil || got.ID != out[0].ID || got.Config.Labels["a"] != "b" || len(got.History) != 2 || got.Size == 0 {
				t.Fatalf("%+v %v", got, err)
			}
			if said[len(said)-1] != "Loaded image: app:1" {
				t.Fatal(said)
			}
		})
	}
}

// Nothing takes a digest for one of SHA-256: images of other algorithms are loaded, named, saved and removed.
func TestOtherAlgorithms(t *testing.T) {
	for _, a := range []digest.Algorithm{digest.SHA512, digest.SHA384} {
		s := open(t)
		img := sample(t)
		img.Algorithm, img.Pack = a, imagetest.Gzip
		id := load(t, s, imagetest.OCI(img))[0].ID
		if !strings.HasPrefix(id, a.String()+":") {
			t.Fatal(id)
		}
		if got := tree(t, s, id); got != "bin bin/app dir dir/c tmp" {
			t.Fatal(got)
		}
		hex := id[len(a)+1:]
		for _, ref := range []string{"app:1", id, hex, hex[:12], id[:20]} {
			if got, err := s.Resolve(t.Context(), ref, ""); err != nil || got.ID != id {
				t.Errorf("%s: %+v %v", ref, got.ID, err)
			}
		}
		var b bytes.Buffer
		if err := Save(t.Context(), s, []string{"app:1"}, nil, &b); err != nil {
			t.Fatal(err)
		}
		if got := load(t, open(t), b.Bytes())[0].ID; got != id {
			t.Errorf("saved and loaded it is %s, not %s", got, id)
		}
		img.Layers[0] = imagetest.Layer(t, imagetest.File{Name: "other"})
		img.DiffIDs = []digest.Digest{a.FromString("a"), a.FromString("b")}
		if _, err := Load(t.Context(), s, bytes.NewReader(imagetest.OCI(img)), nil, nil); !errs.Is(err, errs.Damaged) {
			t.Errorf("wrong diff ID: %v", err)
		}
		if _, err := s.Remove(t.Context(), hex[:12], model.ImageRemoveOptions{}); err != nil {
			t.Fatal(err)
		}
		if u, err := s.DiskUsage(t.Context()); err != nil || u.ContentSize+u.LayersSize > 0 {
			t.Errorf("left on disk: %+v %v", u, err)
		}
	}
}

func TestSaveAndLoadAgain(t *testing.T) {
	s := open(t)
	id := load(t, s, imagetest.Docker(sample(t)))[0].ID
	if err := s.Tag(t.Context(), "app:1", "host:5000/team/app:2"); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(t.Context(), "app:1", "app:2"); err != nil {
		t.Fatal(err)
	}
	for refs, want := range map[string]string{"app:1": "app:1", "app": "app:1 app:2", id: "", "host:5000/team/app:2 app:1": "app:1 host:5000/team/app:2"} {
		var b bytes.Buffer
		if err := Save(t.Context(), s, strings.Fields(refs), nil, &b); err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(b.Bytes(), []byte("manifest.json")) || !bytes.Contains(b.Bytes(), []byte("oci-layout")) {
			t.Fatal("not both formats")
		}
		other := open(t)
		load(t, other, b.Bytes())
		got, err := other.Resolve(t.Context(), id, "")
		if err != nil || strings.Join(got.RepoTags, " ") != want || got.ID != id {
			t.Fatalf("%s: %v %v", refs, got.RepoTags, err)
		}
	}
	if err := Save(t.Context(), s, []string{"none"}, nil, &bytes.Buffer{}); !errs.Is(err, errs.NotFound) {
		t.Fatal(err)
	}
}

// What is broken is refused with a reason, and nothing of it stays.
func TestBrokenArchives(t *testing.T) {
	img := sample(t)
	whole := imagetest.OCI(img)
	manifestOf := func(v any) []byte {
		a := imagetest.NewArchive()
		data, _ := json.Marshal(v)
		a.Add("manifest.json", data)
		return a.Bytes()
	}
	indexOf := func(m ocispec.Descriptor) []byte {
		a := imagetest.NewArchive()
		a.Add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
		data, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{m}})
		a.Add("index.json", data)
		return a.Bytes()
	}
	wrong := img
	wrong.DiffIDs = []digest.Digest{digest.FromString("a"), digest.FromString("b")}
	few := img
	few.DiffIDs = wrong.DiffIDs[:1]
	odd := img
	odd.DiffIDs = []digest.Digest{"sha256:x", "../../../etc"}
	torn := img
	torn.Layers = [][]byte{img.Layers[0][:700]}
	tall := img
	tall.Layers = slices.Repeat(img.Layers[:1], 501)
	for name, c := range map[string]struct {
		archive []byte
		says    string
	}{
		"too many layers":      {imagetest.OCI(tall), "501 layers; at most 500"},
		"empty":                {nil, "no image"},
		"not a tar":            {[]byte(strings.Repeat("hello ", 500)), "malformed"},
		"truncated":            {whole[:len(whole)/2], "malformed"},
		"torn gzip":            {imagetest.Gzip(whole)[:400], ""},
		"a root filesystem":    {img.Layers[0], "shoal import"},
		"wrong diff ID":        {imagetest.OCI(wrong), "tampered"},
		"too few diff IDs":     {imagetest.Docker(few), "names 1 layers"},
		"diff IDs are none":    {imagetest.Docker(odd), "sha256:x"},
		"layer is torn":        {imagetest.Docker(torn), ""},
		"config is missing":    {manifestOf([]map[string]any{{"Config": "x.json"}}), "x.json"},
		"manifest is missing":  {indexOf(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 3}), "not whole"},
		"digest is none":       {indexOf(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: "sha256:../../x"}), "../../x"},
		"digest is empty":      {indexOf(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest}), "digest"},
		"media type is none":   {indexOf(ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString("x")}), "not whole"},
		"manifest.json is odd": {manifestOf(map[string]any{"a": 1}), "manifest.json"},
		"no images":            {manifestOf([]string{}), "no image"},
		"tag is none":          {imagetest.Docker(imagetest.Image{Tags: []string{"A B"}, Layers: img.Layers}), "A B"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			_, err := Load(t.Context(), s, bytes.NewReader(c.archive), nil, nil)
			if err == nil || !strings.Contains(err.Error(), c.says) || errs.Is(err, errs.Internal) {
				t.Fatalf("%v: %v", errs.KindOf(err), err)
			}
			if list, err := s.List(t.Context(), store.ListOptions{}); err != nil || len(list) > 0 {
				t.Fatal(list, err)
			}
			if u, err := s.DiskUsage(t.Context()); err != nil || u.ContentSize+u.LayersSize > 0 {
				t.Fatalf("left on disk: %+v %v", u, err)
			}
		})
	}
}

// An archive that was cut off must not leave the beginning of a file to the next one that has a file of that name.
func TestCutOffArchiveDoesNotSpoilTheNext(t *testing.T) {
	s := open(t)
	big := func(fill string) imagetest.Image {
		return imagetest.Image{Tags: []string{"big:" + fill}, Layers: [][]byte{imagetest.Layer(t, imagetest.File{Name: "big", Data: strings.Repeat(fill, 1<<20)})}}
	}
	first := imagetest.Archive1("layer.tar", big("a"))
	if _, err := Load(t.Context(), s, bytes.NewReader(first[:len(first)/2]), nil, nil); err == nil {
		t.Fatal("half an archive was loaded")
	}
	if out := load(t, s, imagetest.Archive1("layer.tar", big("b"))); out[0].Name != "big:b" {
		t.Fatal(out)
	}
}

func FuzzLoad(f *testing.F) {
	img := sample(f)
	f.Add(imagetest.OCI(img))
	f.Add(imagetest.Docker(img))
	f.Add(imagetest.Gzip(imagetest.OCI(img)))
	s := open(f) // one for all: what is refused leaves nothing
	f.Fuzz(func(t *testing.T, archive []byte) {
		out, err := Load(t.Context(), s, bytes.NewReader(archive), nil, nil)
		if err != nil {
			return
		}
		for _, l := range out {
			if _, err := s.Lowers(t.Context(), l.ID); err != nil {
				t.Fatal("loaded, but not whole:", err)
			}
		}
	})
}
