package server

import (
	"context"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

type fakeImages struct{ *fake }

func fakeImage() model.Image {
	return model.Image{ID: "sha256:" + strings.Repeat("1", 64), RepoTags: []string{"whoami:latest"}, Size: 1000, Created: time.Unix(1700000000, 0),
		Platform: model.Platform{OS: "linux", Architecture: "amd64"}, History: []model.ImageHistory{{CreatedBy: "built in", Size: 1000}}}
}

func (f fakeImages) List(_ context.Context, filters model.Filters, shared bool) ([]model.ImageSummary, error) {
	f.last = filters
	return []model.ImageSummary{{Image: fakeImage(), SharedSize: -1, Containers: 1}}, nil
}

func (f fakeImages) Inspect(_ context.Context, ref, _ string) (model.Image, error) {
	if ref != "whoami" && ref != "whoami:latest" && ref != "a.example/b/c" && !strings.HasPrefix(ref, "sha256:1") {
		return model.Image{}, errs.New(errs.NotFound, "No such image: %s", ref)
	}
	return fakeImage(), nil
}

func (f fakeImages) Manifests(context.Context, string) ([]model.ImageManifest, error) {
	return []model.ImageManifest{{Digest: fakeImage().ID, Kind: model.ManifestImage, Available: true, Platform: fakeImage().Platform}}, nil
}

func (f fakeImages) Tag(_ context.Context, ref, name string) error {
	f.last = ref + " " + name
	return nil
}

func (f fakeImages) Remove(_ context.Context, ref string, o model.ImageRemoveOptions) ([]model.ImageDeletion, error) {
	f.last = o
	return []model.ImageDeletion{{Untagged: ref}, {Deleted: "sha256:1"}}, nil
}

func (f fakeImages) Prune(_ context.Context, filters model.Filters) (model.ImagePruneReport, error) {
	f.last = filters
	return model.ImagePruneReport{Deleted: []model.ImageDeletion{{Deleted: "sha256:1"}}, Reclaimed: 9}, nil
}

func (f fakeImages) Usage(context.Context) (model.ImageUsage, error) {
	return model.ImageUsage{Images: []model.ImageSummary{{Image: fakeImage(), Containers: 1}}, LayersSize: 1000, ActiveImages: 1}, nil
}

func (f fakeImages) Load(_ context.Context, r io.Reader, platforms []string, progress func(model.ImageProgress)) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	f.last = platforms
	if len(data) < 512 {
		return errs.New(errs.Invalid, "the archive is not one of images")
	}
	progress(model.ImageProgress{ID: "abc", Action: "Loading layer", Current: 5, Total: 10})
	if strings.Contains(string(data), "damaged") {
		return errs.New(errs.Damaged, "layer abc is damaged")
	}
	progress(model.ImageProgress{Action: "Loaded image: whoami:latest"})
	return nil
}

func (f fakeImages) Save(_ context.Context, refs, platforms []string, w io.Writer) error {
	f.last = refs
	_, err := w.Write(tarOf("manifest.json", "[]"))
	return err
}

func (f fakeImages) Import(_ context.Context, r io.Reader, i model.ImageImport) (string, error) {
	f.last = i
	_, err := io.Copy(io.Discard, r)
	return "sha256:imported", err
}

type fakeNetworks struct{ *fake }

func fakeNetwork() NetworkView {
	subnet := netip.MustParsePrefix("10.0.0.0/24")
	return NetworkView{Network: model.Network{ID: strings.Repeat("a", 64), Created: time.Unix(1700000000, 0), NetworkSpec: model.NetworkSpec{Name: "own", Driver: "bridge", IPv4: true,
		IPAM: model.IPAM{Pools: []model.IPPool{{Subnet: subnet, Gateway: netip.MustParseAddr("10.0.0.1")}}}}},
		Endpoints: map[string]NetworkMember{strings.Repeat("c", 64): {ContainerName: "web", Endpoint: model.Endpoint{ID: "e", IPv4: netip.MustParsePrefix("10.0.0.2/24")}}},
		Subnets:   map[netip.Prefix]model.SubnetUse{subnet: {InUse: 4, Free: 252}}}
}

func (f fakeNetworks) List(_ context.Context, filters model.Filters) ([]NetworkView, error) {
	f.last = filters
	return []NetworkView{fakeNetwork()}, nil
}

func (f fakeNetworks) Inspect(_ context.Context, ref string) (NetworkView, error) {
	if ref != "own" {
		return NetworkView{}, errs.New(errs.NotFound, "network %s not found", ref)
	}
	return fakeNetwork(), nil
}

func (f fakeNetworks) Create(_ context.Context, s model.NetworkSpec) (string, string, error) {
	f.last = s
	return "netid", "", nil
}

func (f fakeNetworks) Remove(context.Context, string) error { return nil }

func (f fakeNetworks) Prune(_ context.Context, filters model.Filters) ([]string, error) {
	return []string{"own"}, nil
}

func (f fakeNetworks) Connect(_ context.Context, network, container string, s model.EndpointSpec) error {
	f.last = s
	return nil
}

func (f fakeNetworks) Disconnect(context.Context, string, string, bool) error { return nil }

type fakeVolumes struct{ *fake }

func (f fakeVolumes) List(_ context.Context, filters model.Filters, usage bool) ([]model.Volume, []string, error) {
	v := model.Volume{Name: "data", Driver: "local", Mountpoint: "/v", Created: time.Unix(1700000000, 0)}
	if usage {
		v.Usage = &model.VolumeUsage{Size: 100, RefCount: 0}
	}
	return []model.Volume{v}, nil, nil
}

func (f fakeVolumes) Inspect(_ context.Context, name string) (model.Volume, error) {
	return model.Volume{Name: name, Driver: "local"}, nil
}

func (f fakeVolumes) Create(_ context.Context, v model.Volume) (model.Volume, error) {
	f.last = v
	return v, nil
}

func (f fakeVolumes) Remove(_ context.Context, name string, force bool) error {
	return errs.New(errs.NotFound, "get %s: no such volume", name)
}

func (f fakeVolumes) Prune(_ context.Context, filters model.Filters) (model.VolumePruneReport, error) {
	f.last = filters
	return model.VolumePruneReport{Deleted: []string{"data"}, Reclaimed: 100}, nil
}
