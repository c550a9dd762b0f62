package network

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/lib/undo"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/plan"
)

// AttachRequest asks for a container's endpoints.
type AttachRequest struct {
	ContainerID string
	Name        string // of the container
	Hostname    string
	Domainname  string
	Namespace   *os.File                      // the container's network namespace
	Primary     string                        // the network of the first interface; "" is the first by name
	Endpoints   map[string]model.EndpointSpec // by network name
	Ports       []model.PortBinding
	Exposed     []model.Port // what the image says it listens on
	Names       model.NameSpec
	Sysctls     map[string]string // net.* ones that the container asked for; the runtime sets them

	leases map[string]leased // by key of Endpoints: addresses that IPAM plug-ins gave
}

// Attachment is what Attach made.
type Attachment struct {
	Endpoints map[string]model.Endpoint // by network name
	Ports     []model.PortBinding       // with the host ports chosen
	Warnings  []string
}

// Attach gives a container all its endpoints, or none. Its namespace must have its loopback up and nothing else.
func (m *Manager) Attach(ctx context.Context, r AttachRequest) (Attachment, error) {
	defer m.beginAttach()()
	c := &attached{id: r.ContainerID, label: containerLabel(r.Name, r.ContainerID), ports: r.Ports, req: r}
	for _, p := range r.Ports {
		if err := p.Validate(); err != nil {
			return Attachment{}, err
		}
	}
	m.mu.Lock()
	if m.conts[c.id] != nil {
		m.mu.Unlock()
		return Attachment{}, errs.New(errs.Conflict, "%s is attached to its networks already; detach it first", c.label)
	}
	m.conts[c.id] = c
	m.mu.Unlock()
	var u undo.Stack
	defer u.Run()
	u.Add(func() { m.drop(c) })
	if err := c.enter(r.Namespace); err != nil {
		return Attachment{}, err
	}
	u.Add(c.leave)
	eps, err := m.reserve(ctx, c, r)
	if err != nil {
		return Attachment{}, err
	}
	u.Add(func() { m.release(c, eps) })
	if err := m.tellForeign(ctx, c, eps); err != nil {
		return Attachment{}, err
	}
	warnings, err := m.publish(c, eps)
	if err != nil {
		return Attachment{}, err
	}
	u.Add(func() { m.unpublish(c) })
	for _, e := range eps {
		if err := m.plug(e, c.ns, gatewaysOf(eps, e)); err != nil {
			return Attachment{}, err
		}
		u.Add(func() { m.unplug(e) })
	}
	if err := failpoint.Hit("network/attach/plugged"); err != nil {
		return Attachment{}, err
	}
	if err := m.openPorts(c); err != nil {
		return Attachment{}, err
	}
	m.mu.Lock()
	c.endpoints = eps
	m.mu.Unlock()
	if err := m.serveNames(c); err != nil {
		return Attachment{}, err
	}
	u.Add(func() { m.stopNames(c) })
	if err := ctx.Err(); err != nil {
		return Attachment{}, err
	}
	u.Release()
	a := m.attachment(c)
	a.Warnings = warnings
	return a, nil
}

// beginAttach keeps the audit from taking links that are not known yet for lost ones, and what is about to go or to come in
// a container for what is missing there.
func (m *Manager) beginAttach() (end func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.attaching++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.attaching--; m.attaching > 0 {
			return
		}
		for _, f := range m.due {
			m.bg.Go(f)
		}
		m.due = nil
	}
}

// enter keeps the namespace at hand for changes while the container runs, and for serving names in it.
func (c *attached) enter(ns *os.File) error {
	if ns == nil {
		return nil
	}
	fd, err := unix.FcntlInt(ns.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return errs.Wrap(err, "keep the network namespace of %s", c.label)
	}
	c.ns = os.NewFile(uintptr(fd), "netns of "+c.label)
	return nil
}

func (c *attached) leave() {
	if c.ns != nil {
		c.ns.Close()
	}
}

func (m *Manager) drop(c *attached) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conts[c.id] == c {
		delete(m.conts, c.id)
	}
}

func (m *Manager) attachment(c *attached) Attachment {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := Attachment{Endpoints: make(map[string]model.Endpoint, len(c.endpoints))}
	for _, e := range c.endpoints {
		a.Endpoints[e.Network] = e.Endpoint
	}
	for _, b := range c.bound {
		if len(b.direct) == 0 {
			a.Ports = append(a.Ports, b.PortBinding)
		}
	}
	return a
}

