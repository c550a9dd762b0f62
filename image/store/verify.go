package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/image/layer"
	"github.com/shoalhq/shoal/lib/errs"
)

// Damage is something that is not what it was when it was recorded.
type Damage struct {
	Image   string // a name of the image that it belongs to; empty for content that belongs to none
	What    string // "layer sha256:...", "manifest sha256:..."
	Problem string
	Mended  bool
	Why     string // it could not be mended
}

// Verification is what a look at everything found.
type Verification struct {
	Blobs, Layers int
	Damaged       []Damage
}

// VerifyAfterCrash verifies everything in the store, once, if the machine went down while it was in use, and else does
// nothing and opens nothing. It takes the disk and the processor only when nobody else wants them, and ends with Close.
func (s *Store) VerifyAfterCrash() {
	if !newCleanliness(s.cfg.Root).unclean() {
		return
	}
	s.background.Go(func() {
		idle()
		start := s.cfg.Clock.Now()
		s.cfg.Log.Warn("the machine went down while images were in use: all of them are verified now", "root", s.cfg.Root)
		v, err := s.Verify(s.life)
		if err != nil {
			s.cfg.Log.Error("the images could not be verified; it is tried again at the next start", "reason", err)
			return
		}
		s.cfg.Log.Info("the images were verified", "blobs", v.Blobs, "layers", v.Layers, "damaged", len(v.Damaged), "took", s.cfg.Clock.Now().Sub(start))
	})
}

// idle makes this goroutine's thread, which ends with it, yield to all others.
func idle() {
	const ioprioWhoProcess, ioprioIdle = 1, 3 << 13
	runtime.LockOSThread()
	unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19)
	unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioIdle)
}

// Verify reads everything and compares it with its digest, and unpacked layers with their archives. Damaged content is
// thrown away and fetched again from the registry where the image has its name from; damaged files of layers are
// unpacked again, in their place. What could not be mended is named by Damaged until it comes back by a pull or load.
func (s *Store) Verify(ctx context.Context) (Verification, error) {
	var report Verification
	ctx, b, err := s.backend(ctx)
	if err != nil {
		return report, err
	}
	list, err := b.images.List(ctx)
	if err != nil {
		return report, classify(err)
	}
	x := &examination{s: s, b: b, report: &report, seen: map[digest.Digest]bool{}, layers: map[digest.Digest]bool{}}
	for _, i := range list {
		if x.image = i.Name; isUntagged(i.Name) {
			x.image = "<none>@" + i.Target.Digest.String()
		}
		if err := x.whole(ctx, i.Target); err != nil {
			return report, err
		}
	}
	x.image = ""
	if err := x.rest(ctx); err != nil {
		return report, err
	}
	s.mu.Lock()
	clear(s.seen) // read what was mended anew
	s.mu.Unlock()
	s.changed()
	if !slices.ContainsFunc(report.Damaged, func(d Damage) bool { return !d.Mended }) && len(b.content.missed(ctx)) == 0 {
		err = b.clean.verified()
	}
	return report, err
}

// Damaged lists the digests of content that was damaged and could not be fetched again.
func (s *Store) Damaged() []string {
	s.opening.Lock()
	b := s.back
	s.opening.Unlock()
	var out []string
	if b == nil || len(b.content.all()) == 0 {
		return nil
	}
	for _, d := range b.content.missed(namespaces.WithNamespace(s.life, namespace)) {
		out = append(out, d.String())
	}
	return out
}

// Mend tries to fetch what is lost of an image.
func (s *Store) Mend(ctx context.Context, ref string) error {
	ctx, b, err := s.backend(ctx)
	if err != nil || len(b.content.all()) == 0 {
		return err
	}
	idx, err := s.names(ctx, b)
	if err != nil {
		return err
	}
	f, err := idx.find(ref)
	if err != nil {
		return err
	}
	var report Verification
	x := &examination{s: s, b: b, image: f.target.name, report: &report, lostOnly: true, seen: map[digest.Digest]bool{}, layers: map[digest.Digest]bool{}}
	if err := x.whole(ctx, f.target.target); err != nil {
		return err
	}
	var left []error
	for _, d := range report.Damaged {
		if !d.Mended {
			left = append(left, fmt.Errorf("%s: %s", d.What, d.Why))
		}
	}
	return errors.Join(left...)
}

// examination goes through the images.
type examination struct {
	s        *Store
	b        *backend
	image    string // whose turn it is
	lostOnly bool   // look for what is known to be lost, and at the layers that it belongs to
	seen     map[digest.Digest]bool
	layers   map[digest.Digest]bool
	report   *Verification
}

