package store

import (
	"context"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/lib/errs"
)

// Parts are the pieces of the store that a build engine works on, so that what it builds is an image without a copy and
// what is here already is not fetched or unpacked again. They stay valid until Close.
type Parts struct {
	Namespace   string // in which all of it lives; contexts given to the parts must carry it
	Snapshotter string // its name, as labels have it
	Content     content.Store
	Snapshots   snapshots.Snapshotter
	Leases      leases.Manager
	Images      images.Store // reading only: names are given with Record
	Applier     diff.Applier // unpacks a layer with every entry checked
}

// Parts opens the store and gives its pieces.
func (s *Store) Parts(ctx context.Context) (Parts, error) {
	_, b, err := s.backend(ctx)
	if err != nil {
		return Parts{}, err
	}
	return Parts{Namespace: namespace, Snapshotter: snapshotName[b.driver], Content: b.content, Snapshots: b.snap, Leases: b.leases,
		Images: b.images, Applier: applier{b}}, nil
}

// Collect removes what neither a name nor a lease keeps.
func (s *Store) Collect(ctx context.Context) error {
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return err
	}
	return s.collect(ctx, b)
}

// Sync puts everything that was written to the store on disk. What is recorded after it is whole, whatever happens to the
// power.
func (s *Store) Sync() error { return syncFilesystem(s.cfg.Root) }

// builtRef ties a config to the snapshot that was built as its top layer, and through its parents to all layers. Its
// snapshots have names of the build engine's choice, so they are not found by the layers' digests.
func builtRef(snapshotter string) string { return snapshotRef + snapshotter + "/built" }

// Built says that the image with the config need not be unpacked: its root filesystem is the snapshot. It must be called
// within a lease that keeps both.
func (s *Store) Built(ctx context.Context, config digest.Digest, snapshot string) error {
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return err
	}
	label := builtRef(snapshotName[b.driver])
	_, err = b.content.Update(ctx, content.Info{Digest: config, Labels: map[string]string{label: snapshot}}, "labels."+label)
	return classify(err)
}

// builtSnapshots are the snapshots of an image that was built here, lowest first; NotFound of errdefs when it was not.
func (b *backend) builtSnapshots(ctx context.Context, config digest.Digest) ([]snapshots.Info, error) {
	info, err := b.content.Info(ctx, config)
	if err != nil {
		return nil, err
	}
	name := info.Labels[builtRef(snapshotName[b.driver])]
	if name == "" || b.driver == DriverNative {
		return nil, errdefs.ErrNotFound
	}
	var list []snapshots.Info
	for name != "" {
		snap, err := b.snap.Stat(ctx, name)
		if err != nil {
			return nil, err
		}
		list = append(list, snap)
		name = snap.Parent
	}
	slices.Reverse(list)
	return list, nil
}

// builtLowers are the directories of an image that was built here, top first; NotFound of errdefs when it was not.
func (b *backend) builtLowers(ctx context.Context, config digest.Digest) ([]string, error) {
	list, err := b.builtSnapshots(ctx, config)
	var dirs []string
	for _, snap := range slices.Backward(list) {
		dirs = append(dirs, snap.Labels[upperLabel])
	}
	return dirs, err
}

// layerSnapshots are the names of the snapshots that hold the image's layers, lowest first.
func (b *backend) layerSnapshots(ctx context.Context, d *described) ([]string, error) {
	built, err := b.builtSnapshots(ctx, d.config.Digest)
	var names []string
	if errdefs.IsNotFound(err) {
		for _, c := range identity.ChainIDs(slices.Clone(d.diffIDs)) {
			names = append(names, c.String())
		}
		return names, nil
	}
	for _, snap := range built {
		names = append(names, snap.Name)
	}
	return names, err
}

// applier is containerd's interface for unpacking layers, on our unpacker.
type applier struct{ b *backend }

// Apply unpacks the layer into the mounts, of which only the directories are used: nothing is mounted. The files are on disk
// when it returns, since the caller records the layer next.
func (a applier) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, _ ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	want, err := a.diffID(ctx, desc)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	dir, err := a.b.apply(ctx, mounts, desc, want, nil)
	if err == nil {
		err = syncFilesystem(dir)
	}
	if err != nil {
		return ocispec.Descriptor{}, errs.Wrap(err, "unpack layer %s", desc.Digest)
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: want, Size: desc.Size}, nil
}

// diffID is what the unpacked archive must have as its digest: told by the caller, or by what was learned when the blob came.
func (a applier) diffID(ctx context.Context, desc ocispec.Descriptor) (digest.Digest, error) {
	if d, err := digest.Parse(desc.Annotations[labels.LabelUncompressed]); err == nil {
		return d, nil
	}
	info, err := a.b.content.Info(ctx, desc.Digest)
	if err != nil {
		return "", classify(err)
	}
	if d, err := digest.Parse(info.Labels[labels.LabelUncompressed]); err == nil {
		return d, nil
	}
	if t := desc.MediaType; !strings.HasSuffix(t, "gzip") && !strings.HasSuffix(t, "zstd") {
		return desc.Digest, nil
	}
	return "", errs.New(errs.Invalid, "layer %s: nothing says which digest its content has", desc.Digest)
}
