package network

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/lib/undo"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/foreign"
	"github.com/shoalhq/shoal/network/ipam"
	"github.com/shoalhq/shoal/network/plan"
)

// pool is an address pool in use.
type pool struct {
	*ipam.Pool
	foreignGateway bool // the default route is another host's, not the bridge's
}

// record is a network on disk.
type record struct {
	Version int           `json:"version"`
	Network model.Network `json:"network"`
}

const recordVersion = 1

func (m *Manager) recordPath(id string) string {
	return filepath.Join(m.cfg.Root, "networks", id+".json")
}

// load reads all records.
func (m *Manager) load() error {
	dir := filepath.Join(m.cfg.Root, "networks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if atomicfile.IsTemp(e.Name()) {
			os.Remove(path)
			continue
		}
		id, isRecord := strings.CutSuffix(e.Name(), ".json")
		if !isRecord {
			continue
		}
		var r record
		err := atomicfile.ReadJSON(path, &r)
		if err == nil && (r.Version != recordVersion || r.Network.ID != id) {
			err = errs.New(errs.Damaged, "version %d, ID %q", r.Version, r.Network.ID)
		}
		if err == nil {
			err = m.adopt(r.Network)
		}
		if err != nil {
			m.log.Warn("network record is damaged and set aside", "file", path+".damaged", "error", err)
			os.Rename(path, path+".damaged")
		}
	}
	return nil
}

// adopt puts a network into memory.
func (m *Manager) adopt(n model.Network) error {
	s, err := newState(n)
	if err != nil {
		return err
	}
	if id, ok := m.names[n.Name]; ok {
		return errs.New(errs.Conflict, "network %s is there already with the ID %s", n.Name, id)
	}
	m.nets[n.ID], m.names[n.Name] = s, n.ID
	if s.Link != "" {
		m.want.Add(s.access().Elems()...)
	}
	return nil
}

func newState(n model.Network) (*state, error) {
	s := &state{Network: n, users: map[string]bool{}}
	var err error
	read := commonOptions
	if n.Driver == model.DriverBridge {
		read = bridgeOptions
	}
	if s.opts, err = read(&n.NetworkSpec); err != nil {
		return nil, err
	}
	if n.ConfigOnly {
		return s, nil // no address of it is ever given
	}
	for _, p := range n.IPAM.Pools {
		ip, err := ipam.New(p, true)
		if err != nil {
			return nil, err
		}
		s.pools = append(s.pools, &pool{Pool: ip, foreignGateway: n.Driver != model.DriverBridge})
	}
	return s, nil
}

// builtin makes the records of bridge, host and none when they are missing, and fits the bridge to the daemon's flags.
func (m *Manager) builtin() error {
	for name, driver := range map[string]string{model.NetworkHost: model.DriverHost, model.NetworkNone: model.DriverNull} {
		if _, ok := m.names[name]; !ok {
			n := model.Network{ID: ids.New(), Created: m.cfg.Clock.Now().UTC(), NetworkSpec: model.NetworkSpec{Name: name, Driver: driver,
				Scope: model.ScopeLocal, IPv4: true, IPAM: model.IPAM{Driver: "default"}}}
			if err := m.storeOwn(n, model.Network{}); err != nil {
				return err
			}
		}
	}
	old, had := m.names[model.NetworkBridge]
	if m.cfg.Bridge.Disabled {
		if had {
			m.forget(m.nets[old])
		}
		return nil
	}
	spec, err := m.bridgeSpec()
	if err != nil {
		return err
	}
	n := model.Network{ID: ids.New(), Created: m.cfg.Clock.Now().UTC(), NetworkSpec: spec, Link: m.cfg.Bridge.Name}
	var was model.Network
	if had {
		was = m.nets[old].Network
		n.ID, n.Created, n.Chosen = was.ID, was.Created, was.Chosen
		free, err := m.stillFree(was.IPAM.Pools)
		if err != nil {
			return err
		}
		n.IPAM.Pools = keepPools(spec.IPAM.Pools, free, spec.IPv6)
		m.forget(m.nets[old])
	}
	if m.cfg.Bridge.IPv4.Range.IsValid() {
		n.Chosen = false // it shall not grow beyond what the administrator gave
		rangesAlone(n.IPAM.Pools)
	}
	if err := n.NetworkSpec.Validate(); err != nil {
		return errs.Wrap(err, "default network bridge")
	}
	if err := m.fillPools(&n); err != nil {
		return errs.Wrap(err, "default network bridge")
	}
	if err := m.storeOwn(n, was); err != nil {
		return err
	}
	for _, gw := range []netip.Addr{m.cfg.Bridge.IPv4.Gateway, m.cfg.Bridge.IPv6.Gateway} {
		if !gw.IsValid() {
			continue
		}
		p := m.nets[n.ID].pool(gw)
		if p == nil {
			return errs.New(errs.Invalid, "default gateway %s is in no subnet of the network bridge; its subnet is set with --bip or --bip6", gw)
		}
		if gw != p.Gateway {
			if err := p.TakeAddr(gw, "the default gateway"); err != nil {
				return errs.Wrap(err, "default gateway of the network bridge")
			}
		}
	}
	return nil
}

