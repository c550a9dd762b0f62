package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Push sends what ref names to its registry; all tags of the repository when ref has none. Platform picks one image of
// several. What the registry has is not sent again, and what it has in another repository is mounted from there.
func (c *Client) Push(ctx context.Context, ref, platform string, auth *registry.AuthConfig, progress func(model.ImageProgress)) error {
	parsed, err := model.ParseRepository(ref)
	if err != nil {
		return err
	}
	if parsed.Digest != "" {
		return errs.New(errs.Invalid, "cannot push %s: a push needs a tag, not a digest; give the image a tag first", ref)
	}
	list, err := c.cfg.Store.Targets(ctx, ref)
	if errs.Is(err, errs.NotFound) && c.cfg.Builtin != nil {
		if _, ok := c.cfg.Builtin(ctx, ref, platform); ok { // loads it
			list, err = c.cfg.Store.Targets(ctx, ref)
		}
	}
	if errs.Is(err, errs.NotFound) {
		return errs.New(errs.NotFound, "An image does not exist locally with the tag: %s; see `shoal images`, and give it this name with `shoal tag`", parsed.FamiliarName())
	}
	if err != nil {
		return err
	}
	o := c.begin(parsed, auth, progress)
	defer o.end()
	ctx = quiet(ctx)
	o.say("The push refers to repository [" + parsed.Name() + "]")
	for _, n := range list {
		if n.Name == "" {
			return errs.New(errs.Invalid, "cannot push %s: that is an image's ID; push one of its names", ref)
		}
		if err := o.push(ctx, n, platform); err != nil {
			return explain(ctx, "push", parsed, err)
		}
	}
	return nil
}

func (o *operation) push(ctx context.Context, n store.Named, platform string) error {
	name, err := model.ParseReference(n.Name)
	if err != nil {
		return err
	}
	o.ref = name
	o.tracker = docker.NewInMemoryTracker() // else a second tag for the same manifest would count as sent with the first
	ctx, from, done, err := o.cfg.Store.Content(ctx)
	if err != nil {
		return err
	}
	defer done()
	resolver, err := o.resolver()
	if err != nil {
		return err
	}
	target, err := o.pick(ctx, from, n.Target, platform)
	if err != nil {
		return err
	}
	tree, err := collect(ctx, from, target)
	if err != nil {
		return err
	}
	u := &upload{operation: o, from: from, resolver: resolver}
	if err := u.blobs(ctx, tree.blobs); err != nil {
		return err
	}
	// Manifests after what they name, the one with the tag last.
	for _, m := range tree.manifests {
		at := name.Name() + "@" + m.Digest.String()
		if m.Digest == target.Digest {
			at = name.String() + "@" + m.Digest.String()
		}
		if err := u.manifest(ctx, m, at); err != nil {
			return err
		}
	}
	o.say(fmt.Sprintf("%s: digest: %s size: %d", name.Tag, target.Digest, target.Size))
	o.tell(model.ImageProgress{Pushed: &model.PushedImage{Tag: name.Tag, Digest: target.Digest.String(), Size: target.Size}})
	if target.Digest == n.Target.Digest {
		if _, err := o.cfg.Store.Record(ctx, name.Name()+"@"+target.Digest.String(), target); err != nil {
			return err
		}
	}
	o.cfg.Store.Event(ctx, "push", name.Familiar(), name.FamiliarName())
	return nil
}

// pick decides what to send of a name: all of it, or one platform's image when that was asked for or is all that is here.
func (o *operation) pick(ctx context.Context, from content.Store, target ocispec.Descriptor, platform string) (ocispec.Descriptor, error) {
	match, err := matcher(platform)
	if err != nil {
		return target, err
	}
	if !images.IsIndexType(target.MediaType) {
		if platform != "" {
			_, err = o.cfg.Store.Resolve(ctx, o.ref.String(), platform)
		}
		return target, err
	}
	var index document
	if err := read(ctx, from, target, &index); err != nil {
		return target, err
	}
	var whole []ocispec.Descriptor
	for _, m := range index.Manifests {
		if t, err := collect(ctx, from, m); err == nil && t.whole(ctx, from) {
			whole = append(whole, m)
		}
	}
	if platform == "" {
		if len(whole) == len(index.Manifests) {
			return target, nil
		}
		fit, _ := candidates(whole, platforms.All)
		if len(fit) == 1 {
			o.say("Only one platform of the image is here: its manifest alone is pushed")
			return fit[0], nil
		}
		return target, errs.New(errs.Invalid, "%s names images for several platforms, and %d of %d are here whole: pull the others, or choose one with --platform", o.ref.Familiar(), len(whole), len(index.Manifests))
	}
	fit, offered := candidates(whole, match)
	if len(fit) == 0 {
		return target, errs.New(errs.NotFound, "%s is not here for platform %s, but for: %s", o.ref.Familiar(), platform, strings.Join(offered, ", "))
	}
	return fit[0], nil
}

func read(ctx context.Context, from content.Provider, desc ocispec.Descriptor, into any) error {
	if desc.Size > maxManifest {
		return errs.New(errs.Invalid, "%s %s is %d bytes; at most %d make sense", desc.MediaType, desc.Digest, desc.Size, maxManifest)
	}
	data, err := content.ReadBlob(ctx, from, desc)
	if err != nil {
		return errs.New(errs.Damaged, "content %s is missing: %w; pull or load the image again", desc.Digest, err)
	}
	return json.Unmarshal(data, into)
}

