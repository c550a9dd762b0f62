package store

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// keepPrefix starts the names of leases without end.
const keepPrefix = "keep-"

// Keep is Content for an owner with books of its own, such as the built-in registry: what is written with the context it
// returns stays, also over restarts, until the owner gives it back with GiveBack.
func (s *Store) Keep(ctx context.Context, owner string) (context.Context, content.Store, error) {
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return ctx, nil, err
	}
	_, err = b.leases.Create(ctx, leases.WithID(keepPrefix+owner))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return ctx, nil, classify(err)
	}
	return leases.WithLease(ctx, keepPrefix+owner), b.content, nil
}

// KeepToo adds blobs that are in the store already to what the owner keeps.
func (s *Store) KeepToo(ctx context.Context, owner string, blobs ...digest.Digest) error {
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return err
	}
	return b.update(ctx, func(ctx context.Context) error {
		for _, d := range blobs {
			if err := b.leases.AddResource(ctx, leases.Lease{ID: keepPrefix + owner}, leases.Resource{ID: d.String(), Type: "content"}); err != nil {
				return classify(err)
			}
		}
		return nil
	})
}

// Kept lists what the owner keeps.
func (s *Store) Kept(ctx context.Context, owner string) ([]digest.Digest, error) {
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return nil, err
	}
	list, err := b.leases.ListResources(ctx, leases.Lease{ID: keepPrefix + owner})
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	var out []digest.Digest
	for _, r := range list {
		if r.Type == "content" {
			out = append(out, digest.Digest(r.ID))
		}
	}
	return out, classify(err)
}

// GiveBack says that the owner keeps the blobs no longer, and removes what nobody else has a use for. None of them is
// only that removal.
func (s *Store) GiveBack(ctx context.Context, owner string, blobs ...digest.Digest) error {
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return err
	}
	err = b.update(ctx, func(ctx context.Context) error {
		for _, d := range blobs {
			err := b.leases.DeleteResource(ctx, leases.Lease{ID: keepPrefix + owner}, leases.Resource{ID: d.String(), Type: "content"})
			if err != nil && !errdefs.IsNotFound(err) {
				return classify(err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.collect(ctx, b)
}
