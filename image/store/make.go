package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/image/layer"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
)

// uncompressedLabel is where containerd keeps a packed layer's diff ID.
const uncompressedLabel = "containerd.io/uncompressed"

// Commit makes an image of a base image and an overlay's upper directory. It returns the image's ID.
func (s *Store) Commit(ctx context.Context, c model.ImageCommit) (id string, err error) {
	name, err := wantedName(c.Ref)
	if err != nil {
		return "", err
	}
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return "", err
	}
	ctx, done, err := b.lease(ctx)
	if err != nil {
		return "", err
	}
	defer func() {
		if done(); err != nil {
			s.Tidy(ctx)
		}
	}()
	img := model.Image{Platform: hostDefaults(c.Platform)}
	var layers []ocispec.Descriptor
	if c.Base != "" {
		base, d, err := s.resolve(ctx, b, c.Base, "")
		if err != nil {
			return "", errs.Wrap(err, "base image of the commit")
		}
		img.Platform, img.DiffIDs, img.History = base.Platform, slices.Clone(base.DiffIDs), slices.Clone(base.History)
		layers = ociLayers(d.layers)
	}
	img.Config = c.Config.Clone()
	if err := ApplyChanges(&img.Config, c.Changes); err != nil {
		return "", err
	}
	now := s.cfg.Clock.Now().UTC()
	img.Created, img.Origin.Author = now, c.Author
	step := model.ImageHistory{Created: now, CreatedBy: c.Command, Author: c.Author, Comment: c.Comment, EmptyLayer: true}
	if !emptyDir(c.Upper) {
		desc, diffID, err := b.packLayer(ctx, func(w io.Writer) error { return layer.Diff(ctx, w, c.Upper) })
		if err != nil {
			return "", errs.Wrap(err, "commit")
		}
		layers, img.DiffIDs = append(layers, desc), append(img.DiffIDs, diffID.String())
		step.EmptyLayer = false
	}
	img.History = append(img.History, step)
	id, err = s.writeImage(ctx, b, name, img, layers)
	if err == nil {
		s.tell("create", id, "", img.Config.Labels)
		s.named(id, name, img.Config.Labels)
	}
	return id, err
}

// Import makes an image of a root filesystem's archive, which may be packed with gzip, zstd or bzip2.
func (s *Store) Import(ctx context.Context, r io.Reader, i model.ImageImport) (id string, err error) {
	name, err := wantedName(i.Ref)
	if err != nil {
		return "", err
	}
	img := model.Image{Platform: hostDefaults(i.Platform), Created: s.cfg.Clock.Now().UTC()}
	if err := ApplyChanges(&img.Config, i.Changes); err != nil {
		return "", err
	}
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return "", err
	}
	ctx, done, err := b.lease(ctx)
	if err != nil {
		return "", err
	}
	defer func() {
		if done(); err != nil {
			s.Tidy(ctx)
		}
	}()
	desc, diffID, err := b.packLayer(ctx, func(w io.Writer) error { return layer.Repack(ctx, w, r) })
	if err != nil {
		return "", errs.Wrap(err, "import")
	}
	img.DiffIDs = []string{diffID.String()}
	img.History = []model.ImageHistory{{Created: img.Created, Comment: cmp.Or(i.Message, "Imported from -")}}
	id, err = s.writeImage(ctx, b, name, img, []ocispec.Descriptor{desc})
	if err == nil {
		s.named(id, name, img.Config.Labels)
		s.tell("import", id, "", img.Config.Labels)
	}
	return id, err
}

// named tells of the name that a new image got, if it got one.
func (s *Store) named(id, name string, labels map[string]string) {
	if ref, err := model.ParseReference(name); err == nil {
		s.tell("tag", id, ref.Familiar(), labels)
	}
}

