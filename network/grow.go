package network

import (
	"slices"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/ipam"
)

// growFull gives a further subnet to those networks of a request whose subnets the engine chose and that are full. Who is
// on the network keeps his address; the bridge gets the new gateway beside the old one, and leads from subnet to subnet.
func (m *Manager) growFull(r AttachRequest) (grown bool, err error) {
	m.growMu.Lock() // one at a time: two would choose the same subnet
	defer m.growMu.Unlock()
	for ref := range r.Endpoints {
		for _, v6 := range []bool{false, true} {
			m.mu.Lock()
			s, ferr := m.find(ref)
			full := ferr == nil && s.Chosen && s.Link != "" && !s.gone && s.full(v6)
			m.mu.Unlock()
			if !full {
				continue
			}
			if err := m.grow(s, v6); err != nil {
				return grown, err
			}
			grown = true
		}
	}
	return grown, nil
}

// full says that a family of the network has no free address.
func (s *state) full(v6 bool) bool {
	has := false
	for _, p := range s.pools {
		if p.Subnet.Addr().Is6() != v6 {
			continue
		}
		has = true
		if p.Free() {
			return false
		}
	}
	return has
}

func (m *Manager) grow(s *state, v6 bool) error {
	u, err := m.k.Uplink(nil)
	if err != nil {
		return err
	}
	sub, err := ipam.Choose(m.bases(v6), v6, append(m.ranges(""), u.Taken...))
	if err != nil {
		return err
	}
	p := model.IPPool{Subnet: sub}
	made, err := ipam.New(p, true)
	if err != nil {
		return err
	}
	p.Gateway = made.Gateway
	m.mu.Lock()
	n := s.Network
	n.IPAM.Pools = append(slices.Clone(n.IPAM.Pools), p)
	m.mu.Unlock()
	if err := m.write(n); err != nil {
		return err
	}
	m.mu.Lock()
	s.IPAM.Pools = n.IPAM.Pools
	s.pools = append(s.pools, &pool{Pool: made})
	m.mu.Unlock()
	m.log.Info("a network was full and got a further subnet", "network", n.Name, "subnet", sub)
	_, err = m.k.EnsureBridge(m.bridgeOf(s))
	return errs.Wrap(err, "network %s: the gateway of the further subnet %s", n.Name, sub)
}
