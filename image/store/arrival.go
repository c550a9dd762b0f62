package store

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/image/layer"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
)

// Arrival unpacks the layers of one image while they arrive, in any order and several at once: each into a directory of
// its own, which is put on top of the one below it when all are there. Nothing is recorded before Finish; Abort after it,
// or instead of it, takes away what was unpacked and not used. It is for use within the lease of Content.
type Arrival struct {
	s       *Store
	b       *backend
	config  ocispec.Descriptor
	diffIDs []digest.Digest
	chains  []digest.Digest
	ready   int // so many layers from below are unpacked already

	mu   sync.Mutex
	part map[int]*arrived
}

type arrived struct {
	key     string // of the snapshot that is being prepared
	dir     string
	implied layer.Implied
}

// Arrive begins. It returns nil when the driver can only unpack layers upon each other, from below: use UnpackTarget then.
func (s *Store) Arrive(ctx context.Context, config ocispec.Descriptor, diffIDs []digest.Digest) (*Arrival, error) {
	ctx, b, err := s.backend(ctx)
	if err != nil || b.driver != DriverOverlay {
		return nil, err
	}
	for _, id := range diffIDs {
		if err := id.Validate(); err != nil {
			return nil, errs.New(errs.Invalid, "image %s: layer %q: %w", config.Digest, id, err)
		}
	}
	a := &Arrival{s: s, b: b, config: config, diffIDs: diffIDs, part: map[int]*arrived{}}
	a.chains = identity.ChainIDs(append([]digest.Digest(nil), diffIDs...))
	for a.ready < len(a.chains) {
		if _, err := b.snap.Stat(ctx, a.chains[a.ready].String()); errdefs.IsNotFound(err) {
			break
		} else if err != nil {
			return nil, classify(err)
		}
		a.ready++
	}
	return a, nil
}

// Needs says whether the layer, counted from 0 below, is still to be unpacked.
func (a *Arrival) Needs(i int) bool { return i >= a.ready }

// Unpack reads a layer's archive, packed or not, to its end and checks it against the config.
func (a *Arrival) Unpack(ctx context.Context, i int, packed io.Reader) (err error) {
	ctx, b, err := a.s.backend(ctx)
	if err != nil {
		return err
	}
	p := &arrived{key: "unpack-" + ids.New()}
	mounts, err := b.snap.Prepare(ctx, p.key, "")
	if err != nil {
		return classify(err)
	}
	a.mu.Lock()
	a.part[i] = p
	a.mu.Unlock()
	if p.dir, _, err = directories(mounts); err != nil {
		return err
	}
	r, err := layer.Decompress(bufio.NewReaderSize(packed, 1<<16))
	if err != nil {
		return err
	}
	defer r.Close()
	got := a.diffIDs[i].Algorithm().Digester()
	tee := io.TeeReader(r, got.Hash())
	if err = layer.Apply(ctx, p.dir, tee, layer.Options{Overlay: true, Implied: &p.implied}); err == nil {
		_, err = io.Copy(io.Discard, tee) // what follows the archive's end belongs to the digest
	}
	if err != nil {
		return errs.Wrap(err, "layer %d of %d", i+1, len(a.chains))
	}
	if got.Digest() != a.diffIDs[i] {
		return errs.New(errs.Damaged, "layer %d of %d: the unpacked archive has digest %s, but the image's config says %s: the image is damaged or was tampered with", i+1, len(a.chains), got.Digest(), a.diffIDs[i])
	}
	return nil
}

// Finish puts the layers upon each other, after one sync of all their files: what is recorded is whole, whatever happens
// to the power. step is told of each layer; it may be nil.
func (a *Arrival) Finish(ctx context.Context, step func(i int)) error {
	ctx, b, err := a.s.backend(ctx)
	if err != nil || len(a.chains) == 0 {
		return err
	}
	dirs := []string{} // top first
	if a.ready > 0 {
		if dirs, err = b.lowers(ctx, a.chains[:a.ready]); err != nil {
			return classify(err)
		}
	}
	for i := a.ready; i < len(a.chains); i++ {
		p := a.part[i]
		if p == nil {
			return errs.New(errs.Internal, "layer %d of %d was not unpacked", i+1, len(a.chains))
		}
		if i > 0 {
			err := p.implied.Settle(p.dir, dirs)
			if err == nil {
				err = layer.HideRoots(p.dir, dirs)
			}
			if err != nil {
				return errs.Wrap(err, "layer %d of %d", i+1, len(a.chains))
			}
		}
		dirs = append([]string{p.dir}, dirs...)
	}
	if err := failpoint.Hit("image/unpack/sync"); err != nil {
		return err
	}
	if a.ready < len(a.chains) {
		if err := syncFilesystem(dirs[0]); err != nil {
			return err
		}
	}
	for i := a.ready; i < len(a.chains); i++ {
		if err := failpoint.Hit("image/unpack/commit"); err != nil {
			return err
		}
		if err := a.commit(ctx, i); err != nil {
			return errs.Wrap(classify(err), "layer %d of %d", i+1, len(a.chains))
		}
		if step != nil {
			step(i)
		}
	}
	label := snapshotRef + snapshotName[b.driver]
	_, err = b.content.Update(ctx, content.Info{Digest: a.config.Digest, Labels: map[string]string{label: a.chains[len(a.chains)-1].String()}}, "labels."+label)
	return classify(err)
}

// commit names a layer's snapshot. Another pull may have been faster with the same one.
func (a *Arrival) commit(ctx context.Context, i int) error {
	chain := a.chains[i].String()
	defer a.s.unpacking.Lock(chain)()
	var opts []snapshots.Opt
	if i > 0 {
		opts = append(opts, snapshots.WithParent(a.chains[i-1].String()))
	}
	err := a.b.snap.Commit(ctx, chain, a.part[i].key, opts...)
	if errdefs.IsAlreadyExists(err) {
		return nil // Abort removes ours
	}
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	a.mu.Lock()
	delete(a.part, i)
	a.mu.Unlock()
	return nil
}

// Drop takes back an Unpack that failed or was of a stream that broke off, so that the layer can be unpacked again.
func (a *Arrival) Drop(ctx context.Context, i int) {
	ctx, b, err := a.s.backend(context.WithoutCancel(ctx))
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.part[i]; p != nil {
		b.snap.Remove(ctx, p.key)
		delete(a.part, i)
	}
}

// Abort removes what was unpacked and is not part of an image.
func (a *Arrival) Abort(ctx context.Context) {
	ctx, b, err := a.s.backend(context.WithoutCancel(ctx))
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, p := range a.part {
		b.snap.Remove(ctx, p.key)
		delete(a.part, i)
	}
}

// Renew makes the store look again at what is here of a target, after more of its platforms arrived.
func (s *Store) Renew(target digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.seen {
		if k.target == target {
			delete(s.seen, k)
		}
	}
}