// pool is the pool that an address lies in, or nil.
func (s *state) pool(a netip.Addr) *pool {
	for _, p := range s.pools {
		if p.Subnet.Contains(a) {
			return p
		}
	}
	return nil
}

func (m *Manager) mtu() int {
	if m.cfg.Defaults.MTU > 0 {
		return m.cfg.Defaults.MTU
	}
	if m.uplinkMTU < 576 {
		return 1500
	}
	return min(m.uplinkMTU, 65535)
}

func (m *Manager) write(n model.Network) error {
	return errs.Wrap(atomicfile.WriteJSON(m.recordPath(n.ID), record{recordVersion, n}, 0o600, atomicfile.Durable), "record network %s", n.Name)
}

// store writes a new network's record and puts it into memory.
func (m *Manager) store(n model.Network) error {
	if err := m.write(n); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.adopt(n); err != nil {
		return err
	}
	m.nets[n.ID].fresh = true
	return nil
}

// storeOwn is store for the networks that are there by themselves, at the daemon's start: nothing is written when the
// record is right already, and a disk that is full does not keep the daemon from starting, since all else is made from it.
func (m *Manager) storeOwn(n, was model.Network) error {
	before, err := json.Marshal(was)
	if err != nil {
		return err
	}
	now, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if !bytes.Equal(before, now) {
		err := m.write(n)
		if err != nil && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
			return err
		}
		if err != nil {
			m.log.Warn("a network's record could not be written; it is made again at the next start", "network", n.Name, "error", err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.adopt(n)
}

// forget takes a network out of memory.
func (m *Manager) forget(s *state) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.nets, s.ID)
	if m.names[s.Name] == s.ID {
		delete(m.names, s.Name)
	}
	if s.Link != "" {
		m.want.Remove(s.access().Elems()...)
	}
}

// fillPools chooses subnets and gateways that the spec leaves open, away from the host's routes and other networks.
func (m *Manager) fillPools(n *model.Network) error {
	pools := slices.Clone(n.IPAM.Pools)
	has := func(v6 bool) bool {
		return slices.ContainsFunc(pools, func(p model.IPPool) bool { return p.Subnet.IsValid() && p.Subnet.Addr().Is6() == v6 })
	}
	pools = slices.DeleteFunc(pools, func(p model.IPPool) bool { return !p.Subnet.IsValid() })
	if n.IPAM.Driver == "null" || n.Driver == foreign.DriverCNI {
		n.IPAM.Pools = nil // addresses are not ours to give
		return nil
	}
	taken := m.ranges(n.ID)
	if n.IPv4 && !has(false) || n.IPv6 && !has(true) {
		u, err := m.k.Uplink(func(link string) bool { return link == n.Link || strings.HasPrefix(link, "br-"+ids.Short(n.ID)) })
		if err != nil {
			return err
		}
		taken = append(taken, u.Taken...)
	}
	for _, v6 := range []bool{false, true} {
		if has(v6) || v6 && !n.IPv6 || !v6 && !n.IPv4 {
			continue
		}
		bases := m.bases(v6)
		sub, err := ipam.Choose(bases, v6, taken)
		if err != nil {
			return err
		}
		n.Chosen = true
		pools = append(pools, model.IPPool{Subnet: sub})
	}
	for i, p := range pools {
		if !n.IPv4 && p.Subnet.Addr().Is4() {
			return errs.New(errs.Invalid, "network %s: subnet %s is IPv4 but IPv4 is off", n.Name, p.Subnet)
		}
		ip, err := ipam.New(p, true)
		if err != nil {
			return err
		}
		pools[i].Gateway = ip.Gateway
	}
	n.IPAM.Pools = pools
	return nil
}

