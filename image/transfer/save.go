package transfer

import (
	"context"
	"io"

	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/lib/errs"
)

// Save writes the images to one tar that is an OCI layout and, by its manifest.json, a Docker archive as well. A
// reference without tag means all tags of the repository; one by ID is saved without name. Of an
// image for several platforms those asked for are saved; none means all that are here.
func Save(ctx context.Context, st *store.Store, refs, wanted []string, w io.Writer) error {
	if len(refs) == 0 {
		return errs.New(errs.Invalid, "save: no image was named")
	}
	type want struct {
		desc  ocispec.Descriptor
		names []string
	}
	byDigest := map[digest.Digest]*want{}
	var order []*want
	for _, ref := range refs {
		list, err := st.Targets(ctx, ref)
		if err != nil {
			return err
		}
		for _, n := range list {
			for _, platform := range wanted {
				name := n.Name
				if name == "" {
					name = ref
				}
				if _, err := st.Resolve(ctx, name, platform); err != nil {
					return errs.Wrap(err, "save")
				}
			}
			x := byDigest[n.Target.Digest]
			if x == nil {
				x = &want{desc: n.Target}
				byDigest[n.Target.Digest] = x
				order = append(order, x)
			}
			if n.Name != "" {
				x.names = append(x.names, n.Name)
			}
		}
	}
	ctx, blobs, done, err := st.Content(ctx)
	if err != nil {
		return err
	}
	defer done()
	opts := []archive.ExportOpt{archive.WithSkipMissing(blobs)}
	if len(wanted) == 0 {
		opts = append(opts, archive.WithPlatform(platforms.Default()), archive.WithAllPlatforms())
	} else {
		list, err := platforms.ParseAll(wanted)
		if err != nil {
			return errs.New(errs.Invalid, "platform: %w; want for example linux/amd64", err)
		}
		opts = append(opts, archive.WithPlatform(platforms.Any(list...)))
	}
	for _, x := range order {
		opts = append(opts, archive.WithManifest(x.desc, x.names...))
	}
	return errs.Wrap(archive.Export(ctx, blobs, w, opts...), "save")
}
