package network

import (
	"context"
	"slices"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/undo"
	"github.com/shoalhq/shoal/model"
)

// Connect adds networks to a running container. Its default route and its published ports move when the new network is
// the better way out.
func (m *Manager) Connect(ctx context.Context, r AttachRequest) (Attachment, error) {
	defer m.beginAttach()()
	m.mu.Lock()
	c := m.conts[r.ContainerID]
	m.mu.Unlock()
	if c == nil {
		return m.Attach(ctx, r)
	}
	for name := range r.Endpoints {
		if n, err := m.Resolve(ctx, name); err == nil && !n.ConfigOnly && (n.Driver == model.DriverHost || n.Driver == model.DriverNull) {
			return Attachment{}, errs.New(errs.Forbidden, "%s cannot be connected to the network %s while it has a network namespace of its own", c.label, n.Name)
		}
	}
	r.Name, r.Hostname = c.req.Name, c.req.Hostname
	var u undo.Stack
	defer u.Run()
	eps, err := m.reserve(ctx, c, r)
	if err != nil {
		return Attachment{}, err
	}
	u.Add(func() { m.release(c, eps) })
	if err := m.tellForeign(ctx, c, eps); err != nil {
		return Attachment{}, err
	}
	m.mu.Lock()
	before := slices.Clone(c.endpoints)
	m.mu.Unlock()
	all := append(slices.Clone(before), eps...)
	for _, e := range eps {
		if err := m.plug(e, c.ns, gatewaysOf(all, e)); err != nil {
			return Attachment{}, err
		}
		u.Add(func() {
			m.unplug(e)
			if e.host == "" && !e.net.foreign() {
				m.k.RemoveInside(c.ns, e.Interface)
			}
		})
	}
	m.mu.Lock()
	c.endpoints = all
	m.mu.Unlock()
	u.Add(func() {
		m.mu.Lock()
		c.endpoints = before
		m.mu.Unlock()
		if err := m.reroute(c, all, before); err != nil {
			m.log.Warn("the ports of a container that could not be connected are repaired by the next audit", "container", c.label, "error", err)
			m.auditLater()
		}
	})
	if err := m.reroute(c, before, all); err != nil {
		return Attachment{}, err
	}
	u.Add(func() {
		for _, e := range eps {
			m.index.remove(e)
		}
	})
	if err := m.serveNames(c); err != nil {
		return Attachment{}, err
	}
	u.Release()
	return m.attachment(c), nil
}

// disconnect takes a running container off one network.
func (m *Manager) disconnect(containerID, network string) error {
	defer m.beginAttach()()
	m.mu.Lock()
	c := m.conts[containerID]
	s, err := m.find(network)
	if err != nil || c == nil || !s.users[containerID] {
		m.mu.Unlock()
		return err
	}
	before := slices.Clone(c.endpoints)
	i := slices.IndexFunc(before, func(e *endpoint) bool { return e.net == s })
	if i < 0 {
		m.mu.Unlock()
		return errs.New(errs.Conflict, "%s is being attached to the network %s; try again when it runs", c.label, network)
	}
	gone := before[i]
	after := slices.Delete(slices.Clone(before), i, i+1)
	c.endpoints = after
	served := c.dns
	m.mu.Unlock()
	m.index.remove(gone)
	if served != nil {
		served.endpoints.Store(&after)
	}
	switch {
	case gone.host != "":
		err = m.k.RemoveLink(gone.host)
	case gone.net.kernel() && !gone.net.foreign():
		err = m.k.RemoveInside(c.ns, gone.Interface)
	}
	m.release(c, []*endpoint{gone})
	if rerr := m.reroute(c, before, after); err == nil {
		err = rerr
	}
	return errs.Wrap(err, "disconnect %s from the network %s", c.label, network)
}

// reroute moves the default routes and the published ports when the way out is another one now.
func (m *Manager) reroute(c *attached, before, after []*endpoint) error {
	for _, v6 := range []bool{false, true} {
		was, is := gatewayFor(before, v6), gatewayFor(after, v6)
		if was == is {
			continue
		}
		if is != nil && slices.Contains(before, is) { // a new endpoint's route was made with it
			if err := m.k.SetGateways(c.ns, is.Interface, gatewaysOf(after, is)); err != nil {
				return err
			}
		}
		if err := m.republish(c, after); err != nil {
			return err
		}
	}
	return nil
}

// republish leads the published ports to the container's present addresses; the host's ports stay the same.
func (m *Manager) republish(c *attached, eps []*endpoint) error {
	m.mu.Lock()
	asked := slices.Clone(c.ports)
	for i, p := range asked {
		for _, b := range c.bound {
			if len(b.direct) == 0 && b.Port == p.Port && (!p.HostIP.IsValid() || p.HostIP == b.HostIP) && (p.HostPort == 0 || b.HostPort >= p.HostPort && b.HostPort <= max(p.HostPort, p.HostPortEnd)) {
				asked[i].HostPort, asked[i].HostPortEnd = b.HostPort, b.HostPort
				break
			}
		}
	}
	m.mu.Unlock()
	if len(asked) == 0 {
		return nil
	}
	m.unpublish(c)
	bs, warnings, err := m.bind(c, asked, eps)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		m.log.Warn(w, "container", c.label)
	}
	m.mu.Lock()
	c.bound = bs
	m.mu.Unlock()
	return m.openPorts(c)
}