// bases are the ranges that subnets of a family are cut from.
func (m *Manager) bases(v6 bool) []ipam.Base {
	if v6 && !slices.ContainsFunc(m.cfg.Pools, func(b ipam.Base) bool { return b.Base.Addr().Is6() }) {
		return append(slices.Clone(m.cfg.Pools), m.localBase())
	}
	return m.cfg.Pools
}

// localBase is this host's own range of unique local addresses (RFC 4193), from its identity.
func (m *Manager) localBase() ipam.Base {
	sum := sha256.Sum256([]byte("unique local " + m.instance))
	b := [16]byte{0: 0xfd}
	copy(b[1:6], sum[:])
	return ipam.Base{Base: netip.PrefixFrom(netip.AddrFrom16(b), 48), Size: 64}
}

// ranges are the subnets of all bridge networks but one.
func (m *Manager) ranges(except string) []netip.Prefix {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []netip.Prefix
	for id, s := range m.nets {
		if id != except {
			for _, p := range s.pools {
				out = append(out, p.Subnet)
			}
		}
	}
	return out
}

// Create makes a network.
func (m *Manager) Create(ctx context.Context, spec model.NetworkSpec) (model.Network, error) {
	if spec.Driver == "" {
		spec.Driver = model.DriverBridge
	}
	if spec.IPAM.Driver == "" {
		spec.IPAM.Driver = "default"
	}
	if spec.Scope != "" && spec.Scope != model.ScopeLocal || spec.Ingress {
		return model.Network{}, errs.New(errs.Forbidden, "network %s: a network of more than this node (scope %q, ingress %t) needs a cluster; make this node a manager with `swarm init` first",
			spec.Name, spec.Scope, spec.Ingress)
	}
	spec.Scope = model.ScopeLocal
	if spec.ConfigOnly {
		return m.createConfig(spec)
	}
	if err := m.fromConfig(&spec); err != nil {
		return model.Network{}, err
	}
	spec.Options = withDefaults(spec.Options, m.cfg.Defaults.Options[spec.Driver])
	if n := (model.Network{NetworkSpec: spec}); n.Predefined() {
		return model.Network{}, errs.New(errs.Forbidden, "operation is not permitted on predefined %s network: every host has it; choose another name", spec.Name)
	}
	if err := m.checkSpec(ctx, &spec); err != nil {
		return model.Network{}, err
	}
	n := model.Network{ID: ids.New(), Created: m.cfg.Clock.Now().UTC(), NetworkSpec: spec}
	if spec.Driver == model.DriverBridge {
		n.Options = maps.Clone(n.Options)
		if n.Options[model.OptMTU] == "" {
			if n.Options == nil {
				n.Options = map[string]string{}
			}
			n.Options[model.OptMTU] = strconv.Itoa(m.mtu())
		}
		if n.Link = n.Options[model.OptBridgeName]; n.Link == "" {
			n.Link = "br-" + ids.Short(n.ID)
		}
	}
	var u undo.Stack
	defer u.Run()
	if err := m.choosePools(ctx, &n, &u); err != nil {
		return model.Network{}, errs.Wrap(err, "network %s", n.Name)
	}
	if err := ctx.Err(); err != nil {
		return model.Network{}, err
	}
	if err := m.store(n); err != nil {
		os.Remove(m.recordPath(n.ID))
		return model.Network{}, err
	}
	m.mu.Lock()
	s := m.nets[n.ID]
	m.mu.Unlock()
	u.Add(func() {
		m.forget(s)
		os.Remove(m.recordPath(n.ID))
	})
	if err := m.oneMode(s); err != nil {
		return model.Network{}, err
	}
	if err := failpoint.Hit("network/create/recorded"); err != nil {
		return model.Network{}, err
	}
	u.Add(func() { m.removeOurs(s) })
	if d := m.foreignDriver(&n); d != nil {
		if err := d.CreateNetwork(ctx, n); err != nil {
			return model.Network{}, errs.Wrap(err, "network %s", n.Name)
		}
		u.Add(func() { d.RemoveNetwork(context.WithoutCancel(ctx), n) })
	}
	if _, err := m.ensure(s, true); err != nil {
		return model.Network{}, errs.Wrap(err, "network %s", n.Name)
	}
	if n.Link != "" {
		if err := m.changeRules(nil, s.access().Elems()); err != nil {
			return model.Network{}, errs.Wrap(err, "network %s", n.Name)
		}
	}
	u.Release()
	m.mu.Lock()
	s.fresh = false
	m.mu.Unlock()
	return n, nil
}

