// Package imagetest makes small image archives for tests, sound and broken ones. It must be imported by tests only.
package imagetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// File is an entry of a layer. Zero owners become the test's own, so that tests run without root.
type File struct {
	Name string
	Kind byte // of archive/tar; 0 is a regular file, or a directory when Name ends with '/'
	Mode int64
	Data string
	Link string
	Pax  map[string]string
}

// Layer is the plain archive of the files.
func Layer(t testing.TB, files ...File) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Typeflag: f.Kind, Name: f.Name, Mode: f.Mode, Size: int64(len(f.Data)), Linkname: f.Link, PAXRecords: f.Pax,
			Uid: os.Getuid(), Gid: os.Getgid(), ModTime: time.Unix(1_700_000_000, 0)}
		if f.Kind == 0 {
			h.Typeflag = tar.TypeReg
			if strings.HasSuffix(f.Name, "/") {
				h.Typeflag = tar.TypeDir
			}
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if f.Kind == tar.TypeChar {
			h.Devmajor, h.Devminor = 1, 3
			if f.Data == "0/0" {
				h.Devmajor, h.Devminor = 0, 0
			}
			h.Size, f.Data = 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(f.Data))
	}
	w.Close()
	return b.Bytes()
}

// Gzip and Zstd pack.
func Gzip(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

// Zstd packs.
func Zstd(b []byte) []byte {
	var out bytes.Buffer
	w, _ := zstd.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

// Image describes an image to be put into an archive. Zero values give a sound one.
type Image struct {
	Tags    []string
	Layers  [][]byte // plain
	Pack    func([]byte) []byte
	Config  ocispec.ImageConfig
	Arch    string
	DiffIDs []digest.Digest // instead of the right ones
	Created time.Time

	Algorithm digest.Algorithm // of every digest; "" is SHA-256
}

func (i Image) digest(data []byte) digest.Digest {
	if i.Algorithm == "" {
		return digest.FromBytes(data)
	}
	return i.Algorithm.FromBytes(data)
}

func (i Image) config() ([]byte, [][]byte) {
	cfg := ocispec.Image{Config: i.Config, Created: &i.Created}
	cfg.OS, cfg.Architecture = "linux", i.Arch
	if i.Arch == "" {
		cfg.Architecture = "amd64"
	}
	cfg.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: i.DiffIDs}
	var packed [][]byte
	for _, l := range i.Layers {
		if i.DiffIDs == nil {
			cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, i.digest(l))
		}
		cfg.History = append(cfg.History, ocispec.History{CreatedBy: "test", Created: &i.Created})
		if i.Pack != nil {
			l = i.Pack(l)
		}
		packed = append(packed, l)
	}
	data, _ := json.Marshal(cfg)
	return data, packed
}

// Archive collects files.
type Archive struct {
	b bytes.Buffer
	w *tar.Writer
}

// NewArchive starts an archive.
func NewArchive() *Archive {
	a := &Archive{}
	a.w = tar.NewWriter(&a.b)
	return a
}

// Add puts a file into it.
func (a *Archive) Add(name string, data []byte) {
	a.w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))})
	a.w.Write(data)
}

// Bytes ends it.
func (a *Archive) Bytes() []byte {
	a.w.Close()
	return a.b.Bytes()
}

// Docker is the archive as `docker save` of old wrote it.
func Docker(images ...Image) []byte {
	a := NewArchive()
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var list []entry
	for _, i := range images {
		cfg, layers := i.config()
		e := entry{Config: digest.FromBytes(cfg).Encoded() + ".json", RepoTags: i.Tags}
		a.Add(e.Config, cfg)
		for _, l := range layers {
			name := digest.FromBytes(l).Encoded() + "/layer.tar"
			a.Add(name, l)
			e.Layers = append(e.Layers, name)
		}
		list = append(list, e)
	}
	data, _ := json.Marshal(list)
	a.Add("manifest.json", data)
	return a.Bytes()
}

// Archive1 is a Docker archive of one image with one layer, in a file of the given name, which comes first.
func Archive1(layer string, i Image) []byte {
	cfg, layers := i.config()
	a := NewArchive()
	a.Add(layer, layers[0])
	a.Add("config.json", cfg)
	data, _ := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": i.Tags, "Layers": []string{layer}}})
	a.Add("manifest.json", data)
	return a.Bytes()
}

// OCI is the archive of an OCI layout.
func OCI(images ...Image) []byte {
	a := NewArchive()
	added := map[digest.Digest]bool{}
	blob := func(i Image, mediaType string, data []byte) ocispec.Descriptor {
		d := i.digest(data)
		if !added[d] {
			added[d] = true
			a.Add("blobs/"+d.Algorithm().String()+"/"+d.Encoded(), data)
		}
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	for _, i := range images {
		cfg, layers := i.config()
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: blob(i, ocispec.MediaTypeImageConfig, cfg)}
		m.SchemaVersion = 2
		for _, l := range layers {
			m.Layers = append(m.Layers, blob(i, ocispec.MediaTypeImageLayerGzip, l))
		}
		data, _ := json.Marshal(m)
		d := blob(i, m.MediaType, data)
		for _, tag := range i.Tags {
			d.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
		}
		index.Manifests = append(index.Manifests, d)
	}
	a.Add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	data, _ := json.Marshal(index)
	a.Add("index.json", data)
	return a.Bytes()
}
