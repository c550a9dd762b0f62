package oci

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
)

// maxDepth bounds indexes within indexes.
const maxDepth = 4

func imageValidate(fs *pflag.FlagSet) func(context.Context, []string, io.Writer) (int, error) {
	r := newReport(fs)
	return func(ctx context.Context, args []string, out io.Writer) (int, error) {
		if err := checkFormat(*r.format); err != nil {
			return exitUsage, err
		}
		r.Path = args[0]
		l, err := openLayout(ctx, args[0])
		if err != nil {
			return cannotOpen(err), err
		}
		defer l.close()
		v := &imageValidator{report: r, l: l, seen: map[digest.Digest]bool{}}
		v.all(ctx)
		r.Summary = fmt.Sprintf("%d images, %d layers", v.images, v.layers)
		if err := ctx.Err(); err != nil {
			return exitUsage, err
		}
		return r.write(out)
	}
}

// imageValidator goes through a layout by the image specification 1.1.
type imageValidator struct {
	*report
	l              *layout
	seen           map[digest.Digest]bool
	images, layers int
}

func (v *imageValidator) all(ctx context.Context) {
	var mark ocispec.ImageLayout
	if err := v.l.read(ocispec.ImageLayoutFile, &mark); err != nil {
		v.wrong(ocispec.ImageLayoutFile, "%v", err)
	} else if mark.Version != ocispec.ImageLayoutVersion {
		v.wrong(ocispec.ImageLayoutFile, "imageLayoutVersion is %q, want %q", mark.Version, ocispec.ImageLayoutVersion)
	}
	if v.l.index.SchemaVersion != 2 {
		v.wrong(ocispec.ImageIndexFile, "schemaVersion is %d, want 2", v.l.index.SchemaVersion)
	}
	if v.l.index.MediaType != "" && !images.IsIndexType(v.l.index.MediaType) {
		v.wrong(ocispec.ImageIndexFile, "mediaType is %q, want %q", v.l.index.MediaType, ocispec.MediaTypeImageIndex)
	}
	if len(v.l.index.Manifests) == 0 {
		v.warn(ocispec.ImageIndexFile, "names no image")
	}
	names := map[string]bool{}
	for i, m := range v.l.index.Manifests {
		if name := m.Annotations[ocispec.AnnotationRefName]; name != "" {
			if names[name] {
				v.warn(ocispec.ImageIndexFile, "the name %q is there more than once", name)
			}
			names[name] = true
		}
		v.descriptor(ctx, fmt.Sprintf("%s: manifests[%d]", ocispec.ImageIndexFile, i), m, 0)
	}
}

// descriptor looks at what an index names.
func (v *imageValidator) descriptor(ctx context.Context, where string, desc ocispec.Descriptor, depth int) {
	if v.seen[desc.Digest] || ctx.Err() != nil {
		return
	}
	v.seen[desc.Digest] = true
	if depth > maxDepth {
		v.wrong(where, "more than %d indexes within each other", maxDepth)
		return
	}
	if desc.MediaType == "" {
		v.wrong(where, "mediaType is missing")
	}
	if strings.HasPrefix(desc.MediaType, "application/vnd.docker.") {
		v.warn(where, "%s is Docker's media type, not the specification's", desc.MediaType)
	}
	switch {
	case images.IsIndexType(desc.MediaType):
		var index ocispec.Index
		if err := v.l.document(desc, &index); err != nil {
			v.wrong(where, "index %s: %v", desc.Digest, err)
			return
		}
		where = "index " + desc.Digest.String()
		v.kind(where, index.SchemaVersion, index.MediaType, desc.MediaType)
		for i, m := range index.Manifests {
			v.descriptor(ctx, fmt.Sprintf("%s: manifests[%d]", where, i), m, depth+1)
		}
	case images.IsManifestType(desc.MediaType):
		v.manifest(ctx, where, desc)
	default:
		v.warn(where, "%s is neither a manifest nor an index; it is verified as a blob only", desc.MediaType)
		if err := v.l.verify(desc); err != nil {
			v.wrong(where, "blob %s: %v", desc.Digest, err)
		}
	}
}

func (v *imageValidator) kind(where string, schema int, own, said string) {
	if schema != 2 {
		v.wrong(where, "schemaVersion is %d, want 2", schema)
	}
	if own != "" && own != said {
		v.wrong(where, "mediaType is %q, its descriptor says %q", own, said)
	}
}

