package network

import (
	"cmp"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
)

// createConfig makes a network that only holds configuration: a record, of which nothing is in the kernel.
func (m *Manager) createConfig(spec model.NetworkSpec) (model.Network, error) {
	switch n := (model.Network{NetworkSpec: spec}); {
	case n.Predefined():
		return n, errs.New(errs.Forbidden, "operation is not permitted on predefined %s network: every host has it; choose another name", spec.Name)
	case spec.ConfigFrom != "":
		return n, errs.New(errs.Invalid, "network %s: a configuration network cannot depend on another configuration network (%s)", spec.Name, spec.ConfigFrom)
	case spec.Internal || spec.Attachable:
		return n, errs.New(errs.Invalid, "network %s: a configuration network has only driver options and addresses; --internal and --attachable are for the networks that are made from it", spec.Name)
	}
	spec.Driver = model.DriverNull
	if err := spec.Validate(); err != nil {
		return model.Network{}, err
	}
	n := model.Network{ID: ids.New(), Created: m.cfg.Clock.Now().UTC(), NetworkSpec: spec}
	if _, err := newState(n); err != nil {
		return model.Network{}, err
	}
	m.mu.Lock()
	_, taken := m.names[spec.Name]
	m.mu.Unlock()
	if taken {
		return model.Network{}, errs.New(errs.Conflict, "network with name %s already exists", spec.Name)
	}
	if err := m.store(n); err != nil {
		os.Remove(m.recordPath(n.ID))
		return model.Network{}, err
	}
	return n, nil
}

// fromConfig fills a network's spec with the configuration that it shall be made from. As in Docker, nothing of what is
// taken from there may be given beside it, but for labels.
func (m *Manager) fromConfig(spec *model.NetworkSpec) error {
	if spec.ConfigFrom == "" {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.nets[m.names[spec.ConfigFrom]]
	switch {
	case s == nil || s.gone:
		return errs.New(errs.NotFound, "network %s: configuration network %s not found; make it with `network create --config-only %s`", spec.Name, spec.ConfigFrom, spec.ConfigFrom)
	case !s.ConfigOnly:
		return errs.New(errs.Forbidden, "network %s: %s is no configuration network; make one with `network create --config-only`", spec.Name, spec.ConfigFrom)
	case spec.IPv6 || !spec.IPv4 || len(spec.Options) > 0 || len(spec.IPAM.Options) > 0 || cmp.Or(spec.IPAM.Driver, "default") != "default" ||
		slices.ContainsFunc(spec.IPAM.Pools, func(p model.IPPool) bool { return p.Subnet.IsValid() }):
		return errs.New(errs.Forbidden, "network %s: address families, driver options and addresses come from the configuration network %s; leave them out", spec.Name, spec.ConfigFrom)
	}
	spec.IPv4, spec.IPv6, spec.Options = s.IPv4, s.IPv6, maps.Clone(s.Options)
	spec.IPAM = model.IPAM{Driver: s.IPAM.Driver, Options: maps.Clone(s.IPAM.Options), Pools: slices.Clone(s.IPAM.Pools)}
	labels := maps.Clone(s.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, spec.Labels)
	spec.Labels = labels
	return nil
}

// configInUse names the networks that were made from a configuration. Under the lock.
func (m *Manager) configInUse(config *state) error {
	var from []string
	for _, s := range m.nets {
		if s.ConfigFrom == config.Name {
			from = append(from, s.Name)
		}
	}
	if len(from) == 0 {
		return nil
	}
	slices.Sort(from)
	return errs.New(errs.Forbidden, "configuration network %s is in use by the networks %s; remove them first", config.Name, strings.Join(from, ", "))
}
