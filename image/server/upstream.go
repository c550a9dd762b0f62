package server

import (
	"context"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	mobyregistry "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/shoalhq/shoal/image/registry"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Upstream is the registry that a pull-through cache stands before. What a tag means is asked there each time; while it
// cannot be reached, the cache answers with what it has.
type Upstream struct {
	Client *registry.Client
	Domain string                   // "docker.io", "registry.example:5000"
	Auth   *mobyregistry.AuthConfig // nil: anonymous
}

func (u *Upstream) source(name, ref string) (*registry.Source, error) {
	full := u.Domain + "/" + name
	if strings.Contains(ref, ":") {
		full += "@" + ref
	} else if ref != "" {
		full += ":" + ref
	}
	parsed, err := model.ParseReference(full)
	if err != nil {
		return nil, err
	}
	return u.Client.Source(parsed, u.Auth)
}

// bringManifest makes sure that the book knows what the reference means now.
func (s *Server) bringManifest(ctx context.Context, name, ref string) error {
	_, _, missing := s.lookup(name, ref)
	byDigest := strings.Contains(ref, ":")
	if byDigest && missing == nil {
		return nil
	}
	src, err := s.cfg.Upstream.source(name, ref)
	if err != nil {
		return err
	}
	defer src.Close()
	desc, err := src.Resolve(ctx)
	switch {
	case err == nil:
	case errs.Is(err, errs.NotFound):
		return manifestUnknown(ref)
	case missing == nil && ctx.Err() == nil:
		s.cfg.Log.Warn("the cache answers with what it has: its upstream does not", "repository", name, "reference", ref, "error", err)
		return nil
	default:
		return err
	}
	tag := ref
	if byDigest {
		tag = ""
	}
	if _, m, err := s.lookup(name, desc.Digest.String()); err == nil {
		if d, _, err := s.lookup(name, ref); err == nil && d == desc.Digest {
			return nil
		}
		return s.enter(ctx, name, desc.Digest, m, nil, tag)
	}
	cctx, blobs, err := s.content(ctx)
	if err != nil {
		return err
	}
	if desc.Size > maxManifest {
		return errs.New(errs.Unavailable, "the upstream's manifest for %s has %d bytes", ref, desc.Size)
	}
	if err := src.Fetch(cctx, blobs, desc); err != nil {
		return err
	}
	data, err := content.ReadBlob(cctx, blobs, desc)
	if err != nil {
		return err
	}
	m, err := readManifest(data, desc.MediaType)
	if err != nil {
		return err
	}
	return s.enter(ctx, name, desc.Digest, m, data, tag)
}

// bringBlob fetches a blob that a manifest of the repository names; any other is unknown.
func (s *Server) bringBlob(ctx context.Context, name string, d digest.Digest) (bool, error) {
	var desc ocispec.Descriptor
	err := s.book.db.View(func(tx *bolt.Tx) error {
		if repo := find(tx, name); repo != nil {
			desc = repo.used()[d]
		}
		return nil
	})
	if err != nil || desc.Digest == "" {
		return false, err
	}
	src, err := s.cfg.Upstream.source(name, d.String())
	if err != nil {
		return false, err
	}
	defer src.Close()
	ctx, blobs, err := s.content(ctx)
	if err != nil {
		return false, err
	}
	if err := src.Fetch(ctx, blobs, desc); err != nil && !errdefs.IsAlreadyExists(err) {
		if errs.Is(err, errs.NotFound) {
			return false, nil
		}
		return false, err
	}
	if err := s.cfg.Store.KeepToo(ctx, owner, d); err != nil {
		return false, err
	}
	return true, s.addBlob(name, d)
}
