package network

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/lib/undo"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/foreign"
	"github.com/shoalhq/shoal/network/plan"
)

// partLimit is how long a driver of others may take to forget an endpoint. A container's end waits for it.
const partLimit = 20 * time.Second

// part is what must be remembered of an endpoint that other programs know of. It is on disk before they are told of the
// endpoint and goes after they have forgotten it, so nothing that was taken from them is lost when the daemon dies.
type part struct {
	Version int `json:"version"`
	foreign.Endpoint
	Leases []lease      `json:"leases,omitempty"`
	Routes []plan.Route `json:"routes,omitempty"`
}

// lease is an address that an IPAM plug-in gave.
type lease struct {
	Pool string       `json:"pool"`
	Addr netip.Prefix `json:"addr"`
}

// builtinDriver says that a network's links are made by this room.
func builtinDriver(name string) bool {
	return slices.Contains([]string{model.DriverBridge, model.DriverHost, model.DriverNull, model.DriverMacvlan, model.DriverIPvlan, model.DriverOverlay}, name)
}

// foreignDriver gives the driver of a network that other programs make; nil for ours.
func (m *Manager) foreignDriver(n *model.Network) foreign.Driver {
	switch {
	case builtinDriver(n.Driver):
		return nil
	case n.Driver == foreign.DriverCNI:
		return &foreign.CNI{Bin: m.cfg.CNIBin, Conf: m.cfg.CNIConf, Each: m.cfg.Timeout}
	}
	return foreign.NewRemote(m.cfg.Plugins, n.Driver)
}

// foreign says that the network's links are made by another program.
func (s *state) foreign() bool { return !builtinDriver(s.Driver) }

// ownIPAM says that the addresses come from here.
func ownIPAM(n *model.NetworkSpec) bool { return n.IPAM.Driver == "default" || n.IPAM.Driver == "null" }

// checkForeign refuses drivers that nobody offers, while nothing is made yet.
func (m *Manager) checkForeign(ctx context.Context, spec *model.NetworkSpec) error {
	for _, d := range []struct{ what, name, kind string }{{"network", spec.Driver, "NetworkDriver"}, {"IPAM", spec.IPAM.Driver, "IpamDriver"}} {
		ours, has := "default and null", ownIPAM(spec)
		if d.what == "network" {
			ours, has = "bridge, macvlan, ipvlan, host, null and cni", builtinDriver(d.name) || d.name == foreign.DriverCNI
		}
		if has {
			continue
		}
		err := errs.New(errs.NotFound, "plugin %q not found", d.name)
		if m.cfg.Plugins != nil {
			_, err = m.cfg.Plugins.Get(ctx, d.name, d.kind)
		}
		if errs.Is(err, errs.NotFound) {
			return errs.New(errs.NotFound, "network %s: there is no %s driver %q; built in are %s; %w", spec.Name, d.what, d.name, ours, err)
		}
		if err != nil {
			return errs.Wrap(err, "network %s", spec.Name)
		}
	}
	if spec.IPAM.Driver == "null" && spec.Driver == model.DriverBridge {
		return errs.New(errs.Invalid, "network %s: a bridge needs addresses, which the IPAM driver null does not give; leave --ipam-driver out", spec.Name)
	}
	if spec.Driver == foreign.DriverCNI && (!ownIPAM(spec) || slices.ContainsFunc(spec.IPAM.Pools, func(p model.IPPool) bool { return p.Subnet.IsValid() })) {
		return errs.New(errs.Invalid, "network %s: addresses of a CNI network come from the part ipam of its configuration; leave --subnet and --ipam-driver out", spec.Name)
	}
	return nil
}

// requestPools takes the pools of a network from its IPAM plug-in.
func (m *Manager) requestPools(ctx context.Context, n *model.Network, u *undo.Stack) error {
	driver := foreign.NewIPAM(m.cfg.Plugins, n.IPAM.Driver)
	var pools []model.IPPool
	for _, v6 := range []bool{false, true} {
		if v6 && !n.IPv6 || !v6 && !n.IPv4 {
			continue
		}
		wanted := slices.DeleteFunc(slices.Clone(n.IPAM.Pools), func(p model.IPPool) bool { return !p.Subnet.IsValid() || p.Subnet.Addr().Is6() != v6 })
		if len(wanted) == 0 {
			wanted = []model.IPPool{{}}
		}
		for _, w := range wanted {
			p, err := driver.Pool(ctx, w, v6, n.Internal, n.IPAM.Options)
			if err != nil {
				return err
			}
			u.Add(func() { driver.Release(context.WithoutCancel(ctx), p) })
			for _, other := range m.ranges(n.ID) {
				if other.Overlaps(p.Subnet) {
					return errs.New(errs.Forbidden, "the subnet %s that the IPAM driver %s chose overlaps %s of another network: Pool overlaps with other one on this address space; choose another with --subnet", p.Subnet, n.IPAM.Driver, other)
				}
			}
			pools = append(pools, p)
		}
	}
	n.IPAM.Pools = pools
	return nil
}

