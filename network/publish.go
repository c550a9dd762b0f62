package network

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/foreign"
	"github.com/shoalhq/shoal/network/plan"
	"github.com/shoalhq/shoal/network/ports"
)

// bound is a published port: the socket that holds it and the packet filter's part, which is empty where the daemon
// itself carries the traffic.
type bound struct {
	model.PortBinding
	keys    []ports.Key
	forward []plan.Forward
	direct  []plan.Opening // instead of both: what is open at the container's own addresses; the binding is as asked
}

var (
	any4 = netip.IPv4Unspecified()
	any6 = netip.IPv6Unspecified()
)

// listener is one address of the host that a binding asks for, and where it leads.
type listener struct {
	host, target netip.Addr
	relay        bool // the packet filter cannot carry it
}

// targets are where a container's published ports lead.
type targets struct {
	v4, v6 netip.Addr
	host   netip.Addr // of the host's, where a binding names none; zero: all
	relay  bool       // the packet filter does not know the network
}

// carried says that published ports are led to the endpoint: it is on a bridge of ours, or on a CNI network, of which the
// host may have an address.
func (e *endpoint) carried() bool { return e.host != "" || e.net.Driver == foreign.DriverCNI }

// publishedByDriver says that the container's way out is a network whose driver publishes the ports itself.
func publishedByDriver(eps []*endpoint) bool {
	e := gatewayFor(eps, false)
	if e == nil {
		e = gatewayFor(eps, true)
	}
	return e != nil && e.net.foreign() && e.net.Driver != foreign.DriverCNI
}

// listeners says at which of the host's addresses a binding listens. Pure.
func (m *Manager) listeners(b model.PortBinding, to targets) []listener {
	host := b.HostIP
	if !host.IsValid() && to.host.IsValid() && !to.host.IsUnspecified() {
		host = to.host
	}
	var out []listener
	add := func(h netip.Addr) {
		l := listener{host: h, target: to.v4, relay: to.relay}
		if h.Is6() {
			l.target = to.v6
		}
		if !l.target.IsValid() && h.Is6() && to.v4.IsValid() {
			l.target, l.relay = to.v4, true // the host's IPv6 for a container that has none
		}
		l.relay = l.relay || m.cfg.NoRules || m.cfg.HostPolicy
		if l.target.IsValid() && !(l.relay && (m.cfg.NoRelay || b.Proto == model.SCTP)) {
			out = append(out, l)
		}
	}
	if host.IsValid() {
		add(host.Unmap())
		return out
	}
	add(any4)
	if hostHasIPv6() {
		add(any6)
	}
	return out
}

// publish binds the host's ports of a container. The packet filter is told later, when the container can answer.
func (m *Manager) publish(c *attached, eps []*endpoint) (warnings []string, err error) {
	bounds, warnings, err := m.bind(c, c.ports, eps)
	m.mu.Lock()
	c.bound = bounds
	m.mu.Unlock()
	return warnings, err
}

// bind holds the ports of some bindings, all or none.
func (m *Manager) bind(c *attached, bindings []model.PortBinding, eps []*endpoint) (out []bound, warnings []string, err error) {
	defer func() {
		if err != nil {
			m.letGo(out)
			out = nil
		}
	}()
	if publishedByDriver(eps) {
		return nil, nil, nil
	}
	var to targets
	if e := gatewayFor(eps, false); e != nil && e.carried() && e.net.opts.gw4 != gatewayRouted {
		to.v4, to.host, to.relay = e.IPv4.Addr(), e.net.opts.hostIP, e.host == ""
	}
	if e := gatewayFor(eps, true); e != nil && e.carried() && e.net.opts.gw6 != gatewayRouted {
		to.v6, to.relay = e.IPv6.Addr(), to.relay || e.host == ""
	}
	had := m.opened(c)
	for _, b := range bindings {
		direct, err := m.openingsBeside(had, b, eps)
		if err != nil {
			return out, warnings, err
		}
		had = append(had, direct...)
		if len(direct) > 0 {
			out = append(out, bound{PortBinding: b, direct: direct})
		}
		ls := m.listeners(b, to)
		if len(ls) == 0 && len(direct) > 0 {
			continue
		}
		if len(ls) == 0 {
			if !to.v4.IsValid() && !to.v6.IsValid() {
				warnings = append(warnings, fmt.Sprintf("port %s is not published: none of the container's networks has a way out", b.Port))
				continue
			}
			return out, warnings, m.unpublishable(b, to)
		}
		var addrs []netip.Addr
		var targets []ports.Target
		for _, l := range ls {
			addrs = append(addrs, l.host)
			targets = append(targets, ports.Target{Owner: c.label, To: netip.AddrPortFrom(l.target, b.Number), Sources: b.Sources})
		}
		p, err := m.holder.Hold(b.Proto, addrs, b.HostPort, b.HostPortEnd, targets)
		if err != nil {
			return out, warnings, err
		}
		for _, l := range ls {
			one := bound{PortBinding: b, keys: []ports.Key{{Proto: b.Proto, Addr: netip.AddrPortFrom(l.host, p)}}}
			one.HostIP, one.HostPort, one.HostPortEnd = l.host, p, p
			if !l.relay {
				one.forward = []plan.Forward{{Proto: b.Proto, HostIP: l.host, HostPort: p, Target: l.target, ContainerPort: b.Number, Sources: b.Sources}}
			}
			out = append(out, one)
		}
	}
	return out, warnings, nil
}