// tree is everything below a manifest or index.
type tree struct {
	blobs     []ocispec.Descriptor // layers and configs, each once
	manifests []ocispec.Descriptor // those named before those that name them
}

// collect reads manifests and lists what they name.
func collect(ctx context.Context, from content.Provider, target ocispec.Descriptor) (tree, error) {
	var t tree
	seen := map[digest.Digest]bool{}
	var walk func(desc ocispec.Descriptor, depth int) error
	walk = func(desc ocispec.Descriptor, depth int) error {
		if seen[desc.Digest] {
			return nil
		}
		seen[desc.Digest] = true
		if !images.IsIndexType(desc.MediaType) && !images.IsManifestType(desc.MediaType) {
			if !images.IsNonDistributable(desc.MediaType) { // licences forbid to pass foreign layers on
				t.blobs = append(t.blobs, desc)
			}
			return nil
		}
		if depth > maxDepth {
			return errs.New(errs.Invalid, "index %s: more than %d indexes within each other", desc.Digest, maxDepth)
		}
		var d document
		if err := read(ctx, from, desc, &d); err != nil {
			return err
		}
		children := slices.Concat(d.Layers, d.Manifests)
		if d.Config != nil {
			children = append(children, *d.Config)
		}
		for _, c := range children {
			if err := walk(c, depth+1); err != nil {
				return err
			}
		}
		t.manifests = append(t.manifests, desc)
		return nil
	}
	return t, walk(target, 0)
}

func (t tree) whole(ctx context.Context, from content.InfoProvider) bool {
	for _, b := range t.blobs {
		if _, err := from.Info(ctx, b.Digest); err != nil {
			return false
		}
	}
	return true
}

// upload sends content for one operation.
type upload struct {
	*operation
	from     content.Store
	resolver remotes.Resolver
}

func (u *upload) blobs(ctx context.Context, list []ocispec.Descriptor) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(u.settings.Uploads)
	for _, b := range list {
		u.layer(b, "Preparing", 0)
	}
	for _, b := range list {
		g.Go(func() error { return u.blob(ctx, b) })
	}
	return g.Wait()
}

func (u *upload) layer(b ocispec.Descriptor, action string, current int64) {
	p := model.ImageProgress{ID: shortDigest(b.Digest.String()), Action: action}
	if current > 0 {
		p.Current, p.Total = current, b.Size
	}
	u.tell(p)
}

// blob sends one layer or config.
func (u *upload) blob(ctx context.Context, b ocispec.Descriptor) error {
	info, err := u.from.Info(ctx, b.Digest)
	if err != nil {
		return errs.New(errs.Damaged, "layer %s of the image is not here: %w; pull or load the image again", b.Digest, err)
	}
	key := u.sourceKey()
	if source := info.Labels[key]; source != "" {
		b.Annotations = map[string]string{key: source}
	}
	done := "Pushed"
	err = u.again(ctx, func(d time.Duration, _ error) {
		u.layer(b, fmt.Sprintf("Retrying in %v", d.Round(100*time.Millisecond)), 0)
	}, func() error {
		err := u.send(ctx, b, u.ref.Name()+"@"+b.Digest.String())
		if errdefs.IsAlreadyExists(err) {
			done, err = "Layer already exists", nil
			if st, serr := u.tracker.GetStatus(remotes.MakeRefKey(ctx, b)); serr == nil && st.MountedFrom != "" {
				done = "Mounted from " + strings.TrimPrefix(st.MountedFrom, u.ref.Domain+"/")
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	u.layer(b, done, 0)
	if !slices.Contains(strings.Split(info.Labels[key], ","), u.ref.Path) {
		_, err = u.from.Update(ctx, content.Info{Digest: b.Digest, Labels: u.source()}, "labels."+key)
	}
	return err
}

func (u *upload) send(ctx context.Context, b ocispec.Descriptor, at string) error {
	pusher, err := u.resolver.Pusher(ctx, at)
	if err != nil {
		return err
	}
	to, err := pusher.Push(ctx, b)
	if err != nil {
		return err
	}
	defer to.Close()
	from, err := u.from.ReaderAt(ctx, b)
	if err != nil {
		return err
	}
	defer from.Close()
	r := &counted{SectionReader: io.NewSectionReader(from, 0, from.Size()), tell: func(n int64) { u.layer(b, "Pushing", n) }}
	return content.Copy(ctx, to, r, b.Size, b.Digest)
}

// manifest sends a manifest or an index; at is the repository with digest, or with tag and digest.
func (u *upload) manifest(ctx context.Context, m ocispec.Descriptor, at string) error {
	return u.again(ctx, nil, func() error {
		err := u.send(context.WithValue(ctx, manifestDigest{}, m.Digest), m, at)
		if errdefs.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
}

// counted tells how much of the source was read.
type counted struct {
	*io.SectionReader
	n, told int64
	tell    func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.SectionReader.Read(p)
	c.n += int64(n)
	if c.n-c.told >= tellEvery || err == io.EOF && c.n != c.told {
		c.told = c.n
		c.tell(c.n)
	}
	return n, err
}

func (c *counted) Seek(offset int64, whence int) (int64, error) {
	at, err := c.SectionReader.Seek(offset, whence)
	c.n, c.told = at, at
	return at, err
}
