package convert

import (
	"slices"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/model"
)

// ImageSummary is one element of GET /images/json in the shape of the version.
func ImageSummary(i *model.ImageSummary, v types.Version) any {
	s := image.Summary{ID: i.ID, ParentID: i.Origin.Parent, RepoTags: orEmpty(i.RepoTags), RepoDigests: orEmpty(i.RepoDigests),
		Created: unix(i.Created), Size: i.Size, SharedSize: i.SharedSize, Labels: i.Config.Labels, Containers: int64(i.Containers),
		Manifests: manifestSummaries(i.Manifests)}
	if v >= 48 {
		s.Descriptor = descriptor(i.Target, "")
	}
	if v < 51 {
		s.Containers = -1
	}
	if v < 43 {
		if len(s.RepoTags) == 0 && len(s.RepoDigests) == 0 {
			s.RepoTags = []string{"<none>:<none>"}
		}
		if len(s.RepoDigests) == 0 && slices.Equal(s.RepoTags, []string{"<none>:<none>"}) {
			s.RepoDigests = []string{"<none>@<none>"}
		}
	}
	if v >= 44 {
		return s
	}
	return oldImageSummary{Summary: s, VirtualSize: i.Size}
}

func manifestSummaries(list []model.ImageManifest) (out []image.ManifestSummary) {
	for _, m := range list {
		s := image.ManifestSummary{ID: m.Digest, Kind: image.ManifestKind(m.Kind), Available: m.Available,
			Descriptor: ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.Digest(m.Digest), Size: m.Bytes}}
		s.Size.Content, s.Size.Total = m.Content, m.Content+m.Unpacked
		platform := ocispec.Platform{OS: m.Platform.OS, Architecture: m.Platform.Architecture, Variant: m.Platform.Variant, OSVersion: m.Platform.OSVersion}
		switch s.Kind {
		case image.ManifestKindImage:
			s.Descriptor.Platform = &platform
			s.ImageData = &image.ImageProperties{Platform: platform, Containers: orEmpty(m.Containers)}
			s.ImageData.Size.Unpacked = m.Unpacked
		case image.ManifestKindAttestation:
			s.AttestationData = &image.AttestationProperties{For: digest.Digest(m.For)}
		}
		out = append(out, s)
	}
	return out
}

// descriptor is nil for what is not known: containers of old records, and of root directories.
func descriptor(d model.Descriptor, platform string) *ocispec.Descriptor {
	if d.Digest == "" || d.MediaType == "" {
		return nil
	}
	out := &ocispec.Descriptor{MediaType: d.MediaType, Digest: digest.Digest(d.Digest), Size: d.Size}
	if f := strings.SplitN(platform, "/", 3); len(f) >= 2 {
		out.Platform = &ocispec.Platform{OS: f[0], Architecture: f[1]}
		if len(f) == 3 {
			out.Platform.Variant = f[2]
		}
	}
	return out
}

