package registry

import (
	"bytes"
	"context"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Manifest is a manifest or an index as a registry has it.
type Manifest struct {
	Descriptor ocispec.Descriptor // with the platform, when it is an image's manifest
	Raw        []byte
}

// Manifest reads what a name means, without pulling it. With insecure the registry's certificate is not verified, and
// plain HTTP is tried.
func (c *Client) Manifest(ctx context.Context, name string, auth *registry.AuthConfig, insecure bool) (Manifest, error) {
	ref, err := model.ParseReference(name)
	if err != nil {
		return Manifest{}, err
	}
	o := c.begin(ref, auth, nil)
	defer o.end()
	o.trust(insecure)
	ctx = quiet(ctx)
	m, err := o.manifest(ctx)
	return m, explain(ctx, "inspect", ref, err)
}

func (o *operation) trust(insecure bool) {
	if insecure {
		o.settings.Insecure = append([]string{o.ref.Domain}, o.settings.Insecure...)
	}
}

func (o *operation) manifest(ctx context.Context) (Manifest, error) {
	var m Manifest
	ctx, into, done, err := o.cfg.Store.Content(ctx)
	if err != nil {
		return m, err
	}
	defer done()
	resolver, err := o.resolver()
	if err != nil {
		return m, err
	}
	full, target, err := o.resolve(ctx, resolver)
	if err != nil {
		return m, err
	}
	fetcher, err := resolver.Fetcher(ctx, full)
	if err != nil {
		return m, err
	}
	b := &blobs{operation: o, from: fetcher, into: into}
	var d document
	if err := b.document(ctx, target, &d); err != nil {
		return m, err
	}
	if m.Raw, err = content.ReadBlob(ctx, into, target); err != nil {
		return m, err
	}
	m.Descriptor = ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size}
	if images.IsManifestType(target.MediaType) && d.Config != nil && images.IsConfigType(d.Config.MediaType) {
		var cfg ocispec.Image
		if err := b.document(ctx, *d.Config, &cfg); err != nil {
			return m, err
		}
		m.Descriptor.Platform = &cfg.Platform
	}
	return m, nil
}

// PushIndex stores an index under a name. The manifests that it names, by repository and digest, may be in other
// repositories of the same registry: they are copied within it, their layers mounted where it can.
func (c *Client) PushIndex(ctx context.Context, name string, mediaType string, index []byte, sources []string, auth *registry.AuthConfig, insecure bool) (digest.Digest, error) {
	ref, err := model.ParseReference(name)
	if err != nil {
		return "", err
	}
	if ref.Digest != "" {
		return "", errs.New(errs.Invalid, "push of an index to %q: a digest cannot be chosen; use a tag", name)
	}
	if len(index) > maxManifest || !images.IsIndexType(mediaType) {
		return "", errs.New(errs.Invalid, "what is pushed to %q is no index: %d bytes of %q", name, len(index), mediaType)
	}
	o := c.begin(ref, auth, nil)
	defer o.end()
	o.trust(insecure)
	ctx = quiet(ctx)
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(index), Size: int64(len(index))}
	return desc.Digest, explain(ctx, "push", ref, o.pushIndex(ctx, desc, index, sources))
}

func (o *operation) pushIndex(ctx context.Context, desc ocispec.Descriptor, index []byte, sources []string) error {
	ctx, into, done, err := o.cfg.Store.Content(ctx)
	if err != nil {
		return err
	}
	defer done()
	resolver, err := o.resolver()
	if err != nil {
		return err
	}
	for _, source := range sources {
		from, err := model.ParseReference(source)
		if err != nil {
			return err
		}
		if from.Domain != o.ref.Domain {
			return errs.New(errs.Invalid, "cannot use source images from a different registry than the target image: %s is on %s, not on %s; copy it first (pull, tag, push)", source, from.Domain, o.ref.Domain)
		}
		if from.Digest == "" {
			return errs.New(errs.Invalid, "the source %q has no digest", source)
		}
		if from.Path == o.ref.Path {
			continue // it is there already; the registry says so if not
		}
		if err := o.copyWithin(ctx, resolver, into, from); err != nil {
			return errs.Wrap(err, "copy %s", source)
		}
	}
	return o.pass(ctx, resolver, desc, o.ref.String()+"@"+desc.Digest.String(), func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(index)), nil
	})
}

// copyWithin copies a manifest and what it names from another repository of the same registry.
func (o *operation) copyWithin(ctx context.Context, resolver remotes.Resolver, into content.Store, from model.Reference) error {
	_, target, err := resolver.Resolve(ctx, from.Name()+"@"+from.Digest)
	if err != nil {
		return err
	}
	fetcher, err := resolver.Fetcher(ctx, from.Name()+"@"+from.Digest)
	if err != nil {
		return err
	}
	b := &blobs{operation: o, from: fetcher, into: into}
	var d document
	if err := b.document(ctx, target, &d); err != nil {
		return err
	}
	if !images.IsManifestType(target.MediaType) || d.Config == nil {
		return errs.New(errs.Invalid, "%s is %s, not an image's manifest", target.Digest, target.MediaType)
	}
	for _, blob := range append(d.Layers, *d.Config) {
		if images.IsNonDistributable(blob.MediaType) {
			continue
		}
		blob.Annotations = map[string]string{o.sourceKey(): from.Path} // the registry is asked to mount it
		err := o.pass(ctx, resolver, blob, o.ref.Name()+"@"+blob.Digest.String(), func() (io.ReadCloser, error) {
			return fetcher.Fetch(context.WithValue(ctx, expect{}, expectBlob), blob)
		})
		if err != nil {
			return err
		}
	}
	return o.pass(ctx, resolver, target, o.ref.Name()+"@"+target.Digest.String(), func() (io.ReadCloser, error) { return fetcher.Fetch(ctx, target) })
}

// pass gives the registry a blob or manifest, unless it has it.
func (o *operation) pass(ctx context.Context, resolver remotes.Resolver, desc ocispec.Descriptor, at string, open func() (io.ReadCloser, error)) error {
	return o.again(ctx, nil, func() error {
		pusher, err := resolver.Pusher(ctx, at)
		if err != nil {
			return err
		}
		to, err := pusher.Push(ctx, desc)
		if errdefs.IsAlreadyExists(err) {
			return nil
		}
		if err != nil {
			return err
		}
		defer to.Close()
		from, err := open()
		if err != nil {
			return err
		}
		defer from.Close()
		return content.Copy(ctx, to, from, desc.Size, desc.Digest)
	})
}
