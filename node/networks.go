package node

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/shoalhq/shoal/api/server"
	"github.com/shoalhq/shoal/engine"
	"github.com/shoalhq/shoal/engine/ocispec"
	"github.com/shoalhq/shoal/lib/plugin"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network"
	"github.com/shoalhq/shoal/network/ipam"
	"github.com/shoalhq/shoal/node/config"
	"github.com/shoalhq/shoal/observe/events"
)

// engineNetworks shows the network room as the engine wants it.
type engineNetworks struct {
	*network.Manager
	dns func() config.DNS // the daemon's own choices, which a reload changes
	log *slog.Logger
}

// warn logs what a start cannot answer with: the API has no place for it. `shoal ports` shows it too.
func (n engineNetworks) warn(r engine.NetworkAttach, warnings []string) {
	for _, w := range warnings {
		n.log.Warn(w, "container", r.Name)
	}
}

func attachRequest(r engine.NetworkAttach) network.AttachRequest {
	return network.AttachRequest{ContainerID: r.ContainerID, Name: r.Name, Hostname: r.Hostname, Domainname: r.Domainname,
		Namespace: r.Namespace, Primary: r.Primary, Endpoints: r.Endpoints, Exposed: r.Exposed, Ports: r.Ports, Names: r.Names, Sysctls: r.Sysctls}
}

func (n engineNetworks) Attach(ctx context.Context, r engine.NetworkAttach) (engine.NetworkAttachment, error) {
	r.Names = n.names(r.Names)
	a, err := n.Manager.Attach(ctx, attachRequest(r))
	n.warn(r, a.Warnings)
	return engine.NetworkAttachment{Endpoints: a.Endpoints, Ports: a.Ports}, err
}

func (n engineNetworks) Connect(ctx context.Context, r engine.NetworkAttach) (engine.NetworkAttachment, error) {
	r.Names = n.names(r.Names)
	a, err := n.Manager.Connect(ctx, attachRequest(r))
	n.warn(r, a.Warnings)
	return engine.NetworkAttachment{Endpoints: a.Endpoints, Ports: a.Ports}, err
}

func (n engineNetworks) Restore(ctx context.Context, live []engine.NetworkLive) error {
	all := make([]network.Live, len(live))
	for i, l := range live {
		l.Attach.Names = n.names(l.Attach.Names)
		all[i] = network.Live{Attach: attachRequest(l.Attach), Path: l.Path, State: l.State}
	}
	return n.Manager.Restore(ctx, all)
}

func (n engineNetworks) Files(f engine.NameFiles) (hosts, resolvConf []byte, err error) {
	return n.Manager.Files(network.NameFiles{Hostname: f.Hostname, Domainname: f.Domainname, Host: f.Host, Names: n.names(f.Names),
		Endpoints: f.Endpoints, Links: f.Links})
}

// names fills in what the daemon was told for containers that say nothing.
func (n engineNetworks) names(s model.NameSpec) model.NameSpec {
	d := n.dns()
	if len(s.DNS) == 0 {
		s.DNS = d.Servers
	}
	if len(s.DNSOptions) == 0 {
		s.DNSOptions = d.Options
	}
	if len(s.DNSSearch) == 0 {
		s.DNSSearch = d.Search
	}
	return s
}

// networkConfig says to the network room what the daemon was told.
func (n *Node) networkConfig(c *config.Config, plugins *plugin.Plugins) network.Config {
	w := c.Network
	out := network.Config{
		Root: c.Daemon.DataRoot + "/networks", Exec: c.Daemon.ExecRoot + "/networks", NoForward: !w.IPForward, Log: n.log,
		Carriage: network.Carriage{NoRules: !w.Publish.Filter, NoRelay: !w.Publish.UserlandProxy, HostPolicy: w.Publish.HostPolicy,
			DirectRouting: w.Publish.DirectRouting},
		Defaults: network.Defaults{MTU: w.MTU, Options: w.NetworkOpts, HostGateways: w.HostGatewayIPs},
		Bridge: network.BridgeConfig{Disabled: w.Bridge == "none", Name: w.Bridge, IPv4: family(w.IPv4), IPv6: family(w.IPv6),
			NoICC: !w.ICC, NoMasq: !w.Publish.Masquerade, HostIP: w.Publish.DefaultAddress},
		Foreign: network.Foreign{Plugins: plugins, CNIBin: c.Plugins.CNIBin, CNIConf: c.Plugins.CNIConf,
			Timeout: time.Duration(c.Plugins.Timeout) * time.Second},
		Report: func(f network.Finding) {
			n.bus.Publish(model.Event{Type: "daemon", Action: "repair", ID: "network", Attrs: map[string]string{"code": f.Code, "what": f.What, "how": f.How}})
		},
	}
	if out.Bridge.Disabled {
		out.Bridge.Name = ""
	}
	for _, p := range w.Pools {
		out.Pools = append(out.Pools, ipam.Base{Base: p.Base, Size: p.Size})
	}
	return out
}