// unpublishable says why a binding listens nowhere.
func (m *Manager) unpublishable(b model.PortBinding, to targets) error {
	relayed := to.relay || m.cfg.NoRules || m.cfg.HostPolicy
	switch {
	case relayed && b.Proto == model.SCTP:
		return errs.New(errs.Unsupported, "port %s cannot be published: SCTP is carried by the packet filter only, which does not carry ports of CNI networks, nor any with --iptables=false or --publish-policy=host", b.Port)
	case m.cfg.NoRelay && (relayed || !b.HostIP.IsValid()):
		return errs.New(errs.Unsupported, "port %s cannot be published: it would have to be carried by the daemon, which --userland-proxy=false forbids; start the daemon without it, or use a bridge network", b.Port)
	}
	return errs.New(errs.Invalid, "port %s cannot be published on %s: the container has no address of that family; use an address of the other, or a network with --ipv6", b.Port, b.HostIP)
}

// openings is what a binding opens at a container's own addresses: on routed networks to everybody, on others to who comes
// in by a link that the network trusts, or to everybody when the daemon was told so.
func (m *Manager) openings(b model.PortBinding, eps []*endpoint) (out []plan.Opening) {
	if m.cfg.NoRules {
		return nil // nothing is closed
	}
	for _, v6 := range []bool{false, true} {
		e := gatewayFor(eps, v6)
		if e == nil || e.host == "" {
			continue
		}
		a := e.IPv4
		if v6 {
			a = e.IPv6
		}
		links := e.net.opts.trusted
		if e.net.opts.gateway(v6) == gatewayRouted || m.cfg.DirectRouting {
			links = []string{""}
		}
		for _, l := range links {
			out = append(out, plan.Opening{Proto: b.Proto, Target: a.Addr(), Port: b.Number, Sources: b.Sources, Link: l})
		}
	}
	return out
}

// openingsBeside are openings, without those of a port that is open to other clients already: the packet filter knows one
// list of clients for each port of a container. Where the port has no other way in, that is refused.
func (m *Manager) openingsBeside(had []plan.Opening, b model.PortBinding, eps []*endpoint) (out []plan.Opening, failed error) {
	for _, o := range m.openings(b, eps) {
		other := func(p plan.Opening) bool {
			return p.Proto == o.Proto && p.Target == o.Target && p.Port == o.Port && p.Link == o.Link && !slices.Equal(p.Sources, o.Sources)
		}
		switch v6 := o.Target.Is6(); {
		case !slices.ContainsFunc(had, other):
			out = append(out, o)
		case gatewayFor(eps, v6).net.opts.gateway(v6) == gatewayRouted:
			failed = errs.New(errs.Invalid, "port %s is published twice for different clients, which a routed network cannot tell apart; publish it once, with all ranges", b.Port)
		}
	}
	return out, failed
}

// opened is what a container has open at its own addresses.
func (m *Manager) opened(c *attached) (out []plan.Opening) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range c.bound {
		out = append(out, b.direct...)
	}
	return out
}

func (m *Manager) letGo(bs []bound) {
	for _, b := range bs {
		for _, k := range b.keys {
			m.holder.Release(k)
		}
	}
}

func (m *Manager) forwards(bs []bound) (out []plan.Forward, elems []plan.Elem, udp []plan.Forward) {
	for _, b := range bs {
		for _, o := range b.direct {
			elems = append(elems, o.Elems()...)
		}
		for _, f := range b.forward {
			out = append(out, f)
			elems = append(elems, f.Elems()...)
			if m.bridgeNF && !m.cfg.NoRelay && f.Proto != model.SCTP {
				elems = append(elems, f.Mine())
			}
			if f.Proto == model.UDP {
				udp = append(udp, f)
			}
		}
	}
	return out, elems, udp
}

