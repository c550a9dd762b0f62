package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/dns"
	"github.com/shoalhq/shoal/network/resolv"
)

// nameIndex knows who answers to which name on which network. It is changed with the endpoints and read by the name
// servers.
type nameIndex struct {
	mu     sync.RWMutex
	byName map[nameKey][]*endpoint
	byAddr map[addrKey]*endpoint
}

type nameKey struct{ network, name string }

type addrKey struct {
	network string
	addr    netip.Addr
}

func newNameIndex() *nameIndex {
	return &nameIndex{byName: map[nameKey][]*endpoint{}, byAddr: map[addrKey]*endpoint{}}
}

func (x *nameIndex) add(e *endpoint) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, n := range e.DNSNames {
		k := nameKey{e.NetworkID, strings.ToLower(n)}
		if !slices.Contains(x.byName[k], e) {
			x.byName[k] = append(slices.Clone(x.byName[k]), e) // readers may hold the old slice
		}
	}
	for _, a := range []netip.Prefix{e.IPv4, e.IPv6} {
		if a.IsValid() {
			x.byAddr[addrKey{e.NetworkID, a.Addr()}] = e
		}
	}
}

func (x *nameIndex) remove(e *endpoint) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, n := range e.DNSNames {
		k := nameKey{e.NetworkID, strings.ToLower(n)}
		rest := slices.DeleteFunc(slices.Clone(x.byName[k]), func(o *endpoint) bool { return o == e })
		if len(rest) == 0 {
			delete(x.byName, k)
		} else {
			x.byName[k] = rest
		}
	}
	for _, a := range []netip.Prefix{e.IPv4, e.IPv6} {
		if k := (addrKey{e.NetworkID, a.Addr()}); a.IsValid() && x.byAddr[k] == e {
			delete(x.byAddr, k)
		}
	}
}

func (x *nameIndex) get(network, name string) []*endpoint {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.byName[nameKey{network, name}]
}

// resolver is the name server of one container.
type resolver struct {
	index     *nameIndex
	server    *dns.Server
	inside    Inside
	ns        *os.File
	endpoints atomic.Pointer[[]*endpoint]
	own       []netip.Addr // the user's DNS servers; empty: the host's
	host      *hostConf
	since     time.Time
}

func (r *resolver) close() { r.server.Close() }

// Lookup finds a name on the first of the container's networks that knows it; "name.network" asks one network.
func (r *resolver) Lookup(name string) (v4, v6 []netip.Addr, known bool) {
	base, network, _ := cutLast(name)
	for _, e := range *r.endpoints.Load() {
		hits := r.index.get(e.NetworkID, linked(e, name))
		if hits == nil && network != "" && strings.EqualFold(network, e.Network) {
			hits = r.index.get(e.NetworkID, base)
		}
		for _, h := range hits {
			known = true
			if h.IPv4.IsValid() {
				v4 = append(v4, h.IPv4.Addr())
			}
			if h.IPv6.IsValid() {
				v6 = append(v6, h.IPv6.Addr())
			}
		}
		if known {
			return v4, v6, true
		}
	}
	return nil, nil, false
}

// linked gives the name of the container for which the endpoint's links have an alias.
func linked(e *endpoint, name string) string {
	for _, l := range e.Spec.Links {
		if target, alias, ok := strings.Cut(l, ":"); ok && strings.EqualFold(alias, name) {
			return strings.ToLower(target)
		}
	}
	return name
}

// cutLast parts a name at its last dot.
func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// Reverse names an address on the container's networks.
func (r *resolver) Reverse(a netip.Addr) (string, bool) {
	for _, e := range *r.endpoints.Load() {
		r.index.mu.RLock()
		hit := r.index.byAddr[addrKey{e.NetworkID, a}]
		r.index.mu.RUnlock()
		if hit != nil && len(hit.DNSNames) > 0 {
			return hit.DNSNames[0] + "." + hit.Network, true
		}
		for _, own := range []netip.Prefix{e.IPv4, e.IPv6} {
			if own.IsValid() && own.Contains(a) {
				return "", true
			}
		}
	}
	return "", false
}

// Upstreams are the container's own DNS servers, or the host's. A server that only the host reaches is asked from the
// host, past everything that holds the container's own traffic: not for one whose networks are all internal, which could
// carry data out in names (compare CVE-2024-29018).
func (r *resolver) Upstreams() []dns.Upstream {
	servers := r.own
	if len(servers) == 0 {
		servers = r.host.get().Nameservers
	}
	out := make([]dns.Upstream, 0, len(servers))
	outside := r.reachesOutside()
	for _, a := range servers {
		u := dns.Upstream{Addr: netip.AddrPortFrom(a, 53), Host: a.IsLoopback() && len(r.own) == 0}
		if !u.Host && a == resolv.Embedded {
			continue // that is this server itself, as the container sees it: every query would come back
		}
		if outside || !u.Host {
			out = append(out, u)
		}
	}
	return out
}