func wantedName(ref string) (string, error) {
	if ref == "" {
		return "", nil
	}
	parsed, err := model.ParseReference(ref)
	if err != nil {
		return "", err
	}
	if parsed.Digest != "" {
		return "", errs.New(errs.Invalid, "cannot give the name %q: a digest belongs to content and cannot be chosen; use name:tag", ref)
	}
	return parsed.String(), nil
}

func hostDefaults(p model.Platform) model.Platform {
	host := platforms.DefaultSpec()
	if p.OS == "" {
		p.OS = host.OS
	}
	if p.Architecture == "" {
		p.Architecture = host.Architecture
		if p.Variant == "" && host.Architecture != "amd64" {
			p.Variant = host.Variant
		}
	}
	return p
}

func emptyDir(dir string) bool {
	if dir == "" {
		return true
	}
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	return errors.Is(err, io.EOF)
}

// ociLayers gives Docker's media types the names that OCI has for the same formats.
func ociLayers(list []ocispec.Descriptor) []ocispec.Descriptor {
	out := slices.Clone(list)
	for i, l := range out {
		out[i] = ocispec.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size}
		switch l.MediaType {
		case "application/vnd.docker.image.rootfs.diff.tar.gzip":
			out[i].MediaType = ocispec.MediaTypeImageLayerGzip
		case "application/vnd.docker.image.rootfs.diff.tar":
			out[i].MediaType = ocispec.MediaTypeImageLayer
		case "application/vnd.docker.image.rootfs.diff.tar.zstd":
			out[i].MediaType = ocispec.MediaTypeImageLayerZstd
		}
	}
	return out
}

// packLayer stores what write writes as a gzip layer; the packing runs beside the writing.
func (b *backend) packLayer(ctx context.Context, write func(io.Writer) error) (ocispec.Descriptor, digest.Digest, error) {
	fail := func(err error) (ocispec.Descriptor, digest.Digest, error) { return ocispec.Descriptor{}, "", err }
	ref := "layer-" + ids.New()
	w, err := content.OpenWriter(ctx, b.content, content.WithRef(ref))
	if err != nil {
		return fail(classify(err))
	}
	defer b.content.Abort(context.WithoutCancel(ctx), ref)
	defer w.Close()
	pr, pw := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		z := layer.Compress(w)
		_, err := io.CopyBuffer(z, struct{ io.Reader }{pr}, make([]byte, 1<<17))
		if err == nil {
			err = z.Close()
		}
		pr.CloseWithError(err)
		packed <- err
	}()
	diffID := digest.Canonical.Digester()
	err = write(io.MultiWriter(pw, diffID.Hash()))
	pw.CloseWithError(err)
	if perr := <-packed; err == nil {
		err = perr
	}
	if err != nil {
		return fail(err)
	}
	st, err := w.Status()
	if err != nil {
		return fail(classify(err))
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: w.Digest(), Size: st.Offset}
	labels := content.WithLabels(map[string]string{uncompressedLabel: diffID.Digest().String()})
	if err := w.Commit(ctx, desc.Size, desc.Digest, labels); err != nil && !errdefs.IsAlreadyExists(err) {
		return fail(classify(err))
	}
	return desc, diffID.Digest(), nil
}

// writeImage stores config and manifest and records the name.
func (s *Store) writeImage(ctx context.Context, b *backend, name string, img model.Image, layers []ocispec.Descriptor) (string, error) {
	config, err := b.writeDocument(ctx, ocispec.MediaTypeImageConfig, configFor(img))
	if err != nil {
		return "", err
	}
	if layers == nil {
		layers = []ocispec.Descriptor{}
	}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers}
	target, err := b.writeDocument(ctx, manifest.MediaType, manifest)
	if err != nil {
		return "", err
	}
	return s.Record(ctx, name, target)
}

func (b *backend) writeDocument(ctx context.Context, mediaType string, doc any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(doc)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	ref := strings.ReplaceAll("document-"+desc.Digest.String(), ":", "-")
	return desc, classify(content.WriteBlob(ctx, b.content, ref, bytes.NewReader(data), desc))
}
