package store

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/image/layer"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/lib/undo"
	"github.com/shoalhq/shoal/model"
)

// upperLabel is where containerd's overlay snapshotter tells the directory of a snapshot's own files.
const upperLabel = "containerd.io/snapshot/overlay.upperdir"

// snapshotRef ties a config to the snapshot of its top layer, for the collector.
const snapshotRef = "containerd.io/gc.ref.snapshot."

// Lowers gives the read-only directories of the image's layers, top first, for an overlay mount made elsewhere, after
// unpacking what is not unpacked yet. An image without layers gives one empty directory. With the native driver it is
// one directory that holds the whole.
func (s *Store) Lowers(ctx context.Context, imageID string) ([]string, error) {
	s.mu.Lock()
	dirs := s.lower[imageID]
	s.mu.Unlock()
	if dirs != nil {
		return dirs, nil
	}
	return s.Unpack(ctx, imageID, nil)
}

// Unpack is Lowers with progress, without the memory of earlier answers.
func (s *Store) Unpack(ctx context.Context, imageID string, progress func(model.ImageProgress)) ([]string, error) {
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return nil, err
	}
	_, d, err := s.resolve(ctx, b, imageID, "")
	if err != nil {
		return nil, err
	}
	gen := s.generation()
	dirs, err := s.unpack(ctx, b, d, progress)
	if err != nil {
		return nil, errs.Wrap(err, "unpack image %s", imageID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gen == gen { // else something was removed meanwhile
		s.lower[imageID] = dirs
	}
	return dirs, nil
}

// UnpackTarget unpacks what is not recorded yet, and so finds out whether it is whole and sound. It is for use within the
// lease of Content, before Record.
func (s *Store) UnpackTarget(ctx context.Context, target ocispec.Descriptor, platform string, progress func(model.ImageProgress)) error {
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return err
	}
	d, err := s.describe(ctx, b, target, platform)
	if err != nil {
		return err
	}
	_, err = s.unpack(ctx, b, d, progress)
	return errs.Wrap(err, "unpack image %s", d.image.ID)
}

func (s *Store) generation() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gen
}

func (s *Store) unpack(ctx context.Context, b *backend, d *described, progress func(model.ImageProgress)) ([]string, error) {
	if len(d.diffIDs) == 0 {
		empty := filepath.Join(s.cfg.Root, "empty")
		return []string{empty}, os.MkdirAll(empty, 0o755)
	}
	chains := identity.ChainIDs(append([]digest.Digest(nil), d.diffIDs...))
	if dirs, err := b.lowers(ctx, chains); err == nil || !errdefs.IsNotFound(err) {
		return dirs, classify(err)
	}
	if dirs, err := b.builtLowers(ctx, d.config.Digest); err == nil || !errdefs.IsNotFound(err) {
		return dirs, classify(err)
	}
	ctx, done, err := b.lease(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	for i := range chains {
		if err := s.unpackLayer(ctx, b, d, chains, i, progress); err != nil {
			return nil, err
		}
	}
	name := snapshotName[b.driver]
	_, err = b.content.Update(ctx, content.Info{Digest: d.config.Digest, Labels: map[string]string{snapshotRef + name: chains[len(chains)-1].String()}},
		"labels."+snapshotRef+name)
	if err != nil {
		return nil, classify(err)
	}
	dirs, err := b.lowers(ctx, chains)
	return dirs, classify(err)
}

// lowers asks the snapshotter for the directories of a chain; NotFound of errdefs when one is missing.
func (b *backend) lowers(ctx context.Context, chains []digest.Digest) ([]string, error) {
	if b.driver == DriverNative {
		dir, err := b.nativeDir(ctx, chains[len(chains)-1].String())
		return []string{dir}, err
	}
	dirs := make([]string, 0, len(chains))
	for i := len(chains) - 1; i >= 0; i-- {
		info, err := b.snap.Stat(ctx, chains[i].String())
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, info.Labels[upperLabel])
	}
	return dirs, nil
}

// nativeDir finds a committed snapshot's directory by a view of it, which the native snapshotter needs to tell; the view
// is kept, it is an empty record that goes with its parent.
func (b *backend) nativeDir(ctx context.Context, chain string) (string, error) {
	key := "view-" + chain
	mounts, err := b.snap.Mounts(ctx, key)
	if errdefs.IsNotFound(err) {
		if _, err = b.snap.Stat(ctx, chain); err != nil {
			return "", err
		}
		mounts, err = b.snap.View(ctx, key, chain, snapshots.WithLabels(map[string]string{"containerd.io/gc.bref.snapshot.native": chain}))
		if errdefs.IsAlreadyExists(err) {
			mounts, err = b.snap.Mounts(ctx, key)
		}
	}
	if err != nil {
		return "", err
	}
	return mounts[0].Source, nil
}

