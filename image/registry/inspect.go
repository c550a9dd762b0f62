package registry

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// maxTags and maxTagPages bound how many tags of a repository are read, and maxTagList the bytes of one page of them.
const (
	maxTags     = 100_000
	maxTagPages = 2_000
	maxTagList  = 8 << 20
)

// tags lists the repository's tags, page by page.
func (o *operation) tags(ctx context.Context) ([]string, error) {
	hosts, err := o.hosts()
	if err != nil {
		return nil, err
	}
	host := hosts[len(hosts)-1]
	spec, err := reference.Parse(o.ref.Name())
	if err != nil {
		return nil, errs.As(errs.Invalid, err)
	}
	if ctx, err = docker.ContextWithRepositoryScope(ctx, spec, false); err != nil {
		return nil, err
	}
	var all []string
	path := host.Path + "/" + o.ref.Path + "/tags/list"
	for pages := 0; path != ""; pages++ {
		if pages >= maxTagPages {
			return nil, errs.New(errs.Invalid, "the list of tags of %s has more than %d pages; pull them by name", o.ref.Name(), maxTagPages)
		}
		res, err := ask(ctx, host, path)
		if err != nil {
			return nil, err
		}
		var page struct {
			Tags []string `json:"tags"`
		}
		err = json.NewDecoder(io.LimitReader(res.Body, maxTagList)).Decode(&page)
		res.Body.Close()
		if err != nil {
			return nil, errs.New(errs.Invalid, "the registry's list of tags is no JSON document: %w", err)
		}
		for _, tag := range page.Tags {
			if _, err := model.ParseReference(o.ref.Name() + ":" + tag); err != nil {
				return nil, err
			}
		}
		if all = append(all, page.Tags...); len(all) > maxTags {
			return nil, errs.New(errs.Invalid, "the repository %s has more than %d tags; pull them by name", o.ref.Name(), maxTags)
		}
		next := nextPage(res.Request.URL, res.Header.Get("Link"))
		if next == path || len(page.Tags) == 0 {
			break // it would never end
		}
		path = next
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// nextPage reads `<ADDRESS>; rel="next"`; the registry may lead on within itself only.
func nextPage(at *url.URL, link string) string {
	address, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
	if !ok || !strings.Contains(rest, "next") {
		return ""
	}
	u, err := at.Parse(address)
	if err != nil || u.Host != at.Host {
		return ""
	}
	return u.RequestURI()
}

// Distribution asks the registry what a name means and for which platforms it has it, without pulling it.
func (c *Client) Distribution(ctx context.Context, ref string, auth *registry.AuthConfig) (registry.DistributionInspect, error) {
	var out registry.DistributionInspect
	parsed, err := model.ParseReference(ref)
	if err != nil {
		return out, err
	}
	o := c.begin(parsed, auth, nil)
	defer o.end()
	ctx = quiet(ctx)
	out, err = o.distribution(ctx)
	return out, explain(ctx, "inspect", parsed, err)
}

func (o *operation) distribution(ctx context.Context) (registry.DistributionInspect, error) {
	var out registry.DistributionInspect
	ctx, into, done, err := o.cfg.Store.Content(ctx)
	if err != nil {
		return out, err
	}
	defer done()
	resolver, err := o.resolver()
	if err != nil {
		return out, err
	}
	full, target, err := o.resolve(ctx, resolver)
	if err != nil {
		return out, err
	}
	fetcher, err := resolver.Fetcher(ctx, full)
	if err != nil {
		return out, err
	}
	b := &blobs{operation: o, from: fetcher, into: into}
	var d document
	if err := b.document(ctx, target, &d); err != nil {
		return out, err
	}
	out.Descriptor = ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size}
	if images.IsIndexType(target.MediaType) {
		for _, m := range d.Manifests {
			if m.Platform != nil && m.Annotations["vnd.docker.reference.type"] == "" {
				out.Platforms = append(out.Platforms, *m.Platform)
			}
		}
		return out, nil
	}
	if d.Config == nil {
		return out, nil
	}
	var cfg ocispec.Image
	if err := b.document(ctx, *d.Config, &cfg); err != nil {
		return out, err
	}
	out.Platforms = []ocispec.Platform{cfg.Platform}
	return out, nil
}
