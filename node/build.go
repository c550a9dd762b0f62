package node

import (
	"context"
	"net/netip"
	"path/filepath"

	"github.com/shoalhq/shoal/build"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network"
	"github.com/shoalhq/shoal/node/config"
)

// openBuilder makes the builder, which opens nothing before the first build.
func (n *Node) openBuilder(cfg *config.Config, runtimePath, profile string, ids *model.IDMaps) (*build.Builder, error) {
	var confined build.Labels
	if cfg.Container.Defaults.SELinux {
		confined = labels{}
	}
	described := &devices{dirs: func() []string { return cdiSpecDirs(n.cfg.Load()) }}
	return build.New(build.Config{
		Confine: build.Confinement{AppArmor: profile, Labels: confined, IDMaps: ids},
		Root:    filepath.Join(cfg.Daemon.DataRoot, "build"), ExecRoot: filepath.Join(cfg.Daemon.ExecRoot, "build"), Runtime: runtimePath,
		CgroupParent: cfg.Container.Defaults.CgroupParent, Images: n.images.Store, Resolve: n.images.Resolve,
		Networks: buildNetworks{engineNetworks{n.networks, func() config.DNS { return n.cfg.Load().Network.DNS }, n.log}, cfg.Network.Bridge == "none", cfg.Network.HostGatewayIPs, ids},
		Hosts:    n.registryClient().Hosts, Log: n.log, Devices: described.read,
		Policy: func() build.Policy { return buildPolicy(n.cfg.Load().Builder) },
	})
}

func buildPolicy(c config.Builder) build.Policy {
	p := build.Policy{KeepAll: c.KeepAll, Keep: c.Keep, Rules: c.Rules, HistoryAge: c.HistoryAge, HistoryCount: c.HistoryCount}
	if !c.NoHostNetwork {
		p.Entitlements = append(p.Entitlements, "network.host")
	}
	if !c.NoDevices {
		p.Entitlements = append(p.Entitlements, "device")
	}
	if c.Insecure {
		p.Entitlements = append(p.Entitlements, "security.insecure")
	}
	return p
}

// buildNetworks puts build steps on the default network.
type buildNetworks struct {
	engineNetworks
	off          bool         // the daemon has no default network
	hostGateways []netip.Addr // of the administrator
	ids          *model.IDMaps
}

func (b buildNetworks) Join(ctx context.Context, id, hostname string) (build.Joined, error) {
	j := build.Joined{ID: id}
	if b.off {
		return j, nil
	}
	ns, err := b.Namespace(ctx, b.ids)
	if err != nil {
		return j, err
	}
	a, err := b.Manager.Attach(ctx, network.AttachRequest{ContainerID: id, Name: "build-" + id, Hostname: hostname, Namespace: ns, Primary: "bridge",
		Endpoints: map[string]model.EndpointSpec{"bridge": {}}, Names: b.names(model.NameSpec{})})
	if err != nil {
		ns.Close()
		return j, err
	}
	j.Namespace, j.State = ns, a.Endpoints
	return j, nil
}

func (b buildNetworks) HostGateway(ctx context.Context) string {
	if len(b.hostGateways) > 0 {
		return b.hostGateways[0].String()
	}
	if b.off {
		return ""
	}
	n, err := b.Manager.Resolve(ctx, model.NetworkBridge)
	if err != nil {
		return ""
	}
	for _, p := range n.IPAM.Pools {
		if p.Subnet.Addr().Is4() && p.Gateway.IsValid() {
			return p.Gateway.String()
		}
	}
	return ""
}

func (b buildNetworks) Leave(ctx context.Context, j build.Joined) error {
	if j.Namespace == nil {
		return nil
	}
	defer j.Namespace.Close()
	return errs.Wrap(b.Manager.Detach(ctx, j.ID, ""), "take a build step off the network")
}

func (b buildNetworks) Files(j build.Joined, host bool, hostname string, extra []string) (hosts, resolvConf []byte, err error) {
	eps, _ := j.State.(map[string]model.Endpoint)
	return b.Manager.Files(network.NameFiles{Hostname: hostname, Host: host, Names: b.names(model.NameSpec{ExtraHosts: extra}), Endpoints: eps})
}
