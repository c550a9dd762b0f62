package engine

import (
	"cmp"
	"os"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// startMode is the network mode that a start goes by: where the daemon runs with --bridge=none, who asks for the default
// network and for no other has none, as with Docker.
func (e *Engine) startMode(n *model.ContainerNetworkSpec) string {
	if n.Mode != model.NetworkBridge || !e.defaults.Load().NetworkDisabled {
		return n.Mode
	}
	for name := range n.Endpoints {
		if name != model.NetworkBridge {
			return n.Mode
		}
	}
	return model.NetworkNone
}

// networkAttach asks for the container's endpoints.
func (e *Engine) networkAttach(c *model.Container, ns *os.File) NetworkAttach {
	n := &c.Spec.Network
	r := NetworkAttach{
		ContainerID: c.ID, Name: c.Name, Hostname: n.Hostname, Domainname: n.Domainname, Namespace: ns,
		Primary: n.Mode, Endpoints: n.Endpoints, Exposed: n.Exposed, Ports: n.Publish, Names: n.Names,
	}
	if n.PublishAll {
		r.Ports = publishAll(n)
	}
	for name, value := range c.Spec.Isolation.Sysctls {
		if strings.HasPrefix(name, "net.") {
			if r.Sysctls == nil {
				r.Sysctls = map[string]string{}
			}
			r.Sysctls[name] = value
		}
	}
	return r
}

// publishAll adds a host port of the engine's choice for every exposed port that has none.
func publishAll(n *model.ContainerNetworkSpec) []model.PortBinding {
	out := append([]model.PortBinding(nil), n.Publish...)
	has := map[model.Port]bool{}
	for _, b := range n.Publish {
		has[b.Port] = true
	}
	for _, p := range n.Exposed {
		if !has[p] {
			out = append(out, model.PortBinding{Port: p})
		}
	}
	return out
}

// writeNameFiles settles the content of /etc/hosts and /etc/resolv.conf, now that the addresses are known.
func (e *Engine) writeNameFiles(c *model.Container, state model.NetworkState) error {
	if c.Runtime.HostsPath == "" {
		return nil
	}
	n := &c.Spec.Network
	hosts, resolv, err := e.ports.Networks.Files(NameFiles{
		Hostname: n.Hostname, Domainname: n.Domainname, Host: n.Mode == model.NetworkHost, Names: n.Names,
		Endpoints: state.Endpoints, Links: e.links(c),
	})
	if err != nil {
		return errs.Wrap(err, "name resolution")
	}
	if err := writeInPlace(c.Runtime.HostsPath, hosts); err != nil {
		return err
	}
	return writeInPlace(c.Runtime.ResolvConfPath, resolv)
}

// driverOf names an endpoint's network driver for events.
func (e *Engine) driverOf(ep model.Endpoint) string {
	switch ep.Network {
	case model.NetworkHost:
		return model.DriverHost
	case model.NetworkNone:
		return model.DriverNull
	case model.NetworkBridge:
		return model.DriverBridge
	}
	nw, err := e.ports.Networks.Resolve(e.ctx, cmp.Or(ep.NetworkID, ep.Network))
	if err != nil {
		return ""
	}
	return nw.Driver
}

// sharedNetwork is the ID of the container whose network the container shares, or "".
func sharedNetwork(s *model.ContainerSpec) string {
	id, _ := strings.CutPrefix(s.Network.Mode, "container:")
	if id == s.Network.Mode {
		return ""
	}
	return id
}
