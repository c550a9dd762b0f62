package convert

import (
	"cmp"
	"net/netip"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/storage"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
)

// shownLinks are links in the form that Docker shows: "/name:/own/alias".
func shownLinks(links []string, own string) []string {
	var out []string
	for _, l := range links {
		if !strings.HasPrefix(l, "/") {
			name, alias := model.SplitLink(l)
			l = "/" + name + ":/" + own + "/" + alias
		}
		out = append(out, l)
	}
	return out
}

// Inspect is the answer of GET /containers/{id}/json in the shape of the version.
func Inspect(view *model.ContainerView, v types.Version) any {
	c := &view.Container
	r := container.InspectResponse{
		ID: c.ID, Created: stamp(c.Created), Path: c.Runtime.Path, Args: orEmpty(c.Runtime.Args), State: toState(&c.State), Image: c.Image.ID,
		ResolvConfPath: c.Runtime.ResolvConfPath, HostnamePath: c.Runtime.HostnamePath, HostsPath: c.Runtime.HostsPath,
		LogPath: c.Runtime.LogPath, Name: "/" + c.Name, RestartCount: c.State.RestartCount, Driver: cmp.Or(view.StorageDriver, "overlay2"), Platform: "linux",
		MountLabel: c.Runtime.MountLabel, ProcessLabel: c.Runtime.ProcessLabel, AppArmorProfile: c.Runtime.AppArmorProfile,
		ExecIDs: view.ExecIDs, HostConfig: ToHostConfig(&c.Spec), Mounts: toMountPoints(c.Mounts), Config: ToConfig(c),
		NetworkSettings: &container.NetworkSettings{SandboxID: c.Network.SandboxID, SandboxKey: c.Network.SandboxKey,
			Ports: ports(c), Networks: endpoints(c)},
	}
	r.ImageManifestDescriptor = imageManifest(c, v)
	if r.HostConfig.LogConfig.Config == nil {
		r.HostConfig.LogConfig.Config = map[string]string{}
	}
	if r.Config.Labels == nil {
		r.Config.Labels = map[string]string{}
	}
	r.HostConfig.Links = shownLinks(r.HostConfig.Links, c.Name)
	if r.HostConfig.Runtime == "" {
		r.HostConfig.Runtime = c.Runtime.Name
	}
	if s := view.Size; s != nil {
		r.SizeRw, r.SizeRootFs = &s.Writable, &s.RootFS
	}
	if o := view.Overlay; o != nil {
		data := map[string]string{"ID": c.ID, "LowerDir": joinPaths(o.Lower), "UpperDir": o.Upper, "WorkDir": o.Work}
		if o.MergedIfKnown != "" {
			data["MergedDir"] = o.MergedIfKnown
		}
		r.GraphDriver = &storage.DriverData{Name: r.Driver, Data: data}
	}
	if v >= 52 {
		return r
	}
	return oldInspect(r, c, v)
}

func joinPaths(paths []string) string {
	out := ""
	for i, p := range paths {
		if i > 0 {
			out += ":"
		}
		out += p
	}
	return out
}

func orEmpty[T any](in []T) []T {
	if in == nil {
		return []T{}
	}
	return in
}

// oldInspect adds what versions before 1.52 had.
func oldInspect(r container.InspectResponse, c *model.Container, v types.Version) oldInspectResponse {
	cfg := oldConfig{Config: r.Config, OnBuild: r.Config.OnBuild, MacAddress: c.Spec.Network.MacAddress}
	ns := &oldNetworkSettings{NetworkSettings: *r.NetworkSettings}
	if primary := primaryEndpoint(c); primary != nil {
		mac := ""
		if !primary.MAC.IsZero() {
			mac = primary.MAC.String()
		}
		if cfg.MacAddress == "" && !primary.Spec.MAC.IsZero() {
			cfg.MacAddress = primary.Spec.MAC.String()
		}
		if primary.Network == model.NetworkBridge { // only the default network was shown at the top
			ns.EndpointID, ns.Gateway, ns.IPv6Gateway, ns.MacAddress = primary.ID, primary.Gateway4, primary.Gateway6, mac
			ns.IPAddress, ns.IPPrefixLen = split(primary.IPv4)
			ns.GlobalIPv6Address, ns.GlobalIPv6PrefixLen = split(primary.IPv6)
		}
	}
	if v < 45 { // the short ID was among the aliases of user-defined networks
		for name, ep := range ns.Networks {
			if name != model.NetworkBridge && name != model.NetworkHost && name != model.NetworkNone {
				ep.Aliases = append(append([]string{}, ep.Aliases...), ids.Short(c.ID))
			}
		}
	}
	old := oldInspectResponse{InspectResponse: r, Config: cfg, NetworkSettings: ns, HostConfig: oldHostConfig{HostConfig: r.HostConfig}}
	if v < 42 {
		old.HostConfig.KernelMemory, old.HostConfig.KernelMemoryTCP = new(int64), new(int64)
	}
	return old
}

func split(p netip.Prefix) (netip.Addr, int) {
	if !p.IsValid() {
		return netip.Addr{}, 0
	}
	return p.Addr(), p.Bits()
}

// primaryEndpoint is the endpoint of the network mode.
func primaryEndpoint(c *model.Container) *model.Endpoint {
	mode := c.Spec.Network.Mode
	if mode == "" || mode == "default" {
		mode = model.NetworkBridge
	}
	if ep, ok := c.Network.Endpoints[mode]; ok {
		ep.Network = mode
		return &ep
	}
	if spec, ok := c.Spec.Network.Endpoints[mode]; ok {
		return &model.Endpoint{Network: mode, Spec: spec}
	}
	return nil
}