// removeForeign lets the network's own programs forget it. One that is not there any more does not keep the network: its
// owner has taken it away, and nobody could ever remove the network.
func (m *Manager) removeForeign(ctx context.Context, s *state) error {
	if s.ConfigOnly {
		return nil // nobody was told of it
	}
	var failed error
	if d := m.foreignDriver(&s.Network); d != nil {
		failed = d.RemoveNetwork(ctx, s.Network)
	}
	if failed == nil && !ownIPAM(&s.NetworkSpec) {
		failed = m.tellAgain(ctx, s)
	}
	if failed == nil && !ownIPAM(&s.NetworkSpec) {
		for _, p := range s.IPAM.Pools {
			failed = errors.Join(failed, foreign.NewIPAM(m.cfg.Plugins, s.IPAM.Driver).Release(ctx, p))
		}
	}
	if errs.Is(failed, errs.NotFound) {
		m.log.Warn("a network is removed without its driver, which is not installed any more", "network", s.Name, "error", failed)
		return nil
	}
	return failed
}

// leased are an endpoint's addresses from an IPAM plug-in, and the Ethernet address that it was told.
type leased struct {
	driver *foreign.IPAM
	mac    model.MAC
	leases []lease
}

func (l leased) of(v6 bool) netip.Prefix {
	for _, a := range l.leases {
		if a.Addr.Addr().Is6() == v6 {
			return a.Addr
		}
	}
	return netip.Prefix{}
}

func (l leased) giveBack(ctx context.Context) (failed error) {
	for _, a := range l.leases {
		failed = errors.Join(failed, l.driver.ReleaseAddress(ctx, a.Pool, a.Addr.Addr()))
	}
	return failed
}

// lease takes addresses for those endpoints of a request whose networks have an IPAM plug-in; that are hardly ever any.
func (m *Manager) lease(ctx context.Context, r AttachRequest) (out map[string]leased, err error) {
	defer func() {
		if err != nil {
			m.unlease(ctx, out)
			out = nil
		}
	}()
	for ref, spec := range r.Endpoints {
		m.mu.Lock()
		s, ferr := m.find(ref)
		skip := ferr != nil || ownIPAM(&s.NetworkSpec) || s.ConfigOnly // what cannot be found or joined is told by who reserves
		m.mu.Unlock()
		if skip {
			continue
		}
		if err := m.tellAgain(ctx, s); err != nil {
			return out, errs.Wrap(err, "network %s", s.Name)
		}
		m.mu.Lock()
		n := s.Network
		m.mu.Unlock()
		l := leased{driver: foreign.NewIPAM(m.cfg.Plugins, n.IPAM.Driver), mac: spec.MAC}
		if l.mac.IsZero() {
			l.mac = macOf(ids.New())
		}
		for _, v6 := range []bool{false, true} {
			if v6 && !n.IPv6 || !v6 && !n.IPv4 {
				continue
			}
			want := spec.IPv4
			if v6 {
				want = spec.IPv6
			}
			got, err := leaseOne(ctx, l, n, v6, want)
			if err != nil {
				l.giveBack(context.WithoutCancel(ctx))
				return out, errs.Wrap(err, "network %s", n.Name)
			}
			l.leases = append(l.leases, got)
		}
		if out == nil {
			out = map[string]leased{}
		}
		out[ref] = l
	}
	return out, nil
}

// leaseOne tries one pool after the other.
func leaseOne(ctx context.Context, l leased, n model.Network, v6 bool, want netip.Addr) (lease, error) {
	failed := errs.New(errs.Invalid, "the address %s is in no subnet of the network", want)
	for _, p := range n.IPAM.Pools {
		if p.Subnet.Addr().Is6() != v6 || want.IsValid() && !p.Subnet.Contains(want) {
			continue
		}
		a, err := l.driver.EndpointAddress(ctx, p.Handle, want, l.mac)
		if err == nil {
			return lease{p.Handle, a}, nil
		}
		failed = err
	}
	return lease{}, failed
}

