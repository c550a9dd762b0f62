package store

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
)

// maxDocument bounds a manifest, an index or a config: real ones are some kilobytes.
const maxDocument = 8 << 20

// maxDepth bounds indexes within indexes.
const maxDepth = 4

// maxLayers is how many directories the kernel's overlay puts upon each other.
const maxLayers = 500

// untaggedPrefix starts the record names of images that no name points to. It is no legal repository, so no user's name
// can collide with it.
const untaggedPrefix = "untagged@"

// imageIDLabel on a record tells the image ID of this host's platform without reading content.
const imageIDLabel = "dev.shoal.image.id"

// Content opens the blob store for a room that moves content (transfer, registry, build), and returns a context that
// carries what it needs. done must be called when the operation is over: until then a lease keeps everything that the
// operation writes; what no name refers to by then may be collected.
func (s *Store) Content(ctx context.Context) (_ context.Context, _ content.Store, done func(), _ error) {
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return ctx, nil, nil, err
	}
	ctx, done, err = b.lease(ctx)
	return ctx, b.content, done, err
}

func (b *backend) lease(ctx context.Context) (context.Context, func(), error) {
	if _, ok := leases.FromContext(ctx); ok {
		return ctx, func() {}, nil
	}
	if err := b.clean.touch(); err != nil {
		return ctx, nil, err
	}
	l, err := b.leases.Create(ctx, leases.WithID("operation-"+ids.New()), leases.WithExpiration(7*24*time.Hour),
		leases.WithLabels(map[string]string{operationLabel: "1"}))
	if err != nil {
		return ctx, nil, classify(err)
	}
	plain := context.WithoutCancel(ctx)
	return leases.WithLease(ctx, l.ID), func() { b.leases.Delete(plain, l) }, nil
}

// update runs f in one transaction: one sync of the disk for all of it.
func (b *backend) update(ctx context.Context, f func(ctx context.Context) error) error {
	return b.db.Update(func(tx *bolt.Tx) error { return f(boltutil.WithTransaction(ctx, tx)) })
}

// document reads a small JSON blob whole.
func (b *backend) document(ctx context.Context, desc ocispec.Descriptor, into any) error {
	r, err := b.content.ReaderAt(ctx, ocispec.Descriptor{Digest: desc.Digest})
	if err != nil {
		return classify(err)
	}
	defer r.Close()
	if r.Size() > maxDocument {
		return errs.New(errs.Invalid, "%s %s is %d bytes; at most %d make sense", desc.MediaType, desc.Digest, r.Size(), maxDocument)
	}
	data := make([]byte, r.Size())
	if n, err := r.ReadAt(data, 0); err != nil && (err != io.EOF || n < len(data)) {
		return classify(err)
	}
	if desc.Digest.Algorithm().FromBytes(data) != desc.Digest {
		return errs.New(errs.Damaged, "%s %s is damaged on disk: its content has another digest; remove the image and load or pull it again", desc.MediaType, desc.Digest)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return errs.New(errs.Invalid, "%s %s: %w", desc.MediaType, desc.Digest, err)
	}
	return nil
}

// key names what is known of a target for a platform; "" is this host's, or the only one there is.
type key struct {
	target   digest.Digest
	platform string
}

// described is what content says of an image. It is never changed once made.
type described struct {
	image    model.Image // without names and size
	manifest ocispec.Descriptor
	config   ocispec.Descriptor
	layers   []ocispec.Descriptor
	diffIDs  []digest.Digest
	unpacked []int64              // bytes of each layer unpacked; nil until known; under Store.mu
	sized    []model.ImageHistory // the history with these sizes; likewise
}

// document kinds share one shape, so that what a blob is can be told from its fields when the media type lies or lacks.
type anyManifest struct {
	MediaType string               `json:"mediaType"`
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	Manifests []ocispec.Descriptor `json:"manifests"`
}

