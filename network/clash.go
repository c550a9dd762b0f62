package network

import (
	"fmt"
	"net/netip"
	"slices"
)

// checkRoutes tells, once for each, when the host has got a route that leads a network's addresses elsewhere. When the
// network was made its range was free; a VPN that comes up later takes no notice of it, and then connections fail in
// silence: the containers', or those to the VPN.
func (m *Manager) checkRoutes() {
	m.mu.Lock()
	ours := map[string]bool{}
	nets := map[string][]netip.Prefix{}
	for _, s := range m.nets {
		ours[s.Link] = true
		if s.Link != "" && !s.gone {
			for _, p := range s.pools {
				nets[s.Name] = append(nets[s.Name], p.Subnet)
			}
		}
	}
	m.mu.Unlock()
	u, err := m.k.Uplink(func(link string) bool { return ours[link] })
	if err != nil {
		m.log.Warn("the host's routes cannot be compared with the networks", "error", err)
		return
	}
	seen := map[string]bool{}
	for name, subnets := range nets {
		for _, sub := range subnets {
			i := slices.IndexFunc(u.Taken, func(t netip.Prefix) bool { return t.Bits() > 0 && t.Overlaps(sub) })
			if i < 0 {
				continue
			}
			seen[name+sub.String()] = true
			if m.firstClash(name + sub.String()) {
				m.report(Finding{Code: RouteClash, What: fmt.Sprintf("network %s (%s)", name, sub),
					How: fmt.Sprintf("overlaps the route to %s that the host has now: one of the two will not be reached; make the network again with another --subnet, or change the route", u.Taken[i])})
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range m.clashes {
		if !seen[k] {
			delete(m.clashes, k) // it may come again
		}
	}
}

func (m *Manager) firstClash(key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.clashes[key] {
		return false
	}
	if m.clashes == nil {
		m.clashes = map[string]bool{}
	}
	m.clashes[key] = true
	return true
}
