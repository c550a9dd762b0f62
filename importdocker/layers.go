package importdocker

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/openat"
)

// blob is content that goes into an archive.
type blob struct {
	ocispec.Descriptor
	write func(io.Writer) error
}

func bytesBlob(mediaType string, data []byte) blob {
	return blob{ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))},
		func(w io.Writer) error { _, err := w.Write(data); return err }}
}

// overlayDirs are the storage drivers whose layers are directories of changes, by the place of a layer in Docker's data.
var overlayDirs = map[string]string{"overlay2": "overlay2", "fuse-overlayfs": "fuse-overlayfs"}

// layer finds a layer of Docker's own store by what is under it, and measures the archive it was made of: Docker keeps the
// headers of that (tar-split), and the content in the layer's directory.
func (s *Source) layer(driver string, chain digest.Digest, diffID digest.Digest) (blob, error) {
	db := filepath.Join(s.dir, "image", driver, "layerdb", chain.Algorithm().String(), chain.Encoded())
	id, err := os.ReadFile(filepath.Join(db, "cache-id"))
	if err != nil {
		return blob{}, errs.New(errs.Damaged, "layer %s: %w", diffID, err)
	}
	split := filepath.Join(db, "tar-split.json.gz")
	size, err := splitSize(split)
	if err != nil {
		return blob{}, errs.New(errs.Damaged, "layer %s: %w", diffID, err)
	}
	dir := filepath.Join(s.dir, overlayDirs[driver], filepath.Base(strings.TrimSpace(string(id))), "diff")
	return blob{ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: diffID, Size: size},
		func(w io.Writer) error { return errs.Wrap(assemble(w, split, dir), "layer %s", diffID) }}, nil
}

func openSplit(path string) (storage.Unpacker, io.Closer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return storage.NewJSONUnpacker(z), f, nil
}

// splitSize is the size of the archive.
func splitSize(path string) (size int64, err error) {
	up, f, err := openSplit(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for {
		e, err := up.Next()
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return 0, err
		}
		switch e.Type {
		case storage.FileType:
			if e.Size < 0 {
				return 0, errs.New(errs.Damaged, "%s: a file of %d bytes", path, e.Size)
			}
			size += e.Size
		case storage.SegmentType:
			size += int64(len(e.Payload))
		}
	}
}

// assemble writes the archive.
func assemble(w io.Writer, split, dir string) error {
	up, f, err := openSplit(split)
	if err != nil {
		return err
	}
	defer f.Close()
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return errs.New(errs.Damaged, "open %s: %w", dir, err)
	}
	defer unix.Close(root)
	return asm.WriteOutputTarStream(inLayer(root), up, w)
}

// inLayer opens files of a layer. Names and links are an image's, so they are resolved within the layer.
type inLayer int

func (l inLayer) Get(name string) (io.ReadCloser, error) {
	f, err := openat.RegularIn(int(l), name, 0) // an image may have had a device come after a file of that name
	if err != nil {
		return nil, errs.New(errs.Damaged, "open %s: %w", name, err)
	}
	return f, nil
}

// bundle is an image as an archive in the OCI layout has it.
type bundle struct {
	blobs []blob
	top   ocispec.Descriptor // what names point to
}

const annotationName = "io.containerd.image.name"

// tops are the index's elements, one per name.
func (b *bundle) tops(names []string) []ocispec.Descriptor {
	if len(names) == 0 {
		return []ocispec.Descriptor{b.top}
	}
	var out []ocispec.Descriptor
	for _, n := range names {
		d := b.top
		d.Annotations = map[string]string{annotationName: n}
		out = append(out, d)
	}
	return out
}

// write writes the archive. Blobs in sent are in the engine's store already; what is written is added to it.
func (b *bundle) write(ctx context.Context, out io.Writer, names []string, sent map[digest.Digest]bool) error {
	w := tar.NewWriter(out)
	file := func(name string, size int64, write func(io.Writer) error) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644}); err != nil {
			return err
		}
		return write(w)
	}
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: b.tops(names)})
	if err != nil {
		return err
	}
	layout := bytesBlob("", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	if err := file(ocispec.ImageLayoutFile, layout.Size, layout.write); err != nil {
		return err
	}
	ib := bytesBlob("", index)
	if err := file(ocispec.ImageIndexFile, ib.Size, ib.write); err != nil {
		return err
	}
	here := map[digest.Digest]bool{}
	for _, bl := range b.blobs {
		if sent[bl.Digest] || here[bl.Digest] {
			continue
		}
		here[bl.Digest] = true
		if err := file("blobs/"+bl.Digest.Algorithm().String()+"/"+bl.Digest.Encoded(), bl.Size, bl.write); err != nil {
			return err
		}
	}
	return w.Close()
}

// mark notes that all blobs are in the engine's store.
func (b *bundle) mark(sent map[digest.Digest]bool) {
	for _, bl := range b.blobs {
		sent[bl.Digest] = true
	}
}

// chainIDs are the names of an image's layers with what is under them.
func chainIDs(diffIDs []digest.Digest) []digest.Digest {
	return identity.ChainIDs(append([]digest.Digest(nil), diffIDs...))
}