// choosePools asks whoever gives the network's addresses for its subnets.
func (m *Manager) choosePools(ctx context.Context, n *model.Network, u *undo.Stack) error {
	if ownIPAM(&n.NetworkSpec) {
		return m.fillPools(n)
	}
	return m.requestPools(ctx, n, u)
}

// withDefaults adds options that the user did not give.
func withDefaults(given, defaults map[string]string) map[string]string {
	if len(defaults) == 0 {
		return given
	}
	out := maps.Clone(defaults)
	maps.Copy(out, given)
	return out
}

func (m *Manager) checkSpec(ctx context.Context, spec *model.NetworkSpec) error {
	if err := spec.Validate(); err != nil {
		return err
	}
	switch spec.Driver {
	case model.DriverBridge:
	case model.DriverMacvlan, model.DriverIPvlan:
		if err := directOptions(spec); err != nil {
			return err
		}
	case model.DriverHost, model.DriverNull:
		return errs.New(errs.Forbidden, "network %s: only one network of driver %q can be, and it is there; use the network %q", spec.Name, spec.Driver,
			map[string]string{model.DriverHost: model.NetworkHost, model.DriverNull: model.NetworkNone}[spec.Driver])
	case model.DriverOverlay:
		return errs.New(errs.Unavailable, "network %s: the driver overlay needs a cluster; make this node a manager with `swarm init` first", spec.Name)
	}
	if spec.Driver == model.DriverBridge {
		if _, err := bridgeOptions(spec); err != nil {
			return err
		}
	} else if _, err := commonOptions(spec); err != nil {
		return err
	}
	if err := m.checkForeign(ctx, spec); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, taken := m.names[spec.Name]; taken {
		return errs.New(errs.Conflict, "network with name %s already exists", spec.Name)
	}
	for _, s := range m.nets {
		if link := spec.Options[model.OptBridgeName]; link != "" && s.Link == link {
			return errs.New(errs.Forbidden, "network %s: bridge %s belongs to the network %s", spec.Name, link, s.Name)
		}
		for _, p := range spec.IPAM.Pools {
			for _, q := range s.pools {
				if p.Subnet.IsValid() && q.Subnet.Overlaps(p.Subnet) {
					return errs.New(errs.Forbidden, "network %s: subnet %s overlaps %s of the network %s: Pool overlaps with other one on this address space; choose another with --subnet",
						spec.Name, p.Subnet, q.Subnet, s.Name)
				}
			}
		}
	}
	return nil
}

// ensure makes the network's bridge or parent as it should be, and lets the host forward. fresh: the network is new.
// changed says what had to be done.
func (m *Manager) ensure(s *state, fresh bool) (changed []string, err error) {
	if d := s.direct(); d.Kind != "" {
		return nil, m.k.EnsureParent(d, fresh)
	}
	if s.Link == "" {
		return nil, nil
	}
	if !m.cfg.NoForward {
		for _, v6 := range []bool{false, true} {
			if v6 && !s.IPv6 || !v6 && !s.IPv4 || s.Internal {
				continue
			}
			enabled, err := m.k.EnableForwarding(v6)
			if err != nil {
				return changed, errs.New(errs.Unavailable, "let the host forward packets: %w; do it by hand, or start the daemon with --ip-forward=false", err)
			}
			if enabled && !v6 {
				m.guard()
			}
			if enabled {
				changed = append(changed, map[bool]string{false: "IPv4", true: "IPv6"}[v6]+" forwarding of the host")
			}
		}
	}
	made, err := m.k.EnsureBridge(m.bridgeOf(s))
	if made {
		changed = append(changed, "bridge "+s.Link)
	}
	return changed, err
}