func imageManifest(c *model.Container, v types.Version) *ocispec.Descriptor {
	if v < 48 {
		return nil
	}
	return descriptor(model.Descriptor{MediaType: c.Image.Type, Digest: c.Image.Digest, Size: c.Image.Size}, c.Image.Platform)
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// ImageInspect is the answer of GET /images/{name}/json in the shape of the version. The descriptor is of what the name
// points to, or, where a platform was asked for, of that platform's manifest.
func ImageInspect(i *model.Image, manifests []model.ImageManifest, onePlatform bool, v types.Version) any {
	cfg := imageConfig(&i.Config)
	r := image.InspectResponse{ID: i.ID, RepoTags: orEmpty(i.RepoTags), RepoDigests: orEmpty(i.RepoDigests), Comment: i.Origin.Comment,
		Author: i.Origin.Author, Config: cfg, Architecture: i.Platform.Architecture, Variant: i.Platform.Variant, Os: i.Platform.OS,
		OsVersion: i.Platform.OSVersion, Size: i.Size, RootFS: image.RootFS{Type: "layers", Layers: i.DiffIDs},
		Metadata: image.Metadata{LastTagTime: i.Origin.LastTagged}, Manifests: manifestSummaries(manifests)}
	if v >= 48 {
		if r.Descriptor = descriptor(i.Target, ""); onePlatform {
			r.Descriptor = descriptor(i.Manifest, i.Platform.String())
		}
	}
	if !i.Created.IsZero() {
		r.Created = i.Created.UTC().Format(time.RFC3339Nano)
	}
	if v >= 52 {
		return r
	}
	old := oldImageInspect{InspectResponse: r, Parent: i.Origin.Parent, Comment: r.Comment, Author: r.Author, Created: r.Created, Config: oldImageConfig(&i.Config)}
	if v < 50 {
		old.Config = containerConfig(&i.Config)
	}
	if v < 45 {
		old.Container, old.ContainerConfig = new(string), &container.Config{}
	}
	if v < 44 {
		old.VirtualSize = &i.Size
		if old.Created == "" {
			old.Created = zeroTime
		}
	}
	return old
}

func imageConfig(c *model.ImageConfig) *dockerspec.DockerOCIImageConfig {
	return &dockerspec.DockerOCIImageConfig{
		ImageConfig: ocispec.ImageConfig{User: c.User, ExposedPorts: set(c.ExposedPorts), Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd,
			Volumes: set(c.Volumes), WorkingDir: c.WorkingDir, Labels: c.Labels, StopSignal: c.StopSignal},
		DockerOCIImageConfigExt: dockerspec.DockerOCIImageConfigExt{Healthcheck: toHealthcheck(c.Healthcheck), OnBuild: c.OnBuild, Shell: c.Shell},
	}
}

// oldImageConfig shows fields also when they are empty, as 1.50 and 1.51 did.
func oldImageConfig(c *model.ImageConfig) any {
	return oldImageConfigShape{User: c.User, ExposedPorts: set(c.ExposedPorts), Env: c.Env, Cmd: c.Cmd, Healthcheck: toHealthcheck(c.Healthcheck),
		Volumes: set(c.Volumes), WorkingDir: c.WorkingDir, Entrypoint: c.Entrypoint, OnBuild: c.OnBuild, Labels: c.Labels,
		StopSignal: c.StopSignal, Shell: c.Shell}
}

// containerConfig is the image's config as it was shown until 1.49: with a container's fields.
func containerConfig(c *model.ImageConfig) any {
	out := &container.Config{User: c.User, Env: c.Env, Cmd: c.Cmd, Healthcheck: toHealthcheck(c.Healthcheck), Volumes: set(c.Volumes),
		WorkingDir: c.WorkingDir, Entrypoint: c.Entrypoint, OnBuild: c.OnBuild, Labels: c.Labels, StopSignal: c.StopSignal, Shell: c.Shell}
	for _, p := range c.ExposedPorts {
		if port, err := network.ParsePort(p); err == nil {
			if out.ExposedPorts == nil {
				out.ExposedPorts = network.PortSet{}
			}
			out.ExposedPorts[port] = struct{}{}
		}
	}
	return oldConfig{Config: out, OnBuild: c.OnBuild}
}

func set(list []string) map[string]struct{} {
	if len(list) == 0 {
		return nil
	}
	out := make(map[string]struct{}, len(list))
	for _, s := range list {
		out[s] = struct{}{}
	}
	return out
}

// ImageHistory is the answer of GET /images/{name}/history: newest first; only the newest step has an ID and names.
func ImageHistory(i *model.Image) []image.HistoryResponseItem {
	out := make([]image.HistoryResponseItem, 0, len(i.History))
	for n := len(i.History) - 1; n >= 0; n-- {
		h := i.History[n]
		item := image.HistoryResponseItem{ID: "<missing>", Created: unix(h.Created), CreatedBy: h.CreatedBy, Comment: h.Comment, Size: h.Size}
		if len(out) == 0 {
			item.ID, item.Tags = i.ID, i.RepoTags
		}
		out = append(out, item)
	}
	return out
}

// ImageDeletions is the answer of DELETE /images/{name}.
func ImageDeletions(in []model.ImageDeletion) []image.DeleteResponse {
	out := make([]image.DeleteResponse, 0, len(in))
	for _, d := range in {
		out = append(out, image.DeleteResponse{Deleted: d.Deleted, Untagged: d.Untagged})
	}
	return out
}