// unpackLayer makes the snapshot of one layer, unless it is there. The files are on disk before the snapshot is recorded:
// a layer that is recorded is whole, whatever happens to the power.
func (s *Store) unpackLayer(ctx context.Context, b *backend, d *described, chains []digest.Digest, i int, progress func(model.ImageProgress)) error {
	chain := chains[i].String()
	defer s.unpacking.Lock(chain)()
	if _, err := b.snap.Stat(ctx, chain); err == nil || !errdefs.IsNotFound(err) {
		return classify(err)
	}
	parent := ""
	if i > 0 {
		parent = chains[i-1].String()
	}
	key := "unpack-" + ids.New()
	mounts, err := b.snap.Prepare(ctx, key, parent)
	if err != nil {
		return classify(err)
	}
	var u undo.Stack
	defer u.Run()
	plain := context.WithoutCancel(ctx)
	u.Add(func() { b.snap.Remove(plain, key) })
	what := fmt.Sprintf("layer %d of %d (%s)", i+1, len(chains), d.layers[i].Digest)
	dir, err := b.apply(ctx, mounts, d.layers[i], d.diffIDs[i], progress)
	if err != nil {
		return errs.Wrap(err, "%s", what)
	}
	if err := failpoint.Hit("image/unpack/sync"); err != nil {
		return err
	}
	if err := syncFilesystem(dir); err != nil {
		return errs.Wrap(err, "%s", what)
	}
	if err := failpoint.Hit("image/unpack/commit"); err != nil {
		return err
	}
	if err := b.snap.Commit(ctx, chain, key); err != nil && !errdefs.IsAlreadyExists(err) {
		return errs.Wrap(classify(err), "%s", what)
	} else if err == nil {
		u.Release()
	}
	return nil
}

// apply unpacks the layer's archive into the snapshot and checks that it was the archive that the config names.
func (b *backend) apply(ctx context.Context, mounts []mount.Mount, desc ocispec.Descriptor, want digest.Digest, progress func(model.ImageProgress)) (string, error) {
	dir, parents, err := directories(mounts)
	if err != nil {
		return "", err
	}
	blob, err := b.content.ReaderAt(ctx, ocispec.Descriptor{Digest: desc.Digest})
	if err != nil {
		return "", errs.New(errs.KindOf(classify(err)), "its content is missing: %w; pull or load the image again", err)
	}
	defer blob.Close()
	packed := io.Reader(content.NewReader(blob))
	if progress != nil {
		packed = &counter{r: packed, tell: func(n int64) {
			progress(model.ImageProgress{ID: desc.Digest.String(), Action: "Extracting", Current: n, Total: blob.Size()})
		}}
	}
	r, err := layer.Decompress(bufio.NewReaderSize(packed, 1<<16))
	if err != nil {
		return "", err
	}
	defer r.Close()
	got := want.Algorithm().Digester()
	tee := io.TeeReader(r, got.Hash())
	err = layer.Apply(ctx, dir, tee, layer.Options{Overlay: b.driver == DriverOverlay, Parents: parents})
	if err == nil && b.driver == DriverOverlay {
		err = layer.HideRoots(dir, parents)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, tee) // what follows the archive's end belongs to the digest
	}
	if err != nil {
		return "", err
	}
	if got.Digest() != want {
		return "", errs.New(errs.Damaged, "the unpacked archive has digest %s, but the image's config says %s: the image is damaged or was tampered with", got.Digest(), want)
	}
	return dir, nil
}

// directories are where a prepared snapshot's files go, and what lies beneath, top first.
func directories(mounts []mount.Mount) (string, []string, error) {
	if len(mounts) == 1 && mounts[0].Type == "bind" {
		return mounts[0].Source, nil, nil
	}
	var upper string
	var lower []string
	for _, m := range mounts {
		for _, o := range m.Options {
			if v, ok := strings.CutPrefix(o, "upperdir="); ok {
				upper = v
			} else if v, ok := strings.CutPrefix(o, "lowerdir="); ok {
				lower = strings.Split(v, ":")
			}
		}
	}
	if upper == "" {
		return "", nil, errs.New(errs.Internal, "the snapshotter gave mounts that are not understood: %v", mounts)
	}
	return upper, lower, nil
}

func syncFilesystem(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("write %s to disk: %w", dir, err)
	}
	return nil
}

// counter tells how much was read, at every megabyte.
type counter struct {
	r       io.Reader
	n, told int64
	tell    func(int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.n-c.told >= 1<<20 || err == io.EOF && c.told != c.n {
		c.told = c.n
		c.tell(c.n)
	}
	return n, err
}

// size is what the image's unpacked layers take, or its packed ones while it is not unpacked.
func (s *Store) size(ctx context.Context, b *backend, imageID string) int64 {
	_, d, err := s.resolve(ctx, b, imageID, "")
	if err != nil {
		return 0
	}
	return s.sizeOf(ctx, b, d)
}

func (s *Store) sizeOf(ctx context.Context, b *backend, d *described) int64 {
	sizes, ok := s.layerSizes(ctx, b, d)
	var sum int64
	if !ok { // as the layers are in content
		for _, l := range d.layers {
			if info, err := b.content.Info(ctx, l.Digest); err == nil {
				sum += info.Size
			}
		}
		return sum
	}
	for _, n := range sizes {
		sum += n
	}
	return sum
}