func descriptor(d ocispec.Descriptor) model.Descriptor {
	return model.Descriptor{MediaType: d.MediaType, Digest: d.Digest.String(), Size: d.Size}
}

// describe reads what the target is, for the platform, or when platform is empty for this host's or the best there is.
func (s *Store) describe(ctx context.Context, b *backend, target ocispec.Descriptor, platform string) (*described, error) {
	k := key{target.Digest, platform}
	s.mu.Lock()
	d := s.seen[k]
	s.mu.Unlock()
	if d != nil {
		return d, nil
	}
	match := s.platform
	if platform != "" {
		p, err := platforms.Parse(platform)
		if err != nil {
			return nil, errs.New(errs.Invalid, "platform %q: %w; want for example linux/amd64", platform, err)
		}
		match = platforms.Only(p)
	}
	d, err := b.describe(ctx, target, match, platform != "", 0)
	if err != nil {
		return nil, err
	}
	d.image.Target = descriptor(target)
	s.mu.Lock()
	s.seen[k] = d
	s.mu.Unlock()
	return d, nil
}

func (b *backend) describe(ctx context.Context, desc ocispec.Descriptor, match platforms.MatchComparer, strict bool, depth int) (*described, error) {
	var m anyManifest
	if depth > maxDepth {
		return nil, errs.New(errs.Invalid, "image index %s: more than %d indexes within each other", desc.Digest, maxDepth)
	}
	if err := b.document(ctx, desc, &m); err != nil {
		return nil, err
	}
	switch {
	case images.IsIndexType(desc.MediaType):
		return b.describeIndex(ctx, m.Manifests, match, strict, depth)
	case !images.IsManifestType(desc.MediaType):
		return nil, errs.New(errs.Invalid, "%s has media type %q, which is neither an image manifest nor an index", desc.Digest, desc.MediaType)
	case m.Config == nil:
		return nil, errs.New(errs.Invalid, "manifest %s has no config: it is not an image", desc.Digest)
	}
	d, err := b.describeManifest(ctx, desc, m)
	if err != nil || !strict || match.Match(spec(d.image.Platform)) {
		return d, err
	}
	return nil, errs.New(errs.NotFound, "the image is for platform %s, not for the one asked for", d.image.Platform)
}

// describeIndex tries the manifests in order of preference and takes the first that is here whole.
func (b *backend) describeIndex(ctx context.Context, list []ocispec.Descriptor, match platforms.MatchComparer, strict bool, depth int) (*described, error) {
	var candidates, others []ocispec.Descriptor
	for _, m := range list {
		switch {
		case m.Annotations["vnd.docker.reference.type"] != "" || m.Platform != nil && m.Platform.OS == "unknown":
			// an attestation: not to be run
		case m.Platform == nil || match.Match(*m.Platform):
			candidates = append(candidates, m)
		default:
			others = append(others, m)
		}
	}
	sortByPreference(candidates, match)
	if !strict {
		candidates = append(candidates, others...)
	}
	var missing error
	for _, m := range candidates {
		d, err := b.describe(ctx, m, match, strict, depth+1)
		if err == nil || !errs.Is(err, errs.NotFound) {
			return d, err
		}
		missing = err
	}
	if missing == nil {
		missing = errs.New(errs.NotFound, "the index has no image for the platform asked for")
	}
	return nil, missing
}

func (b *backend) describeManifest(ctx context.Context, desc ocispec.Descriptor, m anyManifest) (*described, error) {
	if len(m.Layers) > maxLayers {
		return nil, errs.New(errs.Invalid, "manifest %s lists %d layers; at most %d can be mounted", desc.Digest, len(m.Layers), maxLayers)
	}
	d := &described{manifest: desc, config: *m.Config, layers: m.Layers}
	cfg, err := b.readConfig(ctx, d.config)
	if err != nil {
		return nil, err
	}
	d.diffIDs = cfg.RootFS.DiffIDs
	if len(d.diffIDs) != len(m.Layers) {
		return nil, errs.New(errs.Invalid, "image %s: the config names %d layers, the manifest %d", d.config.Digest, len(d.diffIDs), len(m.Layers))
	}
	for _, id := range d.diffIDs {
		if err := id.Validate(); err != nil {
			return nil, errs.New(errs.Invalid, "image %s: layer %q: %w", d.config.Digest, id, err)
		}
	}
	d.image = imageFromConfig(cfg)
	d.image.ID = d.config.Digest.String()
	d.image.Manifest = descriptor(desc)
	return d, nil
}

