package network

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/kernel"
	"github.com/shoalhq/shoal/network/plan"
)

// Live is a container that runs with a connection, as the engine recorded it.
type Live struct {
	Attach AttachRequest // Namespace is nil
	Path   string        // of the network namespace: "/proc/PID/ns/net"
	State  model.NetworkState
}

// Restore is called once, before anything else: the live containers are taken over with the addresses and ports they
// have, and everything else that the kernel has of ours goes. What cannot be taken over is logged and left running.
func (m *Manager) Restore(ctx context.Context, live []Live) error {
	for _, l := range live {
		if err := m.takeOver(l); err != nil {
			m.log.Warn("a running container's network is taken over only in part", "container", l.Attach.Name, "error", err)
		}
	}
	m.loadGuard()
	m.restoreForeign()
	if err := m.Audit(ctx); err != nil {
		return err
	}
	m.startWatch()
	return nil
}

func (m *Manager) takeOver(l Live) error {
	r := l.Attach
	c := &attached{id: r.ContainerID, label: containerLabel(r.Name, r.ContainerID), ports: r.Ports, req: r}
	var failed error
	if ns, err := os.Open(l.Path); err == nil {
		c.ns = ns
	} else {
		failed = err
	}
	m.mu.Lock()
	m.conts[c.id] = c
	for _, e := range l.State.Endpoints {
		s := m.nets[e.NetworkID]
		if s == nil {
			failed = errors.Join(failed, errs.New(errs.NotFound, "network %s (%s) is not there any more", e.Network, e.NetworkID))
			continue
		}
		ep := &endpoint{Endpoint: e, net: s}
		if s.Link != "" && len(e.ID) >= 15 {
			ep.host = plan.HostLink(m.instance, e.ID)
		}
		for _, p := range s.pools {
			for _, a := range []netip.Prefix{e.IPv4, e.IPv6} {
				if a.IsValid() && p.Subnet.Contains(a.Addr()) {
					failed = errors.Join(failed, p.TakeAddr(a.Addr(), c.label))
				}
			}
		}
		s.users[c.id] = true
		c.endpoints = append(c.endpoints, ep)
	}
	slices.SortFunc(c.endpoints, func(a, b *endpoint) int { return strings.Compare(a.Interface, b.Interface) })
	eps := c.endpoints
	m.mu.Unlock()
	failed = errors.Join(failed, m.takeOverPorts(c, l.State.Ports, eps))
	return errors.Join(failed, m.serveNames(c))
}

// takeOverPorts holds the ports again. One that another program took meanwhile still works: the packet filter comes
// before the sockets. It is logged.
func (m *Manager) takeOverPorts(c *attached, had []model.PortBinding, eps []*endpoint) error {
	var failed error
	for _, b := range had {
		if !b.HostIP.IsValid() {
			b.HostIP = any4
		}
		bs, _, err := m.bind(c, []model.PortBinding{b}, eps)
		if err != nil {
			failed = errors.Join(failed, err)
			bs = m.unheld(b, eps)
		}
		bs = slices.DeleteFunc(bs, func(b bound) bool { return len(b.direct) > 0 }) // below
		_, elems, _ := m.forwards(bs)
		m.mu.Lock()
		c.bound = append(c.bound, bs...)
		m.want.Add(elems...)
		m.mu.Unlock()
	}
	for _, b := range c.ports {
		if direct, err := m.openingsBeside(m.opened(c), b, eps); err == nil && len(direct) > 0 {
			one := []bound{{PortBinding: b, direct: direct}}
			_, elems, _ := m.forwards(one)
			m.mu.Lock()
			c.bound = append(c.bound, one...)
			m.want.Add(elems...)
			m.mu.Unlock()
		}
	}
	return failed
}

// unheld is a published port without a socket.
func (m *Manager) unheld(b model.PortBinding, eps []*endpoint) []bound {
	one := bound{PortBinding: b}
	if e := gatewayFor(eps, b.HostIP.Is6()); e != nil && e.host != "" && !m.cfg.NoRules {
		target := e.IPv4.Addr()
		if b.HostIP.Is6() {
			target = e.IPv6.Addr()
		}
		one.forward = []plan.Forward{{Proto: b.Proto, HostIP: b.HostIP, HostPort: b.HostPort, Target: target, ContainerPort: b.Number, Sources: b.Sources}}
	}
	return []bound{one}
}

// Audit compares the kernel with what should be and repairs it: bridges, links of containers that are gone, the packet
// filter. It is the same work at start, after trouble and when asked; each repair is reported.
func (m *Manager) Audit(context.Context) error {
	_, err := m.auditLinks()
	if m.cfg.NoRules {
		return err
	}
	_, rules := m.auditRules()
	return errors.Join(err, rules)
}