func (m *Manager) unlease(ctx context.Context, all map[string]leased) {
	for _, l := range all {
		if err := l.giveBack(context.WithoutCancel(ctx)); err != nil {
			m.log.Warn("an address could not be given back to its IPAM plug-in", "error", err)
		}
	}
}

// macOf makes an Ethernet address from hexadecimal digits.
func macOf(id string) model.MAC {
	out := model.MAC{0x02, 0x42}
	b, _ := hex.DecodeString(id[:8])
	copy(out[2:], b)
	return out
}

// path is the namespace as other programs can open it.
func (c *attached) path() string {
	if c == nil || c.ns == nil {
		return ""
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), c.ns.Fd())
}

func (m *Manager) partPath(id string) string { return filepath.Join(m.cfg.Root, "foreign", id+".json") }

// plugForeign does what is left to do when the driver has made an endpoint.
func (m *Manager) plugForeign(e *endpoint, p plan.Plug, ns *os.File) error {
	if link := foreign.MovedLink(e.part.Endpoint); link != "" {
		return m.k.Adopt(link, p, ns)
	}
	if len(p.Gateways) == 0 || e.net.Driver != foreign.DriverCNI {
		return nil
	}
	return m.k.SetGateways(ns, e.Interface, p.Gateways) // another network's may have come first
}

func (m *Manager) endpointsOf(c *attached) []*endpoint {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(c.endpoints)
}

// tellForeign makes those endpoints whose links or addresses come from other programs, all or none.
func (m *Manager) tellForeign(ctx context.Context, c *attached, eps []*endpoint) error {
	var u undo.Stack
	defer u.Run()
	for _, e := range eps {
		if !e.net.foreign() && e.part == nil {
			continue
		}
		if c.ns == nil {
			return errs.New(errs.Internal, "%s: no network namespace to attach to network %s", c.label, e.Network)
		}
		if e.part == nil {
			e.part = &part{}
		}
		e.part.Version = recordVersion
		e.part.Endpoint = foreign.Endpoint{Endpoint: e.Endpoint, Net: e.net.Network, Ports: c.ports, Exposed: c.req.Exposed}
		u.Add(func() { m.forgetForeign(c, e) })
		if err := m.keepPart(e.part); err != nil {
			return err
		}
		if err := failpoint.Hit("network/foreign/recorded"); err != nil {
			return err
		}
		d := m.foreignDriver(&e.net.Network)
		if d == nil {
			continue
		}
		if err := m.join(ctx, d, c, e, eps); err != nil {
			return errs.Wrap(err, "attach to network %s", e.Network)
		}
		if err := failpoint.Hit("network/foreign/joined"); err != nil {
			return err
		}
	}
	u.Release()
	return nil
}

func (m *Manager) keepPart(p *part) error {
	if err := os.MkdirAll(filepath.Dir(m.partPath(p.ID)), 0o700); err != nil {
		return err
	}
	return errs.Wrap(atomicfile.WriteJSON(m.partPath(p.ID), p, 0o600, atomicfile.Durable), "record the endpoint on network %s", p.Network)
}

// join lets the driver make the endpoint and takes over what it chose.
func (m *Manager) join(ctx context.Context, d foreign.Driver, c *attached, e *endpoint, eps []*endpoint) error {
	ask := e.part.Endpoint
	ask.Namespace = c.path()
	made, err := d.Connect(ctx, ask)
	if err != nil {
		return err
	}
	if made.V4.IsValid() {
		e.IPv4 = made.V4
	}
	if made.V6.IsValid() {
		e.IPv6 = made.V6
	}
	if !made.MAC.IsZero() {
		e.MAC = made.MAC
	}
	e.Gateway4, e.Gateway6 = made.GW4, made.GW6
	if made.Link != "" && made.Prefix != "" && e.Spec.DriverOpts[model.OptEndpointIfname] == "" {
		if len(made.Prefix) > 10 || strings.ContainsAny(made.Prefix, "/ \t\n:%") {
			return errs.New(errs.Unavailable, "the driver %s wants the interface prefix %q; a name may have at most 10 letters before its number", e.net.Driver, made.Prefix)
		}
		used := map[string]bool{}
		for _, o := range append(slices.Clone(c.endpoints), eps...) {
			used[o.Interface] = used[o.Interface] || o != e
		}
		for i := 0; ; i++ {
			if e.Interface = made.Prefix + itoa(i); !used[e.Interface] {
				break
			}
		}
	}
	e.part.Endpoint.Endpoint, e.part.Memo, e.part.Routes = e.Endpoint, made.Memo, made.Routes
	return m.keepPart(e.part)
}

