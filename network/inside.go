package network

import (
	"os"
	"slices"

	"github.com/shoalhq/shoal/network/kernel"
	"github.com/shoalhq/shoal/network/plan"
)

// WatchInside begins, after Restore, to put addresses and routes of containers back that somebody takes away in their
// namespaces. fixed gives the IDs of those that cannot change them themselves; with others it is their own affair.
func (m *Manager) WatchInside(fixed func() map[string]bool) {
	real, is := m.k.(*kernel.Real)
	if !is {
		return
	}
	w, err := real.WatchInside(func(ids map[int32]bool) {
		m.auditInside(fixed, func(c *attached) bool { return ids[m.namespaceID(real, c)] })
	})
	m.watched(w, err)
	m.bg.Go(func() { m.auditInside(fixed, func(*attached) bool { return true }) }) // what happened while no daemon was there
}

// namespaceID is asked for once; -1 is nobody's.
func (m *Manager) namespaceID(real *kernel.Real, c *attached) int32 {
	m.mu.Lock()
	id, ns := c.nsid, c.ns
	m.mu.Unlock()
	if id != nil {
		return *id
	}
	if ns == nil {
		return -1
	}
	got, err := real.NamespaceID(ns)
	if err != nil || got < 0 {
		return -1
	}
	m.mu.Lock()
	c.nsid = &got
	m.mu.Unlock()
	return got
}

// auditInside looks into those containers that are picked. While endpoints come and go it waits: what is missing then may
// be about to come.
func (m *Manager) auditInside(fixed func() map[string]bool, picked func(*attached) bool) {
	m.mu.Lock()
	if m.attaching > 0 {
		m.due = append(m.due, func() { m.auditInside(fixed, picked) })
		m.mu.Unlock()
		return
	}
	var all []*attached
	for _, c := range m.conts {
		if c.ns != nil && len(c.endpoints) > 0 {
			all = append(all, c)
		}
	}
	m.mu.Unlock()
	all = slices.DeleteFunc(all, func(c *attached) bool { return !picked(c) })
	if len(all) == 0 {
		return
	}
	may := fixed()
	for _, c := range all {
		if !may[c.id] {
			continue
		}
		type link struct {
			e *endpoint
			p plan.Plug
		}
		var links []link
		m.mu.Lock()
		ns := c.ns
		for _, e := range c.endpoints {
			if e.host != "" { // of other drivers, others know what should be
				links = append(links, link{e, plugPlan(e, gatewaysOf(c.endpoints, e))})
			}
		}
		m.mu.Unlock()
		for _, l := range links {
			m.repairInside(c, l.e, l.p, ns)
		}
	}
}

func (m *Manager) repairInside(c *attached, e *endpoint, p plan.Plug, ns *os.File) {
	changed, err := m.k.RepairInside(p, ns)
	if !m.present(e) {
		return // detached meanwhile
	}
	if err != nil {
		m.log.Warn("addresses or routes in a container are missing and cannot be put back", "container", c.label, "interface", e.Interface, "error", err)
	}
	if changed {
		m.report(Finding{What: "addresses or routes of " + e.Interface + " in " + c.label, How: "were removed by another program"})
	}
}