// openPorts lets the packet filter send a container's ports to it.
func (m *Manager) openPorts(c *attached) error {
	m.mu.Lock()
	_, elems, udp := m.forwards(c.bound)
	m.want.Add(elems...)
	m.mu.Unlock()
	if len(elems) == 0 {
		return nil
	}
	if err := m.changeRules(nil, elems); err != nil {
		return errs.Wrap(err, "publish the ports of %s", c.label)
	}
	m.forgetUDP(udp)
	return nil
}

// unpublish takes a container's ports back: first the traffic, then the ports.
func (m *Manager) unpublish(c *attached) {
	m.mu.Lock()
	bs := c.bound
	c.bound = nil
	m.mu.Unlock()
	m.closePorts(bs, nil)
}

// closePorts takes some ports of a container back; keep are those that stay, which may be led to the same port of it.
func (m *Manager) closePorts(bs, keep []bound) {
	_, elems, udp := m.forwards(bs)
	_, needed, _ := m.forwards(keep)
	stay := make(map[plan.Elem]bool, len(needed))
	for _, e := range needed {
		stay[e] = true
	}
	m.mu.Lock()
	var del []plan.Elem
	for _, e := range elems {
		if m.want[e.Set][e.Key+e.KeyEnd] == e && !stay[e] {
			del = append(del, e)
		}
	}
	m.want.Remove(del...)
	m.mu.Unlock()
	if len(del) > 0 {
		if err := m.changeRules(del, nil); err != nil {
			m.log.Warn("rules of unpublished ports stay until the next audit", "error", err)
			m.auditLater()
		}
		m.forgetUDP(udp)
	}
	m.letGo(bs)
}

func (m *Manager) forgetUDP(udp []plan.Forward) {
	if len(udp) == 0 || m.cfg.NoRules {
		return
	}
	if err := m.k.ForgetUDP(udp); err != nil {
		m.log.Warn("old UDP connections of a published port may linger for some minutes", "error", err)
	}
}

// UpdatePorts publishes and unpublishes ports of a running container. Ports to remove are matched by container port,
// and by host address and port where given.
func (m *Manager) UpdatePorts(containerID string, add, remove []model.PortBinding) (Attachment, error) {
	for _, p := range add {
		if err := p.Validate(); err != nil {
			return Attachment{}, err
		}
	}
	m.mu.Lock()
	c := m.conts[containerID]
	if c == nil {
		m.mu.Unlock()
		return Attachment{}, errs.New(errs.Conflict, "container %s has no network of its own now; start it first", containerID)
	}
	eps := c.endpoints
	var keep, drop []bound
	for _, b := range c.bound {
		if slices.ContainsFunc(remove, b.Named) {
			drop = append(drop, b)
		} else {
			keep = append(keep, b)
		}
	}
	c.bound = keep
	m.mu.Unlock()
	m.closePorts(drop, keep) // first, so that a host port can move to another port of the container in one step
	fresh, warnings, err := m.bind(c, add, eps)
	if err == nil {
		m.setBound(c, append(slices.Clone(keep), fresh...))
		if err = m.openPorts(c); err != nil {
			m.setBound(c, keep)
			m.closePorts(fresh, keep)
		}
	}
	if err != nil {
		if berr := m.rebind(c, drop, keep, eps); berr != nil {
			m.log.Warn("ports that should have stayed published are lost", "container", c.label, "error", berr)
		}
		return Attachment{}, err
	}
	m.mu.Lock()
	c.ports, _ = model.WithPorts(c.ports, add, remove)
	m.mu.Unlock()
	a := m.attachment(c)
	a.Warnings = warnings
	return a, nil
}

func (m *Manager) setBound(c *attached, bs []bound) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c.bound = bs
}

// rebind publishes again what was just taken back.
func (m *Manager) rebind(c *attached, drop, keep []bound, eps []*endpoint) error {
	var again []model.PortBinding
	for _, b := range drop {
		// What is open at the container's own address comes with what is published at the host's, if there is such.
		also := func(o bound) bool { return o.Port == b.Port && len(o.direct) == 0 }
		if len(b.direct) == 0 || !slices.ContainsFunc(drop, also) {
			again = append(again, b.PortBinding)
		}
	}
	bs, _, err := m.bind(c, again, eps)
	if err != nil {
		return err
	}
	m.setBound(c, append(slices.Clone(keep), bs...))
	return m.openPorts(c)
}

// hostHasIPv6 says whether the host can listen on IPv6 at all. Each published port asks, so it is one read and no more.
func hostHasIPv6() bool {
	fd, err := unix.Open("/proc/sys/net/ipv6/conf/all/disable_ipv6", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var b [1]byte
	n, err := unix.Read(fd, b[:])
	return err == nil && n == 1 && b[0] == '0'
}