// forgetForeign lets other programs forget an endpoint. What they refuse to forget is tried again when the daemon starts.
func (m *Manager) forgetForeign(c *attached, e *endpoint) {
	if e.part == nil {
		return
	}
	if err := m.forgetPart(c, e.part); err != nil {
		m.log.Warn("a network driver still has an endpoint of a container that is gone; it is told again at the daemon's next start", "network", e.Network, "container", e.ContainerID, "error", err)
	}
	e.part = nil
}

func (m *Manager) forgetPart(c *attached, p *part) (failed error) {
	ctx, cancel := context.WithTimeout(context.Background(), partLimit)
	defer cancel()
	ask := p.Endpoint
	ask.Namespace = c.path()
	if d := m.foreignDriver(&p.Net); d != nil {
		if link := foreign.MovedLink(ask); link != "" && ask.Namespace != "" {
			// The link is the driver's: it gets it back where it made it. One that is gone is none of our trouble.
			if err := m.k.Expel(c.ns, p.Interface, link); err != nil {
				m.log.Debug("a link could not be given back to its driver", "link", link, "error", err)
			}
		}
		failed = d.Disconnect(ctx, ask)
	}
	if len(p.Leases) > 0 {
		l := leased{driver: foreign.NewIPAM(m.cfg.Plugins, p.Net.IPAM.Driver), leases: p.Leases}
		failed = errors.Join(failed, l.giveBack(ctx))
	}
	if failed != nil && (errs.Is(failed, errs.Unavailable) || errs.Is(failed, errs.NotFound)) {
		return failed // nobody heard it
	}
	if err := os.Remove(m.partPath(p.ID)); err != nil && !errors.Is(err, os.ErrNotExist) {
		failed = errors.Join(failed, err)
	}
	return failed
}

// restoreForeign takes over what other programs know of the live containers, and lets them forget the others'. Nobody
// waits for that: a plug-in may be a container that is yet to start.
func (m *Manager) restoreForeign() {
	defer m.replayAll()
	entries, err := os.ReadDir(filepath.Join(m.cfg.Root, "foreign"))
	if err != nil {
		return // no network ever had such a driver
	}
	m.mu.Lock()
	live := map[string]*endpoint{}
	owner := map[*endpoint]*attached{}
	for _, c := range m.conts {
		for _, e := range c.endpoints {
			live[e.ID], owner[e] = e, c
		}
	}
	m.mu.Unlock()
	var lost []*part
	for _, f := range entries {
		path := filepath.Join(m.cfg.Root, "foreign", f.Name())
		p := &part{}
		if err := atomicfile.ReadJSON(path, p); err != nil || p.Version != recordVersion || p.ID+".json" != f.Name() {
			if !atomicfile.IsTemp(f.Name()) {
				m.log.Warn("the record of a network driver's endpoint is damaged and set aside", "file", path+".damaged", "error", err)
				os.Rename(path, path+".damaged")
			} else {
				os.Remove(path)
			}
			continue
		}
		e := live[p.ID]
		if e == nil {
			lost = append(lost, p)
			continue
		}
		m.mu.Lock()
		e.part = p
		m.mu.Unlock()
		m.bg.Go(func() { m.checkForeignEndpoint(owner[e], e) })
	}
	if len(lost) > 0 {
		m.bg.Go(func() {
			for _, p := range lost {
				if err := m.forgetPart(nil, p); err != nil {
					m.log.Warn("a network driver still has an endpoint of a container that is gone", "network", p.Network, "container", p.ContainerID, "error", err)
				}
			}
		})
	}
}

// checkForeignEndpoint asks the driver whether a running container's endpoint is as it was made.
func (m *Manager) checkForeignEndpoint(c *attached, e *endpoint) {
	d := m.foreignDriver(&e.net.Network)
	if d == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), partLimit)
	defer cancel()
	ask := e.part.Endpoint
	ask.Namespace = c.path()
	if err := d.Check(ctx, ask); err != nil {
		m.report(Finding{Code: BadRemote, What: fmt.Sprintf("endpoint of %s on network %s", c.label, e.Network),
			How: fmt.Sprintf("its driver says: %v; disconnect the container from the network and connect it again", err)})
	}
}
