// Package transfer moves images between the store and archives: load and save, in the layout of Docker and of the Open
// Container Initiative. It must not know registries, and it leaves nothing recorded that is not whole.
package transfer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/image/layer"
	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// maxIndex bounds index.json, and maxImages how many images one archive may have.
const (
	maxIndex  = 8 << 20
	maxImages = 10000
)

// Loaded is one image that an archive brought.
type Loaded struct {
	ID   string
	Name string // familiar, with tag; "" when the archive names none
}

// Progress is told how far an operation is; it must not block for long. It may be nil.
type Progress func(model.ImageProgress)

func (p Progress) tell(id, action string, current, total int64) {
	if p != nil {
		p(model.ImageProgress{ID: id, Action: action, Current: current, Total: total})
	}
}

// Load reads an archive as `docker save`, skopeo or buildx write it: a Docker archive, an OCI layout in a tar, or both in
// one; plain or packed with gzip, zstd or bzip2. Every image is unpacked, and so checked against its digests, before its
// name is recorded. Of an image for several platforms those asked for must be in the archive; none means this host's, or
// the best there is.
func Load(ctx context.Context, st *store.Store, r io.Reader, platforms []string, progress Progress) (loaded []Loaded, err error) {
	ctx, blobs, done, err := st.Content(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if done(); err != nil {
			st.Tidy(ctx)
		}
	}()
	plain, err := layer.Decompress(bufio.NewReaderSize(r, 1<<16))
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	in := newIngest(blobs)
	defer in.abort(ctx)
	top, err := archive.ImportIndex(ctx, in, layer.Guard(plain, st.Root()))
	if err != nil {
		return nil, loadError(ctx, err)
	}
	list, err := readIndex(ctx, blobs, top)
	if err != nil {
		return nil, err
	}
	var out []Loaded
	for _, m := range list {
		if m.Annotations["vnd.docker.reference.type"] != "" {
			continue // an attestation of another image
		}
		l, err := loadOne(ctx, st, m, platforms, progress)
		if err != nil {
			return out, err
		}
		out = append(out, l)
	}
	if len(out) == 0 {
		return nil, errs.New(errs.Invalid, "the archive holds no image")
	}
	return out, nil
}

func loadError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errs.New(errs.Exhausted, "load: the disk is full: %w; free some space (`shoal system prune`) and try again", err)
	}
	if k := errs.KindOf(err); k != errs.Internal && k != errs.NotFound {
		return errs.Wrap(err, "load")
	}
	if strings.Contains(err.Error(), "unrecognized image format") {
		return errs.New(errs.Invalid, "the archive is no image: it has neither manifest.json (docker save) nor oci-layout; for an archive of a root filesystem use `shoal import`")
	}
	return errs.New(errs.Invalid, "load: the archive is malformed: %w", err)
}

func readIndex(ctx context.Context, blobs content.Store, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	info, err := blobs.Info(ctx, desc.Digest)
	if err != nil {
		return nil, err
	}
	if info.Size > maxIndex {
		return nil, errs.New(errs.Invalid, "index.json of the archive is %d bytes; at most %d make sense", info.Size, maxIndex)
	}
	data, err := content.ReadBlob(ctx, blobs, ocispec.Descriptor{Digest: desc.Digest, Size: info.Size})
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, errs.New(errs.Invalid, "index.json of the archive: %w", err)
	}
	if len(index.Manifests) > maxImages {
		return nil, errs.New(errs.Invalid, "the archive names %d images; at most %d make sense", len(index.Manifests), maxImages)
	}
	return index.Manifests, nil
}

func loadOne(ctx context.Context, st *store.Store, m ocispec.Descriptor, platforms []string, progress Progress) (Loaded, error) {
	if err := m.Digest.Validate(); err != nil {
		return Loaded{}, errs.New(errs.Invalid, "index.json of the archive names digest %q: %w", m.Digest, err)
	}
	full, short := nameOf(m)
	what := short
	if what == "" {
		what = m.Digest.String()
	}
	if len(platforms) == 0 {
		platforms = []string{""}
	}
	for _, platform := range platforms {
		err := st.UnpackTarget(ctx, m, platform, func(p model.ImageProgress) {
			progress.tell(p.ID, "Loading layer", p.Current, p.Total)
		})
		switch {
		case errs.Is(err, errs.NotFound) && platform != "":
			return Loaded{}, errs.New(errs.NotFound, "the archive has image %s, but not for platform %s: %w", what, platform, err)
		case errs.Is(err, errs.NotFound):
			return Loaded{}, errs.New(errs.Invalid, "the archive is not whole: image %s: %w", what, err)
		case errs.Is(err, errs.Exhausted):
			return Loaded{}, loadError(ctx, fmt.Errorf("image %s: %w", what, err))
		case err != nil:
			return Loaded{}, errs.Wrap(err, "load image %s", what)
		}
	}
	id, err := st.Record(ctx, full, m)
	if err != nil {
		return Loaded{}, errs.Wrap(err, "load image %s", what)
	}
	st.Event(ctx, "load", id, "")
	if short == "" {
		progress.tell("", fmt.Sprintf("Loaded image ID: %s", id), 0, 0)
	} else {
		progress.tell("", "Loaded image: "+short, 0, 0)
	}
	return Loaded{id, short}, nil
}

// nameOf finds the name that the archive gives an image. An OCI layout may say a tag only, which is no name.
func nameOf(m ocispec.Descriptor) (full, short string) {
	for _, a := range []string{images.AnnotationImageName, ocispec.AnnotationRefName} {
		v := m.Annotations[a]
		if v == "" || a == ocispec.AnnotationRefName && !strings.ContainsAny(v, "/:") {
			continue
		}
		if ref, err := model.ParseReference(v); err == nil && ref.Digest == "" {
			return ref.String(), ref.Familiar()
		}
	}
	return "", ""
}
