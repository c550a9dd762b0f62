package registry

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/model"
)

// Source is a repository to be read piece by piece, for the pull-through cache. Close it after use.
type Source struct {
	o        *operation
	resolver remotes.Resolver
}

// Source opens a repository; auth may be nil.
func (c *Client) Source(ref model.Reference, auth *registry.AuthConfig) (*Source, error) {
	o := c.begin(ref, auth, nil)
	r, err := o.resolver()
	if err != nil {
		o.end()
		return nil, err
	}
	return &Source{o, r}, nil
}

// Resolve asks what the tag or digest of the reference means.
func (s *Source) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	ctx = quiet(ctx)
	s.o.settings.Attempts = 1 // somebody waits, and an older answer may be at hand
	_, desc, err := s.o.resolve(ctx, s.resolver)
	return desc, explain(ctx, "fetch", s.o.ref, err)
}

// Fetch brings a blob or manifest into the store, verified.
func (s *Source) Fetch(ctx context.Context, into content.Store, desc ocispec.Descriptor) error {
	ctx = quiet(ctx)
	f, err := s.resolver.Fetcher(ctx, s.o.ref.Name()+"@"+desc.Digest.String())
	if err != nil {
		return explain(ctx, "fetch", s.o.ref, err)
	}
	b := &blobs{operation: s.o, from: f, into: into}
	return explain(ctx, "fetch", s.o.ref, b.fetch(ctx, desc, watcher{}))
}

// Restore fetches again what was damaged of the image that had the name, without credentials and without waiting for a
// registry that does not answer.
func (c *Client) Restore(ctx context.Context, name string, into content.Store, desc ocispec.Descriptor) error {
	ref, err := model.ParseReference(name)
	if err != nil {
		return err
	}
	s, err := c.Source(ref, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	s.o.settings.Attempts = 1
	return s.Fetch(ctx, into, desc)
}

// Close ends the connections.
func (s *Source) Close() { s.o.end() }