// Record gives the target a full name, or with name "" keeps it as an image without name, and makes all its content
// stay as long as the record does. What the name pointed to before stays as an image without name. Call it within the
// lease of Content. now is the time of tagging. It returns the image ID for this host.
func (s *Store) Record(ctx context.Context, name string, target ocispec.Descriptor) (string, error) {
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return "", err
	}
	target = ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size}
	d, err := s.describe(ctx, b, target, "")
	if err != nil {
		return "", err
	}
	defer s.reclaimLater()
	defer s.changed()
	err = b.update(ctx, func(ctx context.Context) error {
		walk := images.SetChildrenMappedLabels(b.content, images.HandlerFunc(b.presentChildren), nil)
		if err := images.Walk(ctx, walk, target); err != nil {
			return classify(err)
		}
		return b.name(ctx, name, target, d.image.ID)
	})
	return d.image.ID, err
}

// presentChildren are the children of a manifest or index that are here; an index may be here for one platform only.
func (b *backend) presentChildren(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if !images.IsManifestType(desc.MediaType) && !images.IsIndexType(desc.MediaType) {
		return nil, nil
	}
	var m anyManifest
	if err := b.document(ctx, desc, &m); err != nil {
		if errs.Is(err, errs.NotFound) {
			return nil, images.ErrSkipDesc
		}
		return nil, err
	}
	var out []ocispec.Descriptor
	if m.Config != nil {
		out = append(out, *m.Config)
	}
	return append(append(out, m.Layers...), m.Manifests...), nil
}

// name writes the record within a transaction.
func (b *backend) name(ctx context.Context, name string, target ocispec.Descriptor, imageID string) error {
	labels := map[string]string{imageIDLabel: imageID}
	if name == "" {
		if there, err := b.pointedTo(ctx, target.Digest); err != nil || there {
			return err
		}
		name = untaggedPrefix + target.Digest.String()
	}
	old, err := b.images.Get(ctx, name)
	if errdefs.IsNotFound(err) {
		_, err = b.images.Create(ctx, images.Image{Name: name, Target: target, Labels: labels})
		if err != nil {
			return classify(err)
		}
		if isUntagged(name) {
			return nil
		}
		return b.forgetUntagged(ctx, target.Digest)
	}
	if err != nil {
		return classify(err)
	}
	if _, err := b.images.Update(ctx, images.Image{Name: name, Target: target, Labels: labels}); err != nil {
		return classify(err)
	}
	if old.Target.Digest != target.Digest {
		if err := b.name(ctx, "", old.Target, old.Labels[imageIDLabel]); err != nil {
			return err
		}
	}
	return b.forgetUntagged(ctx, target.Digest)
}

func isUntagged(record string) bool { return strings.HasPrefix(record, untaggedPrefix) }

// pointedTo says whether any record points to the target.
func (b *backend) pointedTo(ctx context.Context, target digest.Digest) (bool, error) {
	list, err := b.images.List(ctx, "target.digest=="+target.String())
	return len(list) > 0, classify(err)
}

// forgetUntagged removes the nameless record of a target that has a name now.
func (b *backend) forgetUntagged(ctx context.Context, target digest.Digest) error {
	err := b.images.Delete(ctx, untaggedPrefix+target.String())
	if errdefs.IsNotFound(err) {
		return nil
	}
	return classify(err)
}