// bridgeOf is the network's bridge as it should be now: networks grow.
func (m *Manager) bridgeOf(s *state) plan.Bridge {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := s.bridge()
	b.Forward = s.IPv4 && !s.Internal && !m.cfg.NoForward
	return b
}

// Remove takes a network away. It must have no endpoints.
func (m *Manager) Remove(ctx context.Context, ref string) error {
	m.mu.Lock()
	s, err := m.find(ref)
	if err == nil && s.Predefined() {
		err = errs.New(errs.Forbidden, "network %s is predefined and cannot be removed", s.Name)
	}
	if err == nil && s.ConfigOnly {
		err = m.configInUse(s)
	}
	if err == nil && len(s.users) > 0 {
		var who []string
		for id := range s.users {
			who = append(who, containerLabel(m.conts[id].req.Name, id))
		}
		slices.Sort(who)
		err = errs.New(errs.Forbidden, "network %s has active endpoints: %s; disconnect or stop them first", s.Name, strings.Join(who, ", "))
	}
	if err == nil {
		s.gone = true // nobody attaches any more
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	if err := m.removeForeign(ctx, s); err != nil {
		m.mu.Lock()
		s.gone = false
		m.mu.Unlock()
		return errs.Wrap(err, "remove network %s", s.Name)
	}
	return m.dismantle(s)
}

// dismantle removes the record first: after a crash the next audit finds a bridge without a record and removes it.
func (m *Manager) dismantle(s *state) error {
	if err := os.Remove(m.recordPath(s.ID)); err != nil && !errors.Is(err, os.ErrNotExist) {
		m.mu.Lock()
		s.gone = false
		m.mu.Unlock()
		return errs.Wrap(err, "remove network %s", s.Name)
	}
	atomicfile.SyncDir(filepath.Dir(m.recordPath(s.ID)))
	m.forget(s)
	if s.Link == "" {
		return errs.Wrap(m.removeOurs(s), "network %s is removed, but not its parent link", s.Name)
	}
	if err := m.changeRules(s.access().Elems(), nil); err != nil {
		m.log.Warn("rules of a removed network stay until the next audit", "network", s.Name, "error", err)
		m.auditLater()
	}
	if err := m.removeOurs(s); err != nil {
		return errs.Wrap(err, "network %s is removed, but not its bridge", s.Name)
	}
	return nil
}

// removeOurs removes the bridge or parent link of a network that is not in memory any more, if we made it and no other
// network needs it; one that was there before stays.
func (m *Manager) removeOurs(s *state) error {
	name := s.Link
	if name == "" {
		name = s.direct().Parent
	}
	if name == "" || m.linkInUse(name, s) {
		return nil
	}
	ours, _, err := m.k.Links(plan.LinkPrefix(m.instance))
	if err == nil && slices.Contains(ours, name) {
		err = m.k.RemoveLink(name)
	}
	return err
}

func (m *Manager) linkInUse(name string, except *state) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.nets {
		if s != except && (s.Link == name || s.direct().Parent == name) {
			return true
		}
	}
	return false
}

// Prune removes the networks without endpoints for which keep says no, and gives their names.
func (m *Manager) Prune(ctx context.Context, keep func(model.Network) bool) ([]string, error) {
	m.mu.Lock()
	var idle []*state
	for _, s := range m.nets {
		if !s.Predefined() && !s.ConfigOnly && !s.gone && len(s.users) == 0 && !keep(s.Network) {
			s.gone = true
			idle = append(idle, s)
		}
	}
	m.mu.Unlock()
	var removed []string
	var failed error
	for _, s := range idle {
		err := m.removeForeign(ctx, s)
		if err != nil {
			m.mu.Lock()
			s.gone = false
			m.mu.Unlock()
		} else {
			err = m.dismantle(s)
		}
		if err != nil {
			failed = errors.Join(failed, err)
		} else {
			removed = append(removed, s.Name)
		}
	}
	slices.Sort(removed)
	return removed, failed
}
