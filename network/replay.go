package network

import (
	"context"
	"slices"
	"sync"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/undo"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/foreign"
)

// replay is whether the IPAM plug-in of a network knows, since the daemon's start, what it gave before. Some forget it when
// they end, and say so; they are asked for the same pools and addresses again before they are asked for others.
type replay struct {
	mu   sync.Mutex // one tells at a time
	done bool
}

// replayAll starts it for all networks there are. Nobody waits: a plug-in may be a container that is yet to start. What
// fails is tried again when the network is used.
func (m *Manager) replayAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.nets {
		if ownIPAM(&s.NetworkSpec) || s.ConfigOnly {
			continue
		}
		s.replay = &replay{}
		m.bg.Go(func() {
			if err := m.tellAgain(context.Background(), s); err != nil {
				m.log.Warn("an IPAM plug-in could not be told of its addresses again; it is tried when the network is used", "network", s.Name, "error", err)
			}
		})
	}
}

// tellAgain is done once; until it has succeeded, no address of the network can be had.
func (m *Manager) tellAgain(ctx context.Context, s *state) error {
	r := s.replay
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return nil
	}
	driver := foreign.NewIPAM(m.cfg.Plugins, s.IPAM.Driver)
	needs, err := driver.NeedsReplay(ctx)
	if err == nil && needs {
		err = m.askAgain(ctx, s, driver)
	}
	r.done = err == nil
	return err
}

// askAgain takes all or nothing.
func (m *Manager) askAgain(ctx context.Context, s *state, driver *foreign.IPAM) error {
	var u undo.Stack
	defer u.Run()
	m.mu.Lock()
	n := s.Network
	var parts []*part
	for _, c := range m.conts {
		for _, e := range c.endpoints {
			if e.net == s && e.part != nil {
				parts = append(parts, e.part)
			}
		}
	}
	m.mu.Unlock()
	n.IPAM.Pools = slices.Clone(n.IPAM.Pools)
	handles := map[string]string{}
	for i, had := range n.IPAM.Pools {
		p, err := driver.Pool(ctx, had, had.Subnet.Addr().Is6(), n.Internal, n.IPAM.Options)
		if err != nil {
			return errs.Wrap(err, "the pool %s, which it gave before", had.Subnet)
		}
		u.Add(func() { driver.Release(context.WithoutCancel(ctx), p) })
		if p.Subnet != had.Subnet || p.Gateway != had.Gateway {
			return errs.New(errs.Unavailable, "asked for the pool %s with the gateway %s, which it gave before, the IPAM driver %s gives %s with %s", had.Subnet, had.Gateway, n.IPAM.Driver, p.Subnet, p.Gateway)
		}
		handles[had.Handle], n.IPAM.Pools[i].Handle = p.Handle, p.Handle
	}
	for _, p := range parts {
		for _, l := range p.Leases {
			if _, err := driver.EndpointAddress(ctx, handles[l.Pool], l.Addr.Addr(), p.MAC); err != nil {
				return errs.Wrap(err, "the address %s, which a running container has", l.Addr.Addr())
			}
			u.Add(func() { driver.ReleaseAddress(context.WithoutCancel(ctx), handles[l.Pool], l.Addr.Addr()) })
		}
	}
	if err := m.rename(s, n, parts, handles); err != nil {
		return err
	}
	u.Release()
	return nil
}

// rename notes what the driver calls its pools now.
func (m *Manager) rename(s *state, n model.Network, parts []*part, handles map[string]string) error {
	same := true
	for old, now := range handles {
		same = same && old == now
	}
	if same {
		return nil
	}
	if err := m.write(n); err != nil {
		return err
	}
	m.mu.Lock()
	s.IPAM.Pools = n.IPAM.Pools
	for _, p := range parts {
		p.Leases = slices.Clone(p.Leases)
		for i := range p.Leases {
			p.Leases[i].Pool = handles[p.Leases[i].Pool]
		}
	}
	m.mu.Unlock()
	for _, p := range parts {
		if err := m.keepPart(p); err != nil {
			return err
		}
	}
	return nil
}