// whole looks at one image. Nothing is collected meanwhile.
func (x *examination) whole(ctx context.Context, target ocispec.Descriptor) error {
	x.s.sweeping.Lock()
	defer x.s.sweeping.Unlock()
	return x.tree(ctx, target, 0)
}

// tree looks at a descriptor and at all that it refers to.
func (x *examination) tree(ctx context.Context, desc ocispec.Descriptor, depth int) error {
	ok, err := x.blob(ctx, desc)
	if err != nil || !ok || depth > maxDepth || !images.IsManifestType(desc.MediaType) && !images.IsIndexType(desc.MediaType) {
		return err
	}
	children, err := x.b.presentChildren(ctx, desc)
	if err != nil {
		x.found(desc, err.Error(), nil)
		return ctx.Err()
	}
	if images.IsIndexType(desc.MediaType) {
		for _, c := range children {
			if err := x.tree(ctx, c, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	whole := len(children) > 0
	mended := false
	for _, c := range children {
		before := len(x.report.Damaged)
		ok, err := x.blob(ctx, c)
		if err != nil {
			return err
		}
		whole = whole && ok
		mended = mended || len(x.report.Damaged) > before
	}
	if !whole || x.lostOnly && !mended {
		return nil
	}
	return x.unpacked(ctx, desc)
}

// blob says whether the blob is here and sound, after an attempt to make it so. What was never here is no damage.
func (x *examination) blob(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	if x.seen[desc.Digest] {
		return !x.b.content.isLost(desc.Digest), nil
	}
	if _, err := x.b.content.Store.Info(ctx, desc.Digest); err != nil {
		if errdefs.IsNotFound(err) {
			return false, nil
		}
		return false, classify(err)
	}
	x.seen[desc.Digest] = true
	x.report.Blobs++
	problem := "was thrown away earlier"
	if !x.b.content.isLost(desc.Digest) {
		if x.lostOnly {
			return true, nil
		}
		var err error
		if problem, err = x.b.damage(ctx, desc.Digest); err != nil || problem == "" {
			return problem == "", err
		}
		x.b.content.lose(desc.Digest)
	}
	x.b.content.raw.Delete(ctx, desc.Digest)
	err := x.fetch(ctx, desc)
	if err == nil {
		x.b.content.found(desc.Digest)
	}
	x.found(desc, problem, err)
	return err == nil, ctx.Err()
}

// damage reads a blob whole and says what is wrong with it.
func (b *backend) damage(ctx context.Context, d digest.Digest) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	at, err := b.content.raw.ReaderAt(ctx, ocispec.Descriptor{Digest: d})
	if errdefs.IsNotFound(err) {
		return "its file is gone", nil
	}
	if err != nil {
		return err.Error(), nil
	}
	defer at.Close()
	if !d.Algorithm().Available() {
		return "", nil
	}
	sum := d.Algorithm().Hash()
	if _, err := io.CopyBuffer(struct{ io.Writer }{sum}, &stopping{ctx, content.NewReader(at)}, make([]byte, 1<<20)); err != nil {
		return "cannot be read: " + err.Error(), ctx.Err()
	}
	if digest.NewDigest(d.Algorithm(), sum) != d {
		return fmt.Sprintf("its %d bytes have another digest", at.Size()), nil
	}
	return "", nil
}

type stopping struct {
	ctx context.Context
	io.Reader
}

func (s *stopping) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.Reader.Read(p)
}

// fetch brings a lost blob back from where the image came.
func (x *examination) fetch(ctx context.Context, desc ocispec.Descriptor) error {
	switch {
	case x.image == "" || strings.HasPrefix(x.image, "<none>"):
		return errors.New("no name says where it came from")
	case x.s.cfg.Fetch == nil:
		return errors.New("it is not known how to fetch it")
	}
	if err := x.s.cfg.Fetch(ctx, x.image, x.b.content.raw, desc); err != nil {
		return err
	}
	problem, err := x.b.damage(ctx, desc.Digest)
	if problem != "" {
		return errors.New("what was fetched is damaged, too: " + problem)
	}
	return err
}

// found reports damage; why is the reason that it could not be mended, or nil.
func (x *examination) found(desc ocispec.Descriptor, problem string, why error) {
	kind := "blob"
	switch {
	case images.IsLayerType(desc.MediaType):
		kind = "layer"
	case images.IsConfigType(desc.MediaType):
		kind = "config"
	case images.IsManifestType(desc.MediaType):
		kind = "manifest"
	case images.IsIndexType(desc.MediaType):
		kind = "index"
	}
	d := Damage{Image: x.image, What: kind + " " + desc.Digest.String(), Problem: problem, Mended: why == nil}
	if why != nil {
		d.Why = why.Error()
		x.s.cfg.Log.Error("an image is damaged: pull or load it again", "image", d.Image, "what", d.What, "problem", problem, "fetchedAgain", "no: "+d.Why)
	} else {
		x.s.cfg.Log.Warn("an image was damaged and is whole again", "image", d.Image, "what", d.What, "problem", problem)
	}
	x.report.Damaged = append(x.report.Damaged, d)
}

// unpacked compares the layers of an image with their archives, which are sound.
func (x *examination) unpacked(ctx context.Context, desc ocispec.Descriptor) error {
	var m anyManifest
	if err := x.b.document(ctx, desc, &m); err != nil || m.Config == nil {
		return err
	}
	d, err := x.b.describeManifest(ctx, desc, m)
	if err != nil {
		return nil //nolint:nilerr // an artifact: nothing of it is unpacked
	}
	for i, chain := range identity.ChainIDs(slices.Clone(d.diffIDs)) {
		if x.layers[chain] {
			continue
		}
		x.layers[chain] = true
		dir, err := x.b.layerDir(ctx, chain.String())
		if errdefs.IsNotFound(err) {
			continue // not unpacked
		}
		if err == nil {
			x.report.Layers++
			err = x.layer(ctx, dir, d.layers[i])
		}
		if err != nil {
			return errs.Wrap(err, "layer %s of %s", d.layers[i].Digest, x.image)
		}
	}
	return nil
}

func (b *backend) layerDir(ctx context.Context, chain string) (string, error) {
	if b.driver == DriverNative {
		return b.nativeDir(ctx, chain)
	}
	info, err := b.snap.Stat(ctx, chain)
	return info.Labels[upperLabel], err
}

// layer compares one, and unpacks again what is wrong with it.
func (x *examination) layer(ctx context.Context, dir string, desc ocispec.Descriptor) error {
	var bad map[string]string
	err := x.b.archive(ctx, desc, func(r io.Reader) (err error) {
		bad, err = layer.Check(ctx, dir, &stopping{ctx, r})
		return err
	})
	if err != nil || len(bad) == 0 {
		return err
	}
	names := slices.Sorted(maps.Keys(bad))
	problem := fmt.Sprintf("%d unpacked files are damaged, among them %s, which %s", len(names), names[0], bad[names[0]])
	only := map[string]bool{}
	for _, n := range names {
		only[n] = true
	}
	err = x.b.archive(ctx, desc, func(r io.Reader) error {
		return layer.Apply(ctx, dir, r, layer.Options{Overlay: x.b.driver == DriverOverlay, Only: only})
	})
	if err == nil {
		err = syncFilesystem(dir)
	}
	x.found(desc, problem, err)
	return ctx.Err()
}

// archive opens a layer's blob, unpacked.
func (b *backend) archive(ctx context.Context, desc ocispec.Descriptor, f func(io.Reader) error) error {
	at, err := b.content.ReaderAt(ctx, ocispec.Descriptor{Digest: desc.Digest})
	if err != nil {
		return classify(err)
	}
	defer at.Close()
	r, err := layer.Decompress(bufio.NewReaderSize(content.NewReader(at), 1<<16))
	if err != nil {
		return err
	}
	defer r.Close()
	return f(r)
}

// rest looks at content that belongs to no image: the built-in registry's, or of an image whose manifest is lost.
func (x *examination) rest(ctx context.Context) error {
	var all []digest.Digest
	if err := x.b.content.Walk(ctx, func(i content.Info) error {
		if !x.seen[i.Digest] {
			all = append(all, i.Digest)
		}
		return nil
	}); err != nil {
		return classify(err)
	}
	for _, d := range all {
		if err := x.loose(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (x *examination) loose(ctx context.Context, d digest.Digest) error {
	x.s.sweeping.Lock()
	defer x.s.sweeping.Unlock()
	if _, err := x.b.content.Info(ctx, d); err != nil {
		return nil //nolint:nilerr // it is not there any more
	}
	x.report.Blobs++
	problem, err := x.b.damage(ctx, d)
	if err != nil || problem == "" {
		return err
	}
	x.b.content.lose(d)
	x.b.content.raw.Delete(ctx, d)
	x.found(ocispec.Descriptor{Digest: d}, problem, errors.New("no image says what it is and where it came from"))
	return ctx.Err()
}
