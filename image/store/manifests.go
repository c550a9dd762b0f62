package store

import (
	"context"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Manifests lists what the target of an image holds: its one manifest, or all that its index names, here or not, with
// the attestations.
func (s *Store) Manifests(ctx context.Context, ref string) ([]model.ImageManifest, error) {
	if s.Empty() {
		return nil, notFound(ref)
	}
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return nil, err
	}
	idx, err := s.names(ctx, b)
	if err != nil {
		return nil, err
	}
	f, err := idx.find(ref)
	if err != nil {
		return nil, err
	}
	var out []model.ImageManifest
	return out, s.manifests(ctx, b, f.target.target, 0, &out)
}

func (s *Store) manifests(ctx context.Context, b *backend, desc ocispec.Descriptor, depth int, out *[]model.ImageManifest) error {
	m := model.ImageManifest{Digest: desc.Digest.String(), MediaType: desc.MediaType, Bytes: desc.Size, Kind: model.ManifestImage}
	if desc.Platform != nil {
		m.Platform = platformOf(*desc.Platform)
	}
	if desc.Annotations["vnd.docker.reference.type"] == "attestation-manifest" {
		m.Kind, m.For = model.ManifestAttestation, desc.Annotations["vnd.docker.reference.digest"]
	}
	var doc anyManifest
	err := b.document(ctx, desc, &doc)
	switch {
	case errs.Is(err, errs.NotFound): // of a platform that was not pulled
		*out = append(*out, m)
		return nil
	case err != nil:
		return err
	}
	if images.IsIndexType(desc.MediaType) && depth <= maxDepth {
		for _, d := range doc.Manifests {
			if err := s.manifests(ctx, b, d, depth+1, out); err != nil {
				return err
			}
		}
		return nil
	}
	m.Available = true
	m.Content = desc.Size
	blobs := slices.Clone(doc.Layers)
	if doc.Config != nil {
		blobs = append(blobs, *doc.Config)
	}
	for _, l := range blobs {
		if info, err := b.content.Info(ctx, l.Digest); err == nil {
			m.Content += info.Size
		} else {
			m.Available = false
		}
	}
	if m.Kind == model.ManifestImage {
		m.Kind = model.ManifestUnknown
		if doc.Config != nil {
			if d, err := b.describeManifest(ctx, desc, doc); err == nil {
				m.Kind = model.ManifestImage
				s.describeOne(ctx, b, d, &m)
			}
		}
	}
	*out = append(*out, m)
	return nil
}

// describeOne adds what only an image has.
func (s *Store) describeOne(ctx context.Context, b *backend, d *described, m *model.ImageManifest) {
	m.Platform = d.image.Platform
	m.Containers = s.usersOf(d.image.ID)
	slices.Sort(m.Containers)
	for _, c := range identity.ChainIDs(slices.Clone(d.diffIDs)) {
		if u, err := b.snap.Usage(ctx, c.String()); err == nil {
			m.Unpacked += u.Size
		}
	}
}

func platformOf(p ocispec.Platform) model.Platform {
	p = platforms.Normalize(p)
	return model.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: strings.TrimSpace(p.OSVersion)}
}