// fixedNetworks are the running containers that cannot change the addresses and routes of their network: neither they nor
// those that share it have the capability.
func (n *Node) fixedNetworks() map[string]bool {
	running, err := n.engine.List(context.Background(), model.ListOptions{})
	if err != nil {
		return nil
	}
	fixed, host := map[string]bool{}, specHost()
	for _, v := range running {
		fixed[v.ID] = true
	}
	for _, v := range running {
		if caps, err := ocispec.Capabilities(v.Spec.Security, host); err != nil || slices.Contains(caps, "CAP_NET_ADMIN") {
			delete(fixed, v.ID)
			delete(fixed, strings.TrimPrefix(v.Spec.Network.Mode, "container:"))
		}
	}
	return fixed
}

func family(r config.BridgeRange) network.BridgeFamily {
	return network.BridgeFamily{On: r.On, Bridge: r.Bridge, Range: r.FixedCIDR, Gateway: r.Gateway}
}

// apiNetworks shows the network room as the API wants it. What touches containers goes through the engine.
type apiNetworks struct {
	networks *network.Manager
	engine   *engine.Engine
	events   *events.Bus
}

func (a apiNetworks) publish(action string, n model.Network) {
	a.events.Publish(model.Event{Type: "network", Action: action, ID: n.ID, Attrs: map[string]string{"name": n.Name, "type": n.Driver}})
}

func (a apiNetworks) view(ctx context.Context, n model.Network) server.NetworkView {
	v := server.NetworkView{Network: n, Endpoints: map[string]server.NetworkMember{}, Subnets: a.networks.Subnets(n.ID)}
	for _, ep := range a.networks.Endpoints(ctx, n.ID) {
		m := server.NetworkMember{Endpoint: ep}
		if c, err := a.engine.Inspect(ctx, ep.ContainerID, false); err == nil {
			m.ContainerName = c.Name
		}
		v.Endpoints[ep.ContainerID] = m
	}
	return v
}

func (a apiNetworks) filter(ctx context.Context, f model.Filters) (func(model.Network) bool, error) {
	return model.NetworkFilter(f, time.Now(), func(id string) int { return len(a.networks.Endpoints(ctx, id)) })
}

func (a apiNetworks) List(ctx context.Context, f model.Filters) ([]server.NetworkView, error) {
	keep, err := a.filter(ctx, f)
	if err != nil {
		return nil, err
	}
	out := []server.NetworkView{}
	for _, n := range a.networks.List(ctx) {
		if keep(n) {
			out = append(out, a.view(ctx, n))
		}
	}
	return out, nil
}

func (a apiNetworks) Inspect(ctx context.Context, ref string) (server.NetworkView, error) {
	n, err := a.networks.Resolve(ctx, ref)
	if err != nil {
		return server.NetworkView{}, err
	}
	return a.view(ctx, n), nil
}

func (a apiNetworks) Create(ctx context.Context, s model.NetworkSpec) (id, warning string, err error) {
	n, err := a.networks.Create(ctx, s)
	if err == nil {
		a.publish("create", n)
	}
	if unknown := network.UnknownOptions(&n.NetworkSpec); err == nil && len(unknown) > 0 {
		warning = fmt.Sprintf("driver options without effect: the driver %s does not know %s", n.Driver, strings.Join(unknown, ", "))
	}
	if err == nil && n.IPAM.Driver == "default" && len(n.IPAM.Options) > 0 {
		warning = strings.TrimPrefix(warning+"; IPAM options without effect: the IPAM driver default knows none", "; ")
	}
	return n.ID, warning, err
}

func (a apiNetworks) Remove(ctx context.Context, ref string) error {
	n, err := a.networks.Resolve(ctx, ref)
	if err != nil {
		return err
	}
	if err = a.engine.RemoveNetwork(ctx, n.ID); err == nil {
		a.publish("destroy", n)
	}
	return err
}

func (a apiNetworks) Prune(ctx context.Context, f model.Filters) ([]string, error) {
	matches, err := a.filter(ctx, f)
	if err != nil {
		return nil, err
	}
	before := map[string]model.Network{}
	for _, n := range a.networks.List(ctx) {
		before[n.Name] = n
	}
	removed, err := a.networks.Prune(ctx, func(n model.Network) bool { return !matches(n) })
	for _, name := range removed {
		a.publish("destroy", before[name])
	}
	return removed, err
}

func (a apiNetworks) Connect(ctx context.Context, network, container string, s model.EndpointSpec) error {
	return a.engine.ConnectNetwork(ctx, network, container, s)
}

func (a apiNetworks) Disconnect(ctx context.Context, network, container string, force bool) error {
	return a.engine.DisconnectNetwork(ctx, network, container, force)
}
