package store

import (
	"context"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// removePlatforms takes single platforms out of an image of several. The index and its other platforms stay, under every name;
// what nothing else needs of those platforms is collected, and a pull brings them back. It needs force, as Docker has it.
func (s *Store) removePlatforms(ctx context.Context, b *backend, f found, o model.ImageRemoveOptions) ([]model.ImageDeletion, error) {
	if !o.Force {
		return nil, errs.New(errs.Invalid, "Content will be removed from all images referencing this variant (%s of %s). Use --force to force delete.", strings.Join(o.Platforms, ", "), f.ref)
	}
	target := f.target.target
	var all []model.ImageManifest
	if err := s.manifests(ctx, b, target, 0, &all); err != nil {
		return nil, err
	}
	gone, left, err := splitPlatforms(f.ref, all, o.Platforms)
	if err != nil {
		return nil, err
	}
	id := f.target.id
	if d, err := s.describe(ctx, b, target, ""); err != nil || slices.ContainsFunc(gone, func(m model.ImageManifest) bool { return m.Digest == d.image.Manifest.Digest }) {
		slices.SortStableFunc(left, func(x, y model.ImageManifest) int {
			switch {
			case s.platform.Less(spec(x.Platform), spec(y.Platform)):
				return -1
			case s.platform.Less(spec(y.Platform), spec(x.Platform)):
				return 1
			}
			return 0
		})
		d, err := s.describe(ctx, b, target, left[0].Platform.String())
		if err != nil {
			return nil, errs.Wrap(err, "image %s", f.ref)
		}
		id = d.image.ID
	}
	var out []model.ImageDeletion
	drop := map[string]bool{}
	for _, m := range gone {
		drop[m.Digest] = true
		out = append(out, model.ImageDeletion{Deleted: m.Digest})
	}
	err = b.update(ctx, func(ctx context.Context) error {
		if err := b.unlink(ctx, target, drop, 0); err != nil {
			return err
		}
		list, err := b.images.List(ctx, "target.digest=="+target.Digest.String())
		if err != nil {
			return classify(err)
		}
		for _, i := range list { // the host's ID of the image may be another now
			i.Labels = map[string]string{imageIDLabel: id} // the only one that is written
			if _, err := b.images.Update(ctx, i, "labels."+imageIDLabel); err != nil {
				return classify(err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, s.collect(ctx, b)
}

// splitPlatforms chooses what is to go, with its attestations, and what of the image is here beside it.
func splitPlatforms(ref string, all []model.ImageManifest, wanted []string) (gone, left []model.ImageManifest, err error) {
	chosen := map[string]bool{}
	for _, w := range wanted {
		p, err := platforms.Parse(w)
		if err != nil {
			return nil, nil, errs.New(errs.Invalid, "platform %w; want for example linux/amd64", err)
		}
		found := false
		var here []string
		for _, m := range all {
			if m.Kind != model.ManifestImage || m.Content == 0 {
				continue
			}
			here = append(here, m.Platform.String())
			if !platforms.OnlyStrict(p).Match(spec(m.Platform)) {
				continue
			}
			if len(m.Containers) > 0 {
				return nil, nil, errs.New(errs.Conflict, "conflict: unable to delete platform %s of %s - image is being used by container %s; remove the container first",
					w, ref, shortList(m.Containers))
			}
			found, chosen[m.Digest] = true, true
		}
		if !found {
			return nil, nil, errs.New(errs.NotFound, "image %s is here, but not for platform %s: it is here for %s", ref, w, strings.Join(here, ", "))
		}
	}
	for _, m := range all {
		switch {
		case chosen[m.Digest], chosen[m.For]:
			gone = append(gone, m)
		case m.Kind == model.ManifestImage && m.Content > 0:
			left = append(left, m)
		}
	}
	if len(left) == 0 {
		return nil, nil, errs.New(errs.Conflict, "conflict: no other platform of image %s is here than %s; remove the image itself, without --platform", ref, strings.Join(wanted, ", "))
	}
	return gone, left, nil
}

// unlink makes indexes let go of manifests. What they name stays as it is: they are content.
func (b *backend) unlink(ctx context.Context, desc ocispec.Descriptor, drop map[string]bool, depth int) error {
	if !images.IsIndexType(desc.MediaType) || depth > maxDepth {
		return nil
	}
	var doc anyManifest
	if err := b.document(ctx, desc, &doc); errs.Is(err, errs.NotFound) {
		return nil
	} else if err != nil {
		return err
	}
	for _, m := range doc.Manifests {
		if err := b.unlink(ctx, m, drop, depth+1); err != nil {
			return err
		}
	}
	info, err := b.content.Info(ctx, desc.Digest)
	if errdefs.IsNotFound(err) {
		return nil
	} else if err != nil {
		return classify(err)
	}
	var fields []string
	for key, to := range info.Labels {
		if strings.HasPrefix(key, "containerd.io/gc.ref.content") && drop[to] {
			info.Labels[key] = "" // which removes it
			fields = append(fields, "labels."+key)
		}
	}
	if len(fields) == 0 {
		return nil
	}
	_, err = b.content.Update(ctx, info, fields...)
	return classify(err)
}