// reserve finds the networks and takes addresses. A network whose subnets the engine chose grows when they are full.
func (m *Manager) reserve(ctx context.Context, c *attached, r AttachRequest) (eps []*endpoint, err error) {
	if r.leases, err = m.lease(ctx, r); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.unlease(ctx, r.leases)
		}
	}()
	eps, err = m.reserveNow(c, r)
	if errs.Is(err, errs.Exhausted) {
		grown, gerr := m.growFull(r)
		if gerr != nil {
			return nil, errs.New(errs.Exhausted, "%w; and the network cannot grow: %w", err, gerr)
		}
		if grown {
			eps, err = m.reserveNow(c, r)
		}
	}
	return eps, err
}

// reserveNow is reserve with what there is. Under the lock; nothing is done to the kernel.
func (m *Manager) reserveNow(c *attached, r AttachRequest) ([]*endpoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.Primary == "" || r.Primary == "default" {
		r.Primary = model.NetworkBridge
	}
	names := make([]string, 0, len(r.Endpoints))
	for n := range r.Endpoints {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int {
		if (a == r.Primary) != (b == r.Primary) {
			if a == r.Primary {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	used := map[string]bool{}
	for _, e := range c.endpoints {
		used[e.Interface] = true
	}
	var eps []*endpoint
	for _, name := range names {
		e, err := m.reserveOne(c, r, name, used)
		if err != nil {
			m.releaseLocked(c, eps)
			return nil, err
		}
		eps = append(eps, e)
	}
	return eps, nil
}

func (m *Manager) reserveOne(c *attached, r AttachRequest, ref string, used map[string]bool) (*endpoint, error) {
	s, err := m.find(ref)
	if err == nil && s.gone {
		err = errs.New(errs.NotFound, "network %s is being removed", ref)
	}
	if err == nil && s.ConfigOnly {
		err = errs.New(errs.Forbidden, "network %s holds only configuration, nobody can join it; make a network from it with `network create --config-from %s NAME`", ref, s.Name)
	}
	if err == nil && s.users[c.id] {
		err = errs.New(errs.Forbidden, "%s is on the network %s already", c.label, s.Name)
	}
	if err != nil {
		return nil, err
	}
	spec := r.Endpoints[ref]
	e := &endpoint{net: s, Endpoint: model.Endpoint{ID: ids.New(), NetworkID: s.ID, Network: s.Name, ContainerID: c.id, Spec: spec}}
	if !s.kernel() {
		s.users[c.id] = true
		return e, nil
	}
	if (spec.IPv4.IsValid() || spec.IPv6.IsValid()) && s.Name == model.NetworkBridge {
		return nil, errs.New(errs.Invalid, "invalid endpoint settings: an address can be asked for on networks you made only, not on %s; make one with `network create --subnet`", s.Name)
	}
	if spec.IPv6.IsValid() && !s.IPv6 || spec.IPv4.IsValid() && !s.IPv4 {
		return nil, errs.New(errs.Invalid, "network %s does not have the address family of %s, %s", s.Name, spec.IPv4, spec.IPv6)
	}
	for _, f := range []struct {
		on   bool
		v6   bool
		want netip.Addr
		to   *netip.Prefix
		gw   *netip.Addr
	}{{s.IPv4, false, spec.IPv4, &e.IPv4, &e.Gateway4}, {s.IPv6, true, spec.IPv6, &e.IPv6, &e.Gateway6}} {
		if !f.on {
			continue
		}
		if l, has := r.leases[ref]; has {
			if *f.to = l.of(f.v6); s.pool(f.to.Addr()) != nil && !s.Internal {
				*f.gw = s.pool(f.to.Addr()).Gateway
			}
			continue
		}
		if *f.to, *f.gw, err = s.address(f.v6, f.want, c.label); err != nil {
			s.giveBack(e)
			return nil, errs.Wrap(err, "network %s", s.Name)
		}
		if gw := m.bridgeGateway(f.v6); gw.IsValid() && s.Name == model.NetworkBridge {
			*f.gw = gw
		}
		if s.Internal {
			*f.gw = netip.Addr{}
		}
	}
	if l, has := r.leases[ref]; has {
		e.part = &part{Leases: l.leases}
		e.MAC = l.mac
	} else if e.MAC = spec.MAC; e.MAC.IsZero() && !s.foreign() {
		if e.MAC = macOf(e.ID); e.IPv4.IsValid() || e.IPv6.IsValid() {
			e.MAC = plan.MACFor(firstAddr(e.IPv4, e.IPv6))
		}
	}
	if e.Interface, err = s.interfaceName(spec, used); err != nil {
		s.giveBack(e)
		return nil, err
	}
	if s.Link != "" {
		e.host = plan.HostLink(m.instance, e.ID)
	}
	e.DNSNames = dnsNames(s, c, r, spec)
	s.users[c.id] = true
	return e, nil
}

// bridgeGateway is the gateway that the daemon was told for the default network.
func (m *Manager) bridgeGateway(v6 bool) netip.Addr {
	if v6 {
		return m.cfg.Bridge.IPv6.Gateway
	}
	return m.cfg.Bridge.IPv4.Gateway
}

// address takes an address of a family: the wanted one, or any.
func (s *state) address(v6 bool, want netip.Addr, who string) (netip.Prefix, netip.Addr, error) {
	var failed error
	for _, p := range s.pools {
		if p.Subnet.Addr().Is6() != v6 {
			continue
		}
		a, err := want, error(nil)
		switch {
		case !want.IsValid():
			a, err = p.Take(who)
		case p.Subnet.Contains(want):
			return netip.PrefixFrom(a, p.Subnet.Bits()), p.Gateway, p.TakeAddr(want, who)
		default:
			err = p.TakeAddr(want, who)
		}
		if err == nil {
			return netip.PrefixFrom(a, p.Subnet.Bits()), p.Gateway, nil
		}
		failed = err
	}
	return netip.Prefix{}, netip.Addr{}, failed
}

func (s *state) giveBack(e *endpoint) {
	for _, p := range s.pools {
		for _, a := range []netip.Prefix{e.IPv4, e.IPv6} {
			if a.IsValid() && p.Subnet.Contains(a.Addr()) {
				p.Release(a.Addr())
			}
		}
	}
}

func (s *state) interfaceName(spec model.EndpointSpec, used map[string]bool) (string, error) {
	if name := spec.DriverOpts[model.OptEndpointIfname]; name != "" {
		if len(name) > 15 || strings.ContainsAny(name, "/ \t\n:%") || name == "." || name == ".." || used[name] || name == "lo" {
			return "", errs.New(errs.Invalid, "interface name %q: want at most 15 letters, digits, - _ . and no name twice", name)
		}
		used[name] = true
		return name, nil
	}
	for i := 0; ; i++ {
		if name := s.opts.prefix + itoa(i); !used[name] {
			used[name] = true
			return name, nil
		}
	}
}

// dnsNames are the names an endpoint answers to. The default network has none, as in Docker: there, only links name.
func dnsNames(s *state, c *attached, r AttachRequest, spec model.EndpointSpec) []string {
	if s.Predefined() {
		return nil
	}
	var out []string
	for _, n := range append(append([]string{r.Name}, spec.Aliases...), ids.Short(c.id), r.Hostname) {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

func (m *Manager) release(c *attached, eps []*endpoint) {
	for _, e := range eps {
		m.forgetForeign(c, e)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.releaseLocked(c, eps)
}

func (m *Manager) releaseLocked(c *attached, eps []*endpoint) {
	for _, e := range eps {
		e.net.giveBack(e)
		delete(e.net.users, c.id)
	}
}

// plug makes the kernel's part of an endpoint.
func (m *Manager) plug(e *endpoint, ns *os.File, gateways []netip.Addr) error {
	if !e.net.kernel() {
		return nil
	}
	if ns == nil {
		return errs.New(errs.Internal, "%s: no network namespace to attach to network %s", containerLabel("", e.ContainerID), e.Network)
	}
	p := plugPlan(e, gateways)
	if e.net.foreign() {
		return errs.Wrap(m.plugForeign(e, p, ns), "attach to network %s", e.Network)
	}
	err := m.k.Plug(p, ns)
	if err != nil && !errs.Is(err, errs.Invalid) && e.host != "" {
		// The bridge may have vanished behind our back, or could not be made until now: make it again, once.
		changed, berr := m.k.EnsureBridge(m.bridgeOf(e.net))
		if berr != nil {
			return errs.Wrap(berr, "attach to network %s", e.Network)
		}
		if changed {
			m.report(Finding{What: "bridge " + e.net.Link, How: "was missing or changed"})
		}
		err = m.k.Plug(p, ns)
	}
	return errs.Wrap(err, "attach to network %s", e.Network)
}

// port is what an endpoint's link should be on the host.
func (e *endpoint) port() plan.Port {
	return plan.Port{Bridge: e.net.Link, MTU: e.net.opts.mtu, Isolated: !e.net.opts.icc}
}

// plugPlan is what an endpoint's link should be.
func plugPlan(e *endpoint, gateways []netip.Addr) plan.Plug {
	p := plan.Plug{Port: e.port(), Host: e.host, Inside: e.Interface, MAC: e.MAC, Gateways: gateways, Direct: e.net.direct()}
	if e.part != nil {
		p.Routes = e.part.Routes
	}
	for _, a := range []netip.Prefix{e.IPv4, e.IPv6} {
		if a.IsValid() {
			p.Addresses = append(p.Addresses, a)
		}
	}
	for _, a := range e.Spec.LinkLocal {
		p.Addresses = append(p.Addresses, netip.PrefixFrom(a, map[bool]int{true: 64, false: 16}[a.Is6()]))
	}
	if s := e.Spec.DriverOpts[model.OptEndpointSysctls]; s != "" {
		p.Sysctls = strings.Split(s, ",")
	}
	return p
}

// unplug removes the kernel's part. The kernel takes tens of milliseconds for it, so nobody waits: the address is not
// handed out again soon, and the audit removes what a crash leaves.
func (m *Manager) unplug(e *endpoint) {
	if e.host == "" {
		return
	}
	m.bg.Go(func() {
		if err := m.k.RemoveLink(e.host); err != nil {
			m.log.Warn("link of a detached container stays until the next audit", "link", e.host, "error", err)
			m.auditLater()
		}
	})
}

// gatewayFor chooses the endpoint whose network is the way out for a family: the highest priority, then the first name.
func gatewayFor(eps []*endpoint, v6 bool) *endpoint {
	var best *endpoint
	for _, e := range eps {
		gw := e.Gateway4
		if v6 {
			gw = e.Gateway6
		}
		if !gw.IsValid() {
			continue
		}
		if best == nil || e.Spec.GatewayPriority > best.Spec.GatewayPriority ||
			e.Spec.GatewayPriority == best.Spec.GatewayPriority && e.Network < best.Network {
			best = e
		}
	}
	return best
}

// gatewaysOf gives the default routes that go through e.
func gatewaysOf(eps []*endpoint, e *endpoint) []netip.Addr {
	var out []netip.Addr
	if gatewayFor(eps, false) == e {
		out = append(out, e.Gateway4)
	}
	if gatewayFor(eps, true) == e {
		out = append(out, e.Gateway6)
	}
	return out
}

// Detach takes a container off one network, or off all with an empty name. What is not attached is no error.
func (m *Manager) Detach(ctx context.Context, containerID, network string) error {
	if network != "" {
		return m.disconnect(containerID, network)
	}
	m.mu.Lock()
	c := m.conts[containerID]
	m.mu.Unlock()
	if c == nil {
		return nil
	}
	m.stopNames(c)
	m.unpublish(c)
	for _, e := range m.endpointsOf(c) {
		m.forgetForeign(c, e)
		if e.net.direct().Kind != "" && c.ns != nil {
			// The namespace takes its links with it, but at the kernel's leisure; till then the parent refuses the Ethernet address, which
			// the next container with this address has.
			if err := m.k.RemoveInside(c.ns, e.Interface); err != nil {
				m.log.Warn("link of a detached container stays until its namespace is gone", "container", c.label, "link", e.Interface, "error", err)
			}
		}
	}
	m.mu.Lock()
	eps := c.endpoints
	c.endpoints = nil
	m.releaseLocked(c, eps)
	delete(m.conts, containerID)
	m.mu.Unlock()
	c.leave()
	for _, e := range eps {
		m.unplug(e)
	}
	return nil
}

func itoa(i int) string {
	if i < 10 {
		return string([]byte{byte('0' + i)})
	}
	return itoa(i/10) + itoa(i%10)
}

func firstAddr(ps ...netip.Prefix) netip.Addr {
	for _, p := range ps {
		if p.IsValid() {
			return p.Addr()
		}
	}
	return netip.Addr{}
}
