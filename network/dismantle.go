package network

import (
	"errors"
	"os"

	"github.com/shoalhq/shoal/network/kernel"
	"github.com/shoalhq/shoal/network/plan"
)

// Dismantle takes what the networks of a daemon that has ended, and will not come back, left in the kernel: its bridges
// and other links, the packet filter's table, and forwarding of IPv4 if the daemon switched it on, since without the table
// nothing would keep the host from routing between its own links. Records stay, and so do links that others made.
func Dismantle(cfg Config) error {
	cfg.fill()
	m := &Manager{cfg: cfg, k: cfg.Kernel, log: cfg.Log}
	if err := m.identify(); err != nil {
		return err
	}
	if m.k == nil {
		real, err := kernel.Open(cfg.Bridge.Table, m.instance)
		if err != nil {
			return err
		}
		defer real.Close()
		m.k = real
	}
	bridges, ports, failed := m.k.Links(plan.LinkPrefix(m.instance))
	for name := range ports {
		failed = errors.Join(failed, m.k.RemoveLink(name))
	}
	for _, name := range bridges {
		failed = errors.Join(failed, m.k.RemoveLink(name))
	}
	if _, err := os.Stat(m.guardPath()); err == nil && !m.cfg.NoForward {
		failed = errors.Join(failed, m.k.DisableForwarding(), os.Remove(m.guardPath()))
	}
	if m.cfg.NoRules {
		return failed
	}
	return errors.Join(failed, m.k.RemoveRules())
}
