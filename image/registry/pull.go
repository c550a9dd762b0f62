package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Pull brings the image that ref names into the store, for the platform ("" is this host's), and records its name when
// all of it is there, verified and unpacked. The registry is always asked what the name means today. A name with neither
// tag nor digest means all tags of the repository, as in Docker's API. Progress is what Docker's users know, layer by layer.
func (c *Client) Pull(ctx context.Context, ref, platform string, auth *registry.AuthConfig, progress func(model.ImageProgress)) error {
	parsed, err := model.ParseRepository(ref)
	if err != nil {
		return err
	}
	o := c.begin(parsed, auth, progress)
	defer o.end()
	if parsed.Tag == "" && parsed.Digest == "" {
		err = o.pullAll(quiet(ctx), platform)
	} else {
		err = o.pull(quiet(ctx), platform)
	}
	if err == nil {
		return nil
	}
	if img, ok := c.builtin(ctx, ref, platform, err); ok {
		o.say("Status: " + parsed.Familiar() + " is built in (" + shortDigest(img.ID) + "); the registry could not be reached: " + err.Error())
		return nil
	}
	return explain(ctx, "pull", parsed, err)
}

// pullAll pulls each tag of the repository.
func (o *operation) pullAll(ctx context.Context, platform string) error {
	tags, err := o.tags(ctx)
	if err != nil {
		return err
	}
	for _, tag := range tags {
		o.ref.Tag = tag
		if err := o.pull(ctx, platform); err != nil {
			return err
		}
	}
	if len(tags) == 0 {
		return errs.New(errs.NotFound, "the repository %s has no tags", o.ref.Name())
	}
	return nil
}

// builtin is the way out when no registry answers.
func (c *Client) builtin(ctx context.Context, ref, platform string, why error) (model.Image, bool) {
	if c.cfg.Builtin == nil || ctx.Err() != nil || !unreachable(why) {
		return model.Image{}, false
	}
	return c.cfg.Builtin(ctx, ref, platform)
}

func (o *operation) pull(ctx context.Context, platform string) error {
	match, err := matcher(platform)
	if err != nil {
		return err
	}
	ctx, into, done, err := o.cfg.Store.Content(ctx)
	if err != nil {
		return err
	}
	defer done()
	resolver, err := o.resolver()
	if err != nil {
		return err
	}
	full, target, err := o.resolve(ctx, resolver)
	if err != nil {
		return err
	}
	if o.ref.Digest != "" {
		o.say(o.ref.Name() + "@" + o.ref.Digest + ": Pulling from " + o.ref.Path)
	} else {
		o.tell(model.ImageProgress{ID: o.ref.Tag, Action: "Pulling from " + o.ref.Path})
	}
	fetcher, err := resolver.Fetcher(ctx, full)
	if err != nil {
		return err
	}
	b := &blobs{operation: o, from: fetcher, into: into}
	m, err := b.choose(ctx, target, match, platform, 0)
	if err != nil {
		return err
	}
	if platform != "" && images.IsManifestType(target.MediaType) && !match.Match(m.platform) { // the only one there is; Docker takes it as well
		o.say(fmt.Sprintf("WARNING: image with reference %s was found but its platform (%s) does not match the specified platform (%s)", o.ref.Familiar(), platforms.Format(m.platform), platform))
	}
	before := o.known(ctx)
	if err := b.layers(ctx, target, platform, m); err != nil {
		return err
	}
	o.cfg.Store.Renew(target.Digest)
	if err := o.record(ctx, target); err != nil {
		return err
	}
	o.say("Digest: " + target.Digest.String())
	if before == target.Digest.String() {
		o.say("Status: Image is up to date for " + o.ref.Familiar())
	} else {
		o.say("Status: Downloaded newer image for " + o.ref.Familiar())
	}
	o.cfg.Store.Event(ctx, "pull", o.ref.Familiar(), o.ref.FamiliarName())
	return nil
}

func matcher(platform string) (platforms.MatchComparer, error) {
	if platform == "" {
		return platforms.Default(), nil
	}
	p, err := platforms.Parse(platform)
	if err != nil {
		return nil, errs.New(errs.Invalid, "platform %q: %w; want for example linux/amd64", platform, err)
	}
	return platforms.Only(p), nil
}

// resolve asks what the name means.
func (o *operation) resolve(ctx context.Context, r interface {
	Resolve(ctx context.Context, ref string) (string, ocispec.Descriptor, error)
}) (full string, target ocispec.Descriptor, err error) {
	name := o.ref
	if name.Digest != "" {
		name.Tag = "" // the digest says all
	}
	err = o.again(ctx, func(d time.Duration, err error) {
		o.say(fmt.Sprintf("Retrying in %v: %v", d.Round(100*time.Millisecond), err))
	}, func() error {
		full, target, err = r.Resolve(ctx, name.String())
		if nobodyThere(err) { // asking again at once does not help, and people wait
			return final{err}
		}
		return err
	})
	if err != nil {
		return "", target, o.withBody(ctx, err)
	}
	switch {
	case o.ref.Digest != "" && target.Digest.String() != o.ref.Digest:
		return "", target, errs.New(errs.Damaged, "asked for %s, the registry %s offered %s", o.ref.Digest, o.ref.Domain, target.Digest)
	case strings.HasPrefix(target.MediaType, "application/vnd.docker.distribution.manifest.v1"):
		return "", target, errs.New(errs.Unsupported, "the registry %s has the image in the format of 2015 only (manifest schema 1), which is not read any more; push it anew with a current tool", o.ref.Domain)
	case !images.IsIndexType(target.MediaType) && !images.IsManifestType(target.MediaType):
		return "", target, errs.New(errs.Invalid, "the registry %s offers %q, which is neither an image manifest nor an index", o.ref.Domain, target.MediaType)
	}
	return full, target, nil
}

// withBody asks again for what a HEAD request was refused, by GET: only that answer says why.
func (o *operation) withBody(ctx context.Context, err error) error {
	var status remoteerrors.ErrUnexpectedStatus
	if !errors.As(err, &status) || status.RequestMethod != http.MethodHead || len(status.Body) > 0 || status.StatusCode >= 500 {
		return err
	}
	req, rerr := http.NewRequestWithContext(ctx, http.MethodGet, status.RequestURL, nil)
	if rerr != nil || req.URL.Host != o.home.Host {
		return err
	}
	req.Header = o.home.Header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("User-Agent", userAgent())
	if spec, perr := reference.Parse(o.ref.String()); perr == nil && o.home.Authorizer != nil {
		scoped, serr := docker.ContextWithRepositoryScope(ctx, spec, false)
		if serr != nil || o.home.Authorizer.Authorize(scoped, req) != nil {
			return err
		}
	}
	res, rerr := o.home.Client.Do(req)
	if rerr != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != status.StatusCode {
		return err
	}
	return remoteerrors.NewUnexpectedStatusErr(res)
}

// document is a manifest or an index, whichever it is.
type document struct {
	MediaType     string               `json:"mediaType"`
	SchemaVersion int                  `json:"schemaVersion"`
	Config        *ocispec.Descriptor  `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Manifests     []ocispec.Descriptor `json:"manifests"`

	diffIDs  []digest.Digest  // from the config
	platform ocispec.Platform // likewise
}

// choose follows indexes to the manifest for the platform and fetches that with its config.
func (b *blobs) choose(ctx context.Context, desc ocispec.Descriptor, match platforms.MatchComparer, platform string, depth int) (document, error) {
	var d document
	if depth > maxDepth {
		return d, errs.New(errs.Invalid, "index %s: more than %d indexes within each other", desc.Digest, maxDepth)
	}
	if err := b.document(ctx, desc, &d); err != nil {
		return d, err
	}
	if d.MediaType != "" && d.MediaType != desc.MediaType {
		return d, errs.New(errs.Invalid, "%s calls itself %q, but came as %q", desc.Digest, d.MediaType, desc.MediaType)
	}
	if images.IsManifestType(desc.MediaType) {
		return d, b.readConfig(ctx, desc, &d)
	}
	if len(d.Manifests) > maxIndexed {
		return d, errs.New(errs.Invalid, "index %s lists %d images; at most %d make sense", desc.Digest, len(d.Manifests), maxIndexed)
	}
	list, offered := candidates(d.Manifests, match)
	for _, m := range list {
		found, err := b.choose(ctx, m, match, platform, depth+1)
		if !errs.Is(err, errs.NotFound) && !errdefs.IsNotFound(err) {
			return found, err
		}
	}
	if platform == "" {
		platform = platforms.DefaultString()
	}
	return d, errs.New(errs.NotFound, "no matching manifest for %s in the manifest list entries of %s: it offers %s; choose one with --platform", platform, b.ref.Familiar(), strings.Join(offered, ", "))
}

// candidates are the entries of an index that fit, best first, and the platforms of all that can be run somewhere.
func candidates(list []ocispec.Descriptor, match platforms.MatchComparer) (fit []ocispec.Descriptor, offered []string) {
	for _, m := range list {
		switch {
		case m.Annotations["vnd.docker.reference.type"] != "" || m.Platform != nil && m.Platform.OS == "unknown":
			continue // an attestation about another entry
		case !images.IsIndexType(m.MediaType) && !images.IsManifestType(m.MediaType):
			continue
		}
		if m.Platform == nil {
			fit = append(fit, m)
			continue
		}
		offered = append(offered, platforms.Format(*m.Platform))
		if match.Match(*m.Platform) {
			fit = append(fit, m)
		}
	}
	slices.SortStableFunc(fit, func(x, y ocispec.Descriptor) int {
		switch {
		case x.Platform == nil || y.Platform == nil:
			return 0
		case match.Less(*x.Platform, *y.Platform):
			return -1
		case match.Less(*y.Platform, *x.Platform):
			return 1
		}
		return 0
	})
	slices.Sort(offered)
	return fit, slices.Compact(offered)
}

// readConfig checks that the manifest is an image's and fetches its config.
func (b *blobs) readConfig(ctx context.Context, desc ocispec.Descriptor, d *document) error {
	if d.Config == nil {
		return errs.New(errs.Invalid, "manifest %s has no config: it is not an image", desc.Digest)
	}
	switch d.Config.MediaType {
	case images.MediaTypeDockerSchema2Config, ocispec.MediaTypeImageConfig, "application/octet-stream", "":
	default:
		return errs.New(errs.Unsupported, "%s is not an image but an artifact of type %q; it can be copied between registries, but not run", b.ref.Familiar(), d.Config.MediaType)
	}
	if len(d.Layers) > maxLayers {
		return errs.New(errs.Invalid, "manifest %s lists %d layers; at most %d can be mounted", desc.Digest, len(d.Layers), maxLayers)
	}
	var cfg ocispec.Image
	if err := b.document(ctx, *d.Config, &cfg); err != nil {
		return err
	}
	if len(cfg.RootFS.DiffIDs) != len(d.Layers) {
		return errs.New(errs.Invalid, "manifest %s lists %d layers, its config %d", desc.Digest, len(d.Layers), len(cfg.RootFS.DiffIDs))
	}
	d.diffIDs, d.platform = cfg.RootFS.DiffIDs, cfg.Platform
	return nil
}

func (b *blobs) layer(l ocispec.Descriptor, action string, current int64) {
	p := model.ImageProgress{ID: shortDigest(l.Digest.String()), Action: action}
	if current > 0 {
		p.Current, p.Total = current, l.Size
	}
	b.tell(p)
}

// known is what the name pointed to before; "" when it was not there.
func (o *operation) known(ctx context.Context) string {
	list, err := o.cfg.Store.Targets(ctx, o.ref.String())
	if err != nil || len(list) == 0 {
		return ""
	}
	return list[0].Target.Digest.String()
}

// record gives the image its names: the one asked for, and the repository with the digest.
func (o *operation) record(ctx context.Context, target ocispec.Descriptor) error {
	names := []string{o.ref.Name() + "@" + target.Digest.String()}
	if o.ref.Digest == "" {
		names = append(names, o.ref.String())
	}
	for _, name := range names {
		if _, err := o.cfg.Store.Record(ctx, name, target); err != nil {
			return err
		}
	}
	return nil
}

// shortDigest is the first twelve digits of a digest, as people see layers.
func shortDigest(d string) string {
	_, hex, ok := strings.Cut(d, ":")
	if !ok {
		hex = d
	}
	return hex[:min(12, len(hex))]
}