// reachesOutside says whether one of the container's networks leads out.
func (r *resolver) reachesOutside() bool {
	return slices.ContainsFunc(*r.endpoints.Load(), func(e *endpoint) bool { return !e.net.Internal })
}

// Dial reaches an upstream as the container would itself, so that what holds for its traffic holds for its queries.
func (r *resolver) Dial(ctx context.Context, network string, u dns.Upstream) (net.Conn, error) {
	if u.Host {
		var d net.Dialer
		return d.DialContext(ctx, network, u.Addr.String())
	}
	return r.inside.Dial(ctx, r.ns, network, u.Addr.String())
}

// hostConf is the host's resolv.conf, read again when it changed.
type hostConf struct {
	path string

	mu   sync.Mutex
	mod  time.Time
	size int64
	conf resolv.Conf
}

func (h *hostConf) get() resolv.Conf {
	st, err := os.Stat(h.path)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil || st.ModTime().Equal(h.mod) && st.Size() == h.size {
		return h.conf
	}
	if b, err := os.ReadFile(h.path); err == nil {
		h.conf, h.mod, h.size = resolv.Parse(b), st.ModTime(), st.Size()
	}
	return h.conf
}

// needsNames says whether a container asks the engine's name server: on every network that users made, and wherever the
// host's own servers can be reached by the host only.
func (m *Manager) needsNames(eps []*endpoint, names model.NameSpec) bool {
	user, any := false, false
	for _, e := range eps {
		any = any || e.net.kernel()
		user = user || e.net.kernel() && !e.net.Predefined()
	}
	return user || any && len(names.DNS) == 0 && m.host.get().OnlyLoopback() && len(m.host.get().Nameservers) > 0
}

// serveNames makes a container's names known to the others, and serves it. After a Connect it learns the new network.
func (m *Manager) serveNames(c *attached) error {
	m.mu.Lock()
	eps := slices.Clone(c.endpoints)
	r := c.dns
	m.mu.Unlock()
	for _, e := range eps {
		if e.net.kernel() && !e.net.Predefined() {
			m.index.add(e)
		}
	}
	if r != nil {
		r.endpoints.Store(&eps)
		return nil
	}
	if c.ns == nil || !m.needsNames(eps, c.req.Names) {
		return nil
	}
	r = &resolver{index: m.index, inside: m.k, ns: c.ns, host: m.host, since: m.cfg.Clock.Now()}
	for _, t := range c.req.Names.DNS {
		a, err := netip.ParseAddr(t)
		if err != nil {
			return errs.New(errs.Invalid, "DNS server %q is not an IP address", t)
		}
		r.own = append(r.own, a)
	}
	r.endpoints.Store(&eps)
	udp, tcp, err := m.k.ListenNames(c.ns, isNameServer(c.req))
	if err != nil {
		return errs.Wrap(err, "serve names to %s", c.label)
	}
	r.server = dns.Serve(udp, tcp, r, m.log, func(err error) { m.bg.Go(func() { m.serveAgain(c, r, err) }) })
	m.mu.Lock()
	c.dns = r
	m.mu.Unlock()
	return nil
}

// serveAgain opens a container's name server again, whose sockets somebody destroyed: not more than once a second, for it
// may be the container who does it.
func (m *Manager) serveAgain(c *attached, r *resolver, why error) {
	m.mu.Lock()
	mine := c.dns == r
	if mine {
		c.dns = nil
	}
	m.mu.Unlock()
	if !mine {
		return // it is being closed
	}
	r.close()
	var again func()
	again = func() {
		if !m.runs(c) {
			return
		}
		if err := m.serveNames(c); err != nil {
			m.log.Warn("a container has no name server; trying again later", "container", c.label, "error", err)
			m.cfg.Clock.AfterFunc(auditDelay, again)
		} else if !m.runs(c) {
			m.stopNames(c)
		}
	}
	if wait := time.Second - m.cfg.Clock.Now().Sub(r.since); wait > 0 {
		m.cfg.Clock.AfterFunc(wait, again)
	} else {
		again()
	}
	m.report(Finding{What: "name server of " + c.label, How: fmt.Sprintf("its socket was destroyed by another program (%v)", why)})
}

// runs says that a container is attached.
func (m *Manager) runs(c *attached) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conts[c.id] == c && c.endpoints != nil
}

// isNameServer says that port 53 must stay free inside the container.
func isNameServer(r AttachRequest) bool {
	return slices.ContainsFunc(r.Exposed, func(p model.Port) bool { return p.Number == 53 }) ||
		slices.ContainsFunc(r.Ports, func(p model.PortBinding) bool { return p.Number == 53 })
}