func (v *imageValidator) manifest(ctx context.Context, where string, desc ocispec.Descriptor) {
	var m ocispec.Manifest
	if err := v.l.document(desc, &m); err != nil {
		v.wrong(where, "manifest %s: %v", desc.Digest, err)
		return
	}
	v.images++
	where = "manifest " + desc.Digest.String()
	v.kind(where, m.SchemaVersion, m.MediaType, desc.MediaType)
	if m.Config.Digest == "" {
		v.wrong(where, "config is missing")
		return
	}
	if !images.IsConfigType(m.Config.MediaType) {
		if m.ArtifactType == "" && m.Config.MediaType == ocispec.MediaTypeEmptyJSON {
			v.wrong(where, "artifactType is missing, which an empty config demands")
		}
		for i, l := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
			if err := v.l.verify(l); err != nil {
				v.wrong(where, "blob %d (%s): %v", i, l.Digest, err)
			}
		}
		return // an artifact: what its blobs are is its own business
	}
	var cfg ocispec.Image
	if err := v.l.document(m.Config, &cfg); err != nil {
		v.wrong(where, "config %s: %v", m.Config.Digest, err)
		return
	}
	v.config("config "+m.Config.Digest.String(), cfg, desc)
	if len(cfg.RootFS.DiffIDs) != len(m.Layers) {
		v.wrong(where, "%d layers, but the config has %d diff_ids", len(m.Layers), len(cfg.RootFS.DiffIDs))
	}
	for i, l := range m.Layers {
		var diffID digest.Digest
		if i < len(cfg.RootFS.DiffIDs) {
			diffID = cfg.RootFS.DiffIDs[i]
		}
		v.layer(ctx, fmt.Sprintf("layer %d (%s)", i+1, l.Digest), l, diffID)
	}
}

func (v *imageValidator) config(where string, cfg ocispec.Image, desc ocispec.Descriptor) {
	if cfg.OS == "" || cfg.Architecture == "" {
		v.wrong(where, "os and architecture are required: %q, %q", cfg.OS, cfg.Architecture)
	}
	if p := desc.Platform; p != nil && cfg.OS != "" && !platforms.Only(cfg.Platform).Match(*p) {
		v.wrong(where, "is for %s, but the index says %s", platforms.Format(cfg.Platform), platforms.Format(*p))
	}
	if cfg.RootFS.Type != "layers" {
		v.wrong(where, "rootfs.type is %q, want \"layers\"", cfg.RootFS.Type)
	}
	full := 0
	for _, h := range cfg.History {
		if !h.EmptyLayer {
			full++
		}
	}
	if len(cfg.History) > 0 && full != len(cfg.RootFS.DiffIDs) {
		v.warn(where, "the history has %d steps with a layer, but there are %d layers", full, len(cfg.RootFS.DiffIDs))
	}
	for _, e := range cfg.Config.Env {
		if !strings.Contains(e, "=") {
			v.wrong(where, "config.Env: %q is not NAME=VALUE", e)
		}
	}
	if w := cfg.Config.WorkingDir; w != "" && !path.IsAbs(w) {
		v.warn(where, "config.WorkingDir %q is not absolute", w)
	}
}

func (v *imageValidator) layer(ctx context.Context, where string, desc ocispec.Descriptor, diffID digest.Digest) {
	if v.seen[desc.Digest] || ctx.Err() != nil {
		return
	}
	v.seen[desc.Digest] = true
	v.layers++
	if !images.IsLayerType(desc.MediaType) {
		v.wrong(where, "media type %q is none of a layer", desc.MediaType)
	}
	if err := v.l.verify(desc); err != nil {
		if len(desc.URLs) == 0 {
			v.wrong(where, "%v", err)
		}
		return
	}
	if err := diffID.Validate(); err != nil {
		v.wrong(where, "diff ID %q: %v", diffID, err)
		return
	}
	err := v.l.layerOf(desc, func(r io.Reader) error {
		sum := diffID.Algorithm().Hash()
		tee := io.TeeReader(r, sum)
		if err := v.entries(ctx, where, tar.NewReader(tee)); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, tee); err != nil {
			return err
		}
		if got := digest.NewDigest(diffID.Algorithm(), sum); got != diffID {
			v.wrong(where, "unpacked it has digest %s, but the config says %s", got, diffID)
		}
		return nil
	})
	if err != nil {
		v.wrong(where, "%v", err)
	}
}

// entries looks at each entry of a layer.
func (v *imageValidator) entries(ctx context.Context, where string, tr *tar.Reader) error {
	const most = 20 // findings of one layer
	before := len(v.Findings)
	for {
		h, err := tr.Next()
		if err == io.EOF || ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("the archive is malformed: %w", err)
		}
		if len(v.Findings)-before >= most {
			continue
		}
		base := path.Base(h.Name)
		for _, part := range strings.Split(h.Name, "/") {
			if part == ".." {
				v.wrong(where, "entry %q leads out of the layer", h.Name)
				break
			}
		}
		switch {
		case h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0:
			v.wrong(where, "entry %q is a device 0/0, which overlay takes for a deletion", h.Name)
		case strings.HasPrefix(base, ".wh..wh.") && base != ".wh..wh..opq":
			v.wrong(where, "entry %q is no whiteout that the specification knows", h.Name)
		case strings.HasPrefix(base, ".wh.") && h.Size > 0:
			v.wrong(where, "whiteout %q must be empty, it has %d bytes", h.Name, h.Size)
		case h.Typeflag == tar.TypeLink && strings.HasPrefix(path.Clean(h.Linkname), "../"):
			v.wrong(where, "hard link %q leads to %q, out of the layer", h.Name, h.Linkname)
		}
		for key := range h.PAXRecords {
			if strings.Contains(key, "overlay.") {
				v.warn(where, "entry %q has the attribute %q, which engines must drop", h.Name, key)
			}
		}
	}
}