// auditLinks is the part of bridges and links. It names what it repaired.
func (m *Manager) auditLinks() (repaired []string, failed error) {
	m.linkMu.Lock()
	defer m.linkMu.Unlock()
	m.mu.Lock()
	var nets []*state
	bridges, plugs := map[string]bool{}, map[string]plugged{}
	for _, s := range m.nets {
		if s.kernel() && !s.gone {
			if !s.fresh {
				nets = append(nets, s)
			}
			bridges[s.Link], bridges[s.direct().Parent] = true, true
		}
	}
	for _, c := range m.conts {
		for _, e := range c.endpoints {
			key := e.host
			if e.net.direct().Kind != "" {
				key = e.ID // its link is in the container only
			}
			plugs[key] = plugged{e, c.ns, gatewaysOf(c.endpoints, e)}
		}
	}
	m.mu.Unlock()
	for _, s := range nets {
		changed, err := m.ensure(s, false)
		if err != nil && s.Name == model.NetworkBridge {
			return repaired, errs.Wrap(err, "default network bridge")
		}
		failed = errors.Join(failed, errs.Wrap(err, "network %s", s.Name))
		if m.dropped(s) { // while we were at it: what was made again just now is nobody's
			failed = errors.Join(failed, m.removeOurs(s))
			continue
		}
		repaired = append(repaired, changed...)
	}
	haveBridges, havePlugs, err := m.k.Links(plan.LinkPrefix(m.instance))
	failed = errors.Join(failed, err)
	back, err := m.auditPlugs(havePlugs, plugs)
	repaired, failed = append(repaired, back...), errors.Join(failed, err)
	for _, name := range haveBridges {
		if !bridges[name] {
			failed = errors.Join(failed, m.k.RemoveLink(name))
		}
	}
	return repaired, failed
}

// plugged is a link as it should be.
type plugged struct {
	e        *endpoint
	ns       *os.File
	gateways []netip.Addr
}

// auditPlugs removes links of containers that are gone, and puts those that were lost back.
func (m *Manager) auditPlugs(have map[string]plan.Port, want map[string]plugged) (repaired []string, failed error) {
	for name, is := range have {
		p, known := want[name]
		if !known {
			if m.nobodys(name) {
				failed = errors.Join(failed, m.k.RemoveLink(name))
			}
			continue
		}
		if !p.e.port().Same(is) {
			repaired = append(repaired, "link "+name)
			failed = errors.Join(failed, m.k.Replug(plugPlan(p.e, p.gateways)))
		}
	}
	for name, p := range want {
		if p.e.net.direct().Kind != "" && p.ns != nil {
			if there, err := m.k.HasInside(p.ns, p.e.Interface); err == nil && !there && m.present(p.e) {
				repaired = append(repaired, "interface "+p.e.Interface+" of "+containerLabel("", p.e.ContainerID))
				failed = errors.Join(failed, m.plug(p.e, p.ns, p.gateways))
			}
			continue
		}
		if _, there := have[name]; !there && name != "" && p.ns != nil && m.present(p.e) {
			err := m.plug(p.e, p.ns, p.gateways)
			if !m.present(p.e) { // detached while we were at it
				err = m.k.RemoveLink(name)
			} else {
				repaired = append(repaired, "link "+name)
			}
			failed = errors.Join(failed, err)
		}
	}
	return repaired, failed
}

// dropped says that a network was removed meanwhile.
func (m *Manager) dropped(s *state) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return s.gone || m.nets[s.ID] != s
}

// nobodys says that a link belongs to no container. While some are being attached, links that are not known yet may be
// theirs; what stays then goes with the next audit.
func (m *Manager) nobodys(link string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.attaching > 0 {
		return false
	}
	for _, c := range m.conts {
		if slices.ContainsFunc(c.endpoints, func(e *endpoint) bool { return e.host == link }) {
			return false
		}
	}
	return true
}

// present says that an endpoint was not taken away meanwhile.
func (m *Manager) present(e *endpoint) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.conts[e.ContainerID]
	return c != nil && slices.Contains(c.endpoints, e)
}

func (m *Manager) auditRules() (repaired bool, err error) {
	have, whole, err := m.k.Rules()
	if err != nil {
		return false, err
	}
	m.mu.Lock()
	del, add := plan.Diff(have, m.want)
	m.mu.Unlock()
	if whole && len(del)+len(add) == 0 {
		return false, nil
	}
	return true, m.rebuildRules()
}

