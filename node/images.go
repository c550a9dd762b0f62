package node

import (
	"context"

	"github.com/moby/moby/api/types/registry"

	"github.com/shoalhq/shoal/engine"
	"github.com/shoalhq/shoal/image"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// apiImages shows the image room as the API wants it. Removing goes through the engine, which knows the containers.
type apiImages struct {
	*image.Images
	engine *engine.Engine
}

func (a apiImages) Remove(ctx context.Context, ref string, o model.ImageRemoveOptions) ([]model.ImageDeletion, error) {
	untagged, deleted, err := a.engine.RemoveImage(ctx, ref, o.Force, o.NoPrune)
	var gone []model.ImageDeletion
	for _, u := range untagged {
		gone = append(gone, model.ImageDeletion{Untagged: u})
	}
	for _, d := range deleted {
		gone = append(gone, model.ImageDeletion{Deleted: d})
	}
	return gone, err
}

// noRegistry answers what needs a registry until there is a client for them. An image that is here counts as pulled.
type noRegistry struct{ images *image.Images }

func (n noRegistry) unsupported(what, ref string) error {
	return errs.New(errs.Unsupported, "%s %s: registries are not offered yet; bring images in with `load` or `import`, or use one of the built-in ones: %v",
		what, ref, n.images.Builtin())
}

func (n noRegistry) Pull(ctx context.Context, ref, platform string, _ *registry.AuthConfig, progress func(model.ImageProgress)) error {
	img, err := n.images.Resolve(ctx, ref, platform)
	if err != nil {
		return n.unsupported("pull", ref)
	}
	progress(model.ImageProgress{Action: "Status: " + ref + " is on this machine (" + img.ID[:19] + ")"})
	return nil
}

func (n noRegistry) Push(_ context.Context, ref, _ string, _ *registry.AuthConfig, _ func(model.ImageProgress)) error {
	return n.unsupported("push", ref)
}

func (n noRegistry) Search(_ context.Context, term string, _ int, _ model.Filters, _ *registry.AuthConfig) ([]registry.SearchResult, error) {
	return nil, n.unsupported("search", term)
}

func (n noRegistry) Login(_ context.Context, auth registry.AuthConfig) (registry.AuthResponse, error) {
	return registry.AuthResponse{}, n.unsupported("login to", auth.ServerAddress)
}
