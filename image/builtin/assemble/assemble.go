// Package assemble makes the built-in images at build time: it compiles their programs, writes their one layer, config
// and manifest, and puts them into an OCI archive. The same sources and the same Go give the same bytes. It must not be
// linked into anything that is shipped.
package assemble

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one image to make.
type Image struct {
	Name     string
	Programs map[string]string // path in the image → Go package
	Links    map[string]string // path in the image → where the symbolic link points
	Files    map[string]string // path in the image → content
	Dirs     map[string]int64  // path in the image → mode
	Config   dockerspec.DockerOCIImageConfig
	About    string // for the label org.opencontainers.image.description
}

// Options say for what and where.
type Options struct {
	GOARCH string
	Out    string    // directory of the archives
	Module string    // directory of the module
	Time   time.Time // of everything in the images
}

// Make writes the image's archive to Out/NAME.oci.tar and returns its manifest's digest.
func Make(ctx context.Context, img Image, o Options) (digest.Digest, error) {
	work, err := os.MkdirTemp("", "build-images-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	var entries []entry
	for dir, mode := range img.Dirs {
		entries = append(entries, entry{name: dir, mode: mode, kind: tar.TypeDir})
	}
	for name, content := range img.Files {
		entries = append(entries, entry{name: name, mode: 0o644, kind: tar.TypeReg, data: []byte(content)})
	}
	for name, to := range img.Links {
		entries = append(entries, entry{name: name, mode: 0o777, kind: tar.TypeSymlink, link: to})
	}
	for name, pkg := range img.Programs {
		data, err := compile(ctx, pkg, filepath.Join(work, path.Base(name)), o)
		if err != nil {
			return "", err
		}
		entries = append(entries, entry{name: name, mode: 0o755, kind: tar.TypeReg, data: data})
	}
	layer, diffID, err := writeLayer(withParents(entries), o.Time)
	if err != nil {
		return "", err
	}
	return writeArchive(img, o, layer, diffID)
}

func compile(ctx context.Context, pkg, out string, o Options) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, pkg)
	cmd.Dir = o.Module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+o.GOARCH, "GOAMD64=v1", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile %s: %w\n%s", pkg, err, text)
	}
	return os.ReadFile(out)
}

type entry struct {
	name string // absolute
	mode int64
	kind byte
	link string
	data []byte
}

// withParents adds the directories that are only implied and sorts everything by name.
func withParents(list []entry) []entry {
	have := map[string]bool{"/": true}
	for _, e := range list {
		have[e.name] = true
	}
	for _, e := range list[:len(list):len(list)] {
		for dir := path.Dir(e.name); !have[dir]; dir = path.Dir(dir) {
			have[dir] = true
			list = append(list, entry{name: dir, mode: 0o755, kind: tar.TypeDir})
		}
	}
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return list
}

func writeLayer(list []entry, at time.Time) ([]byte, digest.Digest, error) {
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, "", err
	}
	sum := sha256.New()
	w := tar.NewWriter(io.MultiWriter(z, sum))
	for _, e := range list {
		h := &tar.Header{Typeflag: e.kind, Name: strings.TrimPrefix(e.name, "/"), Linkname: e.link, Mode: e.mode, Size: int64(len(e.data)),
			ModTime: at, Format: tar.FormatUSTAR}
		if e.kind == tar.TypeDir {
			h.Name += "/"
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, "", fmt.Errorf("%s: %w", e.name, err)
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, "", err
		}
	}
	if err := w.Close(); err != nil {
		return nil, "", err
	}
	if err := z.Close(); err != nil {
		return nil, "", err
	}
	return packed.Bytes(), digest.NewDigest(digest.SHA256, sum), nil
}

// writeArchive writes an OCI layout that is a Docker archive as well.
func writeArchive(img Image, o Options, layer []byte, diffID digest.Digest) (digest.Digest, error) {
	cfg := dockerspec.DockerOCIImage{Config: img.Config}
	cfg.Created = &o.Time
	cfg.OS, cfg.Architecture = "linux", o.GOARCH
	cfg.RootFS.Type, cfg.RootFS.DiffIDs = "layers", []digest.Digest{diffID}
	cfg.History = []ocispec.History{{Created: &o.Time, CreatedBy: "cmd/build-images", Comment: img.About}}
	if cfg.Config.Labels == nil {
		cfg.Config.Labels = map[string]string{}
	}
	cfg.Config.Labels[ocispec.AnnotationTitle] = img.Name
	cfg.Config.Labels[ocispec.AnnotationDescription] = img.About
	var b blobs
	config := b.json(ocispec.MediaTypeImageConfig, cfg)
	packed := b.add(ocispec.MediaTypeImageLayerGzip, layer)
	manifest := b.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{packed}})
	name := "docker.io/library/" + img.Name + ":latest"
	manifest.Platform = &ocispec.Platform{OS: "linux", Architecture: o.GOARCH}
	manifest.Annotations = map[string]string{"io.containerd.image.name": name, ocispec.AnnotationRefName: "latest"}
	b.file(ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	b.file(ocispec.ImageIndexFile, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{manifest}})
	b.file("manifest.json", []map[string]any{{"Config": blobPath(config.Digest), "RepoTags": []string{img.Name + ":latest"},
		"Layers": []string{blobPath(packed.Digest)}}})
	if b.err != nil {
		return "", b.err
	}
	return manifest.Digest, b.write(filepath.Join(o.Out, img.Name+".oci.tar"), o.Time)
}

type blobs struct {
	list []entry
	err  error
}

func blobPath(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

func (b *blobs) add(mediaType string, data []byte) ocispec.Descriptor {
	sum := sha256.Sum256(data)
	d := digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(sum[:]))
	b.list = append(b.list, entry{name: "/" + blobPath(d), mode: 0o644, kind: tar.TypeReg, data: data})
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (b *blobs) json(mediaType string, v any) ocispec.Descriptor {
	data, err := json.Marshal(v)
	if err != nil {
		b.err = err
	}
	return b.add(mediaType, data)
}

func (b *blobs) file(name string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		b.err = err
	}
	b.list = append(b.list, entry{name: "/" + name, mode: 0o644, kind: tar.TypeReg, data: data})
}

// write makes the archive; the name appears when it is whole.
func (b *blobs) write(file string, at time.Time) error {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range withParents(b.list) {
		h := &tar.Header{Typeflag: e.kind, Name: strings.TrimPrefix(e.name, "/"), Mode: e.mode, Size: int64(len(e.data)), ModTime: at, Format: tar.FormatUSTAR}
		if e.kind == tar.TypeDir {
			h.Name += "/"
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := w.Write(e.data); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, out.Bytes()) {
		return nil // unchanged: what embeds it need not be linked again
	}
	if err := os.WriteFile(file+".new", out.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
