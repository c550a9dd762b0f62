package node

import (
	"context"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/content"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/build"
	"github.com/shoalhq/shoal/engine"
	"github.com/shoalhq/shoal/image"
	"github.com/shoalhq/shoal/image/builtin"
	"github.com/shoalhq/shoal/image/registry"
	"github.com/shoalhq/shoal/lib/spare"
	"github.com/shoalhq/shoal/model"
)

// apiImages shows the image room as the API wants it. Removing goes through the engine, which knows the containers.
type apiImages struct {
	*image.Images
	engine *engine.Engine
	spare  spare.Space
}

func (a apiImages) Remove(ctx context.Context, ref string, o model.ImageRemoveOptions) (gone []model.ImageDeletion, err error) {
	if _, err := a.Images.Store.Resolve(ctx, ref, ""); err != nil {
		return nil, err // a built-in image that nobody has used yet need not be unpacked to be removed
	}
	err = a.spare.Retry(func() (err error) {
		gone, err = a.engine.RemoveImage(ctx, ref, o)
		return err
	})
	return gone, err
}

func (a apiImages) Prune(ctx context.Context, f model.Filters) (all model.ImagePruneReport, err error) {
	err = a.spare.Retry(func() error {
		r, err := a.Images.Prune(ctx, f)
		all.Deleted, all.Reclaimed = append(all.Deleted, r.Deleted...), all.Reclaimed+r.Reclaimed
		return err
	})
	return all, err
}

// apiBuilds shows the builder as the API wants it.
type apiBuilds struct {
	*build.Builder
	spare spare.Space
}

func (b apiBuilds) Prune(ctx context.Context, o model.BuildPruneOptions) (all model.BuildPruneReport, err error) {
	err = b.spare.Retry(func() error {
		r, err := b.Builder.Prune(ctx, o)
		all.Deleted, all.Reclaimed = append(all.Deleted, r.Deleted...), all.Reclaimed+r.Reclaimed
		return err
	})
	return all, err
}

// spare is the reserve of the data root, for what frees space on a full disk.
func (n *Node) spare() spare.Space {
	return spare.New(filepath.Join(n.cfg.Load().Daemon.DataRoot, "reserve"))
}

// restoreContent fetches again what was damaged on disk.
func (n *Node) restoreContent(ctx context.Context, name string, into content.Store, desc ocispec.Descriptor) error {
	return n.registryClient().Restore(ctx, name, into, desc)
}

// registryClient makes the client that pulls and pushes; it asks for its settings at each operation, so a reload counts.
func (n *Node) registryClient() *registry.Client {
	return registry.New(registry.Config{Store: n.images.Store, Settings: func() registry.Settings {
		r := n.cfg.Load().Registry
		return registry.Settings{Insecure: r.Insecure, Mirrors: r.Mirrors, CertsDirs: []string{"/etc/docker/certs.d", "/etc/shoal/certs.d"},
			Downloads: r.MaxConcurrentDownloads, Uploads: r.MaxConcurrentUploads, Attempts: r.MaxDownloadAttempts}
	}, Log: n.log, Builtin: func(ctx context.Context, ref, platform string) (model.Image, bool) {
		if _, ok := builtin.NameFor(ref); !ok {
			return model.Image{}, false
		}
		img, err := n.images.Resolve(ctx, ref, platform)
		return img, err == nil
	}})
}
