package build

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	ctdimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/model"
)

// images shows the names of the store to BuildKit. Reading finds built-in images too; writing goes through the store's
// Record, which keeps what a name pointed to before, and puts the layers on disk first.
type images struct {
	b     *Builder
	parts store.Parts
}

var errReadOnly = errors.New("builds give names only by Create and Update")

func (i images) Get(ctx context.Context, name string) (ctdimages.Image, error) {
	ctx = namespaces.WithNamespace(ctx, i.parts.Namespace)
	img, err := i.parts.Images.Get(ctx, name)
	if !errdefs.IsNotFound(err) {
		return img, err
	}
	if _, rerr := i.b.cfg.Resolve(ctx, name, ""); rerr != nil {
		if errs.Is(rerr, errs.NotFound) {
			return img, err
		}
		return img, rerr
	}
	return i.parts.Images.Get(ctx, name)
}

func (i images) List(ctx context.Context, filters ...string) ([]ctdimages.Image, error) {
	return i.parts.Images.List(namespaces.WithNamespace(ctx, i.parts.Namespace), filters...)
}

func (i images) Create(ctx context.Context, img ctdimages.Image) (ctdimages.Image, error) {
	return i.record(ctx, img)
}

func (i images) Update(ctx context.Context, img ctdimages.Image, _ ...string) (ctdimages.Image, error) {
	return i.record(ctx, img)
}

func (images) Delete(context.Context, string, ...ctdimages.DeleteOpt) error { return errReadOnly }

// record names what was built; a name "untagged@..." is none.
func (i images) record(ctx context.Context, img ctdimages.Image) (ctdimages.Image, error) {
	if err := failpoint.Hit("build/export/record"); err != nil {
		return img, err
	}
	if err := i.b.cfg.Images.Sync(); err != nil {
		return img, err
	}
	i.b.cfg.Images.Renew(img.Target.Digest)
	name := img.Name
	if strings.HasPrefix(name, danglingPrefix+"@") {
		name = ""
	}
	id, err := i.b.cfg.Images.Record(ctx, name, img.Target)
	if err == nil && name != "" {
		shown := name
		if ref, perr := model.ParseReference(name); perr == nil {
			shown = ref.Familiar()
		}
		i.b.cfg.Images.Event(ctx, "tag", id, shown)
	}
	return img, err
}

// danglingPrefix marks the names that the exporter makes up for images without.
const danglingPrefix = "dangling"

// namespaced gives what it wraps the namespace, which BuildKit's contexts do not carry.
type namespaced struct {
	diff.Applier
	namespace string
}

func (n namespaced) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	return n.Applier.Apply(namespaces.WithNamespace(ctx, n.namespace), desc, mounts, opts...)
}

// collector removes what no image and no cache record keeps.
func collector(s *store.Store) func(context.Context) (gc.Stats, error) {
	return func(ctx context.Context) (gc.Stats, error) { return nil, s.Collect(ctx) }
}

// calmContent answers updates that change nothing without a transaction, which would wait for the disk. Each resolution of
// a base image, in every build, sets the labels that are there already.
type calmContent struct{ content.Store }

func (c calmContent) Update(ctx context.Context, info content.Info, fields ...string) (content.Info, error) {
	now, err := c.Store.Info(ctx, info.Digest)
	if err == nil && len(fields) > 0 && !slices.ContainsFunc(fields, func(f string) bool {
		label, ok := strings.CutPrefix(f, "labels.")
		return !ok || info.Labels[label] == "" || now.Labels[label] != info.Labels[label]
	}) {
		return now, nil
	}
	return c.Store.Update(ctx, info, fields...)
}
