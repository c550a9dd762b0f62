package store

import (
	"context"
	"slices"
	"time"

	"github.com/containerd/platforms"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/model"
)

func (b *backend) readConfig(ctx context.Context, desc ocispec.Descriptor) (dockerspec.DockerOCIImage, error) {
	var cfg dockerspec.DockerOCIImage
	err := b.document(ctx, desc, &cfg)
	return cfg, err
}

func spec(p model.Platform) ocispec.Platform {
	return ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures}
}

func sortByPreference(list []ocispec.Descriptor, match platforms.MatchComparer) {
	slices.SortStableFunc(list, func(a, b ocispec.Descriptor) int {
		switch {
		case a.Platform == nil || b.Platform == nil:
			if (a.Platform == nil) == (b.Platform == nil) {
				return 0
			} else if a.Platform == nil {
				return 1
			}
			return -1
		case match.Less(*a.Platform, *b.Platform):
			return -1
		case match.Less(*b.Platform, *a.Platform):
			return 1
		}
		return 0
	})
}

// imageFromConfig is everything that the config document says.
func imageFromConfig(c dockerspec.DockerOCIImage) model.Image {
	img := model.Image{
		Platform: model.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant, OSVersion: c.OSVersion, OSFeatures: c.OSFeatures},
		Created:  timeOf(c.Created),
		Origin:   model.ImageOrigin{Author: c.Author},
		Config:   configToModel(c.Config),
	}
	for _, id := range c.RootFS.DiffIDs {
		img.DiffIDs = append(img.DiffIDs, id.String())
	}
	next := 0
	for _, h := range c.History {
		step := model.ImageHistory{Created: timeOf(h.Created), CreatedBy: h.CreatedBy, Author: h.Author, Comment: h.Comment, EmptyLayer: h.EmptyLayer}
		if !h.EmptyLayer && next < len(img.DiffIDs) {
			step.Layer = img.DiffIDs[next]
			next++
		}
		img.History = append(img.History, step)
	}
	if n := len(img.History); n > 0 {
		img.Origin.Comment = img.History[n-1].Comment
	}
	return img
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

func configToModel(c dockerspec.DockerOCIImageConfig) model.ImageConfig {
	out := model.ImageConfig{User: c.User, ExposedPorts: sortedKeys(c.ExposedPorts), Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd,
		Volumes: sortedKeys(c.Volumes), WorkingDir: c.WorkingDir, Labels: c.Labels, StopSignal: c.StopSignal,
		OnBuild: c.OnBuild, Shell: c.Shell}
	if h := c.Healthcheck; h != nil {
		out.Healthcheck = &model.Healthcheck{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod,
			StartInterval: h.StartInterval, Retries: h.Retries}
	}
	return out
}

func configFromModel(c model.ImageConfig) dockerspec.DockerOCIImageConfig {
	out := dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{User: c.User, ExposedPorts: setOf(c.ExposedPorts), Env: c.Env,
		Entrypoint: c.Entrypoint, Cmd: c.Cmd, Volumes: setOf(c.Volumes), WorkingDir: c.WorkingDir, Labels: c.Labels, StopSignal: c.StopSignal}}
	out.OnBuild, out.Shell = c.OnBuild, c.Shell
	if h := c.Healthcheck; h != nil {
		out.Healthcheck = &dockerspec.HealthcheckConfig{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod,
			StartInterval: h.StartInterval, Retries: h.Retries}
	}
	return out
}

// configFor is the config document of an image made here.
func configFor(img model.Image) dockerspec.DockerOCIImage {
	created := img.Created
	doc := dockerspec.DockerOCIImage{Config: configFromModel(img.Config)}
	doc.Created, doc.Author = &created, img.Origin.Author
	doc.Platform = spec(img.Platform)
	doc.RootFS.Type = "layers"
	doc.RootFS.DiffIDs = []digest.Digest{}
	for _, id := range img.DiffIDs {
		doc.RootFS.DiffIDs = append(doc.RootFS.DiffIDs, digest.Digest(id))
	}
	for _, h := range img.History {
		at := h.Created
		doc.History = append(doc.History, ocispec.History{Created: &at, CreatedBy: h.CreatedBy, Author: h.Author, Comment: h.Comment, EmptyLayer: h.EmptyLayer})
	}
	return doc
}

func sortedKeys(m map[string]struct{}) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func setOf(list []string) map[string]struct{} {
	if len(list) == 0 {
		return nil
	}
	out := make(map[string]struct{}, len(list))
	for _, k := range list {
		out[k] = struct{}{}
	}
	return out
}
