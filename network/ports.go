package network

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/shoalhq/shoal/model"
)

// Reachable is one port of a container, or with no port all of them, and from where it can be reached.
type Reachable struct {
	ContainerID string
	Container   string
	model.PortBinding
	Target  netip.AddrPort // in the container's network
	Daemon  bool           // the daemon carries the traffic, not the kernel
	From    []string       // in words
	Problem string         // why nobody reaches it
}

// Reachable lists what of the containers can be reached from outside their networks, ordered by container and port.
func (m *Manager) Reachable() []Reachable {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Reachable
	for _, c := range m.conts {
		name := cmp.Or(c.req.Name, c.id)
		for _, b := range c.bound {
			if len(b.direct) > 0 {
				out = append(out, directly(c, name, b)...)
				continue
			}
			r := Reachable{ContainerID: c.id, Container: name, PortBinding: b.PortBinding, Daemon: len(b.forward) == 0, From: from(b.PortBinding)}
			if m.cfg.HostPolicy && !b.HostIP.IsLoopback() {
				r.From = append(r.From, "as far as the host's firewall allows")
			}
			if e := gatewayFor(c.endpoints, b.HostIP.Is6()); e != nil {
				a := e.IPv4
				if b.HostIP.Is6() && e.IPv6.IsValid() {
					a = e.IPv6
				}
				r.Target = netip.AddrPortFrom(a.Addr(), b.Number)
			}
			out = append(out, r)
		}
		for _, p := range c.ports {
			if !slices.ContainsFunc(c.bound, func(b bound) bool { return b.Port == p.Port }) {
				out = append(out, Reachable{ContainerID: c.id, Container: name, PortBinding: p, Problem: "none of the container's networks has a way out"})
			}
		}
		for _, e := range c.endpoints {
			for _, f := range []struct {
				open bool
				at   netip.Prefix
			}{{e.net.opts.gw4 == gatewayOpen, e.IPv4}, {e.net.opts.gw6 == gatewayOpen, e.IPv6}} {
				if f.open && f.at.IsValid() {
					out = append(out, Reachable{ContainerID: c.id, Container: name, Target: netip.AddrPortFrom(f.at.Addr(), 0),
						From: []string{"every machine with a route to " + f.at.Masked().String() + " (network " + e.Network + ")"}})
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b Reachable) int {
		return cmp.Or(strings.Compare(a.Container, b.Container), cmp.Compare(a.Number, b.Number), strings.Compare(string(a.Proto), string(b.Proto)),
			cmp.Compare(a.HostPort, b.HostPort), a.HostIP.Compare(b.HostIP))
	})
	return out
}

// directly is what a container's published port is at the container's own addresses.
func directly(c *attached, name string, b bound) (out []Reachable) {
	for _, o := range b.direct {
		r := Reachable{ContainerID: c.id, Container: name, PortBinding: model.PortBinding{Port: b.Port}, Target: netip.AddrPortFrom(o.Target, o.Port)}
		for _, s := range o.Sources {
			if s.Addr().Is6() == o.Target.Is6() {
				r.From = append(r.From, s.String())
			}
		}
		if len(o.Sources) == 0 {
			r.From = []string{"every machine with a route to " + o.Target.String()}
		}
		if o.Link != "" {
			r.From = append(r.From, "only by the host's link "+o.Link)
		}
		out = append(out, r)
	}
	return out
}

// from says in words who reaches a published port.
func from(b model.PortBinding) []string {
	if b.HostIP.IsLoopback() {
		return []string{"this machine"}
	}
	if len(b.Sources) == 0 {
		if b.HostIP.IsUnspecified() {
			return []string{"everywhere"}
		}
		return []string{"whoever reaches " + b.HostIP.String()}
	}
	out := []string{"this machine"}
	for _, s := range b.Sources {
		if s.Addr().Is6() == b.HostIP.Is6() {
			out = append(out, s.String())
		}
	}
	return out
}