// stopNames forgets a container's names before anything else of it goes.
func (m *Manager) stopNames(c *attached) {
	m.mu.Lock()
	r := c.dns
	c.dns = nil
	eps := slices.Clone(c.endpoints)
	m.mu.Unlock()
	for _, e := range eps {
		m.index.remove(e)
	}
	if r != nil {
		r.close()
	}
}

// NameFiles is what the files of name resolution are made of.
type NameFiles struct {
	Hostname   string
	Domainname string
	Host       bool // the container shares the host's network: the host's own files are the base
	Names      model.NameSpec
	Endpoints  map[string]model.Endpoint
	Links      map[string][]string // address → names, of legacy links
}

// Files makes the content of a container's /etc/hosts and /etc/resolv.conf.
func (m *Manager) Files(f NameFiles) (hosts, resolvConf []byte, err error) {
	set := resolv.Settings{Servers: f.Names.DNS, Options: f.Names.DNSOptions, Search: f.Names.DNSSearch}
	if f.Host {
		return m.hostFiles(f, set)
	}
	var eps []*endpoint
	var gateways []netip.Addr
	m.mu.Lock()
	for _, e := range f.Endpoints {
		if s := m.nets[e.NetworkID]; s != nil {
			eps = append(eps, &endpoint{Endpoint: e, net: s})
		}
	}
	m.mu.Unlock()
	slices.SortFunc(eps, func(a, b *endpoint) int { return strings.Compare(a.Interface, b.Interface) })
	for _, v6 := range []bool{false, true} {
		if e := gatewayFor(eps, v6); e != nil {
			gateways = append(gateways, gatewaysOf([]*endpoint{e}, e)...)
		}
	}
	gateways = slices.Compact(slices.SortedFunc(slices.Values(gateways), netip.Addr.Compare))
	if told := m.cfg.Defaults.HostGateways; len(told) > 0 {
		gateways = told
	}
	extra, err := resolv.ExtraHosts(f.Names.ExtraHosts, gateways)
	if err != nil {
		return nil, nil, err
	}
	conf, err := resolv.Merge(m.containerConf(), set)
	if err != nil {
		return nil, nil, err
	}
	// The loopback has ::1 in every container, so localhost is both, as people know it from Docker.
	return resolv.Hosts(true, extra, ownEntries(f, eps)), conf.Text(m.needsNames(eps, f.Names)), nil
}

func ownEntries(f NameFiles, eps []*endpoint) (own []resolv.Entry) {
	for text, names := range f.Links {
		if a, err := netip.ParseAddr(text); err == nil {
			own = append(own, resolv.Entry{Addr: a, Names: names})
		}
	}
	slices.SortFunc(own, func(a, b resolv.Entry) int { return a.Addr.Compare(b.Addr) })
	names := []string{f.Hostname}
	if f.Domainname != "" {
		names = []string{f.Hostname + "." + f.Domainname, f.Hostname}
	}
	for _, e := range eps {
		for _, a := range []netip.Prefix{e.IPv4, e.IPv6} {
			if a.IsValid() && f.Hostname != "" {
				own = append(own, resolv.Entry{Addr: a.Addr(), Names: names})
			}
		}
	}
	return own
}

// containerConf is the host's resolv.conf as far as it is of use in a container: systemd-resolved has the real servers
// in a file of its own.
func (m *Manager) containerConf() resolv.Conf {
	c := m.host.get()
	if c.OnlyLoopback() {
		if b, err := os.ReadFile("/run/systemd/resolve/resolv.conf"); err == nil {
			return resolv.Parse(b)
		}
	}
	return c
}

// hostFiles are those of a container in the host's network: the host's, with the user's additions.
func (m *Manager) hostFiles(f NameFiles, set resolv.Settings) (hosts, resolvConf []byte, err error) {
	extra, err := resolv.ExtraHosts(f.Names.ExtraHosts, []netip.Addr{netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		return nil, nil, err
	}
	if hosts, err = os.ReadFile("/etc/hosts"); err != nil {
		hosts = resolv.Hosts(true, nil, nil)
	}
	for _, e := range extra {
		if len(hosts) > 0 && hosts[len(hosts)-1] != '\n' {
			hosts = append(hosts, '\n')
		}
		hosts = append(hosts, e.Addr.String()+"\t"+strings.Join(e.Names, " ")+"\n"...)
	}
	if len(set.Servers)+len(set.Options)+len(set.Search) == 0 {
		resolvConf, _ = os.ReadFile(m.host.path)
		return hosts, resolvConf, nil
	}
	host := m.host.get()
	conf, err := resolv.Merge(host, set)
	if err == nil && len(set.Servers) == 0 {
		conf.Nameservers = host.Nameservers // the host's loopback is this container's too
	}
	return hosts, conf.Text(false), err
}
