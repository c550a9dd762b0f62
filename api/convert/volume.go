package convert

import (
	"cmp"
	"maps"
	"time"

	"github.com/moby/moby/api/types/volume"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// anonymousLabel is on every volume that the engine named itself.
const anonymousLabel = "com.docker.volume.anonymous"

// Volume is a volume as the API shows it.
func Volume(m *model.Volume) volume.Volume {
	labels := m.Labels
	if m.Anonymous { // a label that others see; what counts here is the mark
		labels = maps.Clone(labels)
		if labels == nil {
			labels = map[string]string{}
		}
		labels[anonymousLabel] = ""
	}
	out := volume.Volume{Name: m.Name, Driver: m.Driver, Mountpoint: m.Mountpoint, Labels: labels, Options: m.Options, Scope: cmp.Or(m.Scope, model.ScopeLocal), Status: m.Status}
	if !m.Created.IsZero() {
		out.CreatedAt = m.Created.UTC().Format(time.RFC3339)
	}
	if u := m.Usage; u != nil {
		out.UsageData = &volume.UsageData{Size: u.Size, RefCount: int64(u.RefCount)}
	}
	return out
}

// FromVolumeCreate makes the wanted volume of the body of POST /volumes/create.
func FromVolumeCreate(b *volume.CreateRequest) (model.Volume, error) {
	if b.ClusterVolumeSpec != nil {
		return model.Volume{}, errs.New(errs.Unavailable, "volume %q: cluster volumes need a cluster, and this node is not a swarm manager", b.Name)
	}
	driver := b.Driver
	if driver == "" {
		driver = model.LocalDriver
	}
	return model.Volume{Name: b.Name, Driver: driver, Labels: b.Labels, Options: b.DriverOpts, Anonymous: b.Name == ""}, nil
}