// guard closes the way between the host's own links when it was us who switched forwarding on: a machine must not
// become a router for its neighbours because it runs containers. Other programs' virtual links are not touched.
func (m *Manager) guard() {
	u, err := m.k.Uplink(nil)
	if err != nil || m.cfg.NoRules {
		return
	}
	if err := os.WriteFile(m.guardPath(), []byte(strings.Join(u.Physical, "\n")), 0o600); err != nil {
		m.log.Warn("cannot note that packet forwarding was off before", "error", err)
	}
	m.setGuard(u.Physical)
}

func (m *Manager) guardPath() string { return filepath.Join(m.cfg.Exec, "guarded-links") }

// loadGuard restores the guard after a restart of the daemon; the directory is empty after one of the machine.
func (m *Manager) loadGuard() {
	b, err := os.ReadFile(m.guardPath())
	if err == nil && len(b) > 0 {
		m.setGuard(strings.Split(string(b), "\n"))
	}
}

func (m *Manager) setGuard(links []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range links {
		m.want.Add(plan.Elem{Set: plan.SetGuarded, Key: plan.Name(l)})
	}
}

// maxFound is how many different findings are remembered.
const maxFound = 32

func (m *Manager) report(f Finding) {
	if f.Code == "" {
		f.Code = Repaired
	}
	f.Last, f.N = m.cfg.Clock.Now(), 1
	m.mu.Lock()
	if i := slices.IndexFunc(m.found, func(o Finding) bool { return o.Code == f.Code && o.What == f.What && o.How == f.How }); i >= 0 {
		f.N += m.found[i].N
		m.found = slices.Delete(m.found, i, i+1)
	}
	m.found = append(m.found, f)
	m.found = m.found[max(0, len(m.found)-maxFound):]
	m.mu.Unlock()
	m.log.Warn("the kernel's network is not as it was left", "what", f.What, "how", f.How)
	m.cfg.Report(f)
}

// Findings are what was found wrong since the daemon started, the oldest first.
func (m *Manager) Findings() []Finding {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.found)
}

// startWatch listens for changes of our table and links by others. Without it, trouble shows at the next change or audit.
func (m *Manager) startWatch() {
	real, is := m.k.(*kernel.Real)
	if !is {
		return
	}
	changed := func(who string) {
		repaired, err := m.auditLinks()
		if err != nil {
			m.log.Error("the links of containers cannot be repaired", "error", err)
			m.auditLater()
		}
		if len(repaired) > 0 {
			m.report(Finding{What: strings.Join(repaired, ", "), How: "was removed or changed by " + who})
		}
	}
	links, err := real.WatchLinks(m.wanted, changed)
	m.watched(links, err)
	switches, err := real.WatchSysctls(changed)
	m.watched(switches, err)
	routes, err := kernel.WatchRoutes(m.checkRoutes)
	m.watched(routes, err)
	if m.cfg.NoRules {
		return
	}
	rules, err := kernel.Watch(m.cfg.Bridge.Table, func(who string) {
		repaired, err := m.auditRules()
		if err != nil {
			m.log.Error("the packet filter cannot be repaired", "error", err)
		} else if repaired {
			m.report(Finding{What: "packet filter table " + m.cfg.Bridge.Table, How: "was changed by " + who})
		}
	})
	m.watched(rules, err)
}

func (m *Manager) watched(w *kernel.Monitor, err error) {
	if err != nil {
		m.log.Warn("changes of the network by others will be noticed late", "error", err)
		return
	}
	m.mu.Lock()
	m.watch = append(m.watch, w)
	m.mu.Unlock()
}

// wanted says whether a link of the host is one of ours that should be there, and how it should be.
func (m *Manager) wanted(name string) (want plan.Port, is bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.nets {
		switch {
		case s.gone || s.fresh || name == "":
		case s.Link == name:
			return plan.Port{MTU: s.opts.mtu}, true
		case s.direct().Parent == name:
			return want, true
		}
	}
	if !strings.HasPrefix(name, plan.LinkPrefix(m.instance)) {
		return want, false
	}
	for _, c := range m.conts {
		for _, e := range c.endpoints {
			if e.host == name {
				return e.port(), true
			}
		}
	}
	return want, false
}

// auditLater audits again in a while, because the kernel refused something just now.
func (m *Manager) auditLater() {
	m.mu.Lock()
	due := m.retry
	m.retry = true
	m.mu.Unlock()
	if due {
		return
	}
	m.cfg.Clock.AfterFunc(auditDelay, func() {
		m.mu.Lock()
		m.retry = false
		m.mu.Unlock()
		if err := m.Audit(context.Background()); err != nil {
			m.log.Warn("the network still cannot be repaired", "error", err)
			m.auditLater()
		}
	})
}

const auditDelay = 5 * time.Second
