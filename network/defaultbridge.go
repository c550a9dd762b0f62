package network

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/kernel"
)

func (m *Manager) bridgeSpec() (model.NetworkSpec, error) {
	b := m.cfg.Bridge
	host := "0.0.0.0"
	if b.HostIP.IsValid() {
		host = b.HostIP.String()
	}
	spec := model.NetworkSpec{Name: model.NetworkBridge, Driver: model.DriverBridge, Scope: model.ScopeLocal, IPv4: true,
		IPv6: b.IPv6.On || b.IPv6.Bridge.IsValid(), IPAM: model.IPAM{Driver: "default"}, Options: map[string]string{
			model.OptBridgeDefault: "true", model.OptBridgeICC: strconv.FormatBool(!b.NoICC),
			model.OptBridgeMasquerade: strconv.FormatBool(!b.NoMasq), model.OptBridgeHostIPv4: host,
			model.OptBridgeName: b.Name, model.OptMTU: strconv.Itoa(m.mtu())}}
	there, err := m.k.Bridge(b.Name)
	if err != nil {
		return spec, err
	}
	if there.Foreign && there.MTU > 0 {
		spec.Options[model.OptMTU] = strconv.Itoa(min(m.mtu(), there.MTU))
	}
	spec.IPAM.Pools = append(spec.IPAM.Pools, bridgePool(b.IPv4, there, false))
	if spec.IPv6 {
		spec.IPAM.Pools = append(spec.IPAM.Pools, bridgePool(b.IPv6, there, true))
	}
	return spec, nil
}

// bridgePool is what the daemon was told of a family of the default network, or what a bridge of the host's owner has.
func bridgePool(f BridgeFamily, there kernel.BridgeFacts, v6 bool) model.IPPool {
	at := f.Bridge
	for _, a := range there.Addresses {
		if !at.IsValid() && there.Foreign && a.Addr().Is6() == v6 && !a.Addr().IsLinkLocalUnicast() {
			at = a
		}
	}
	if !at.IsValid() && v6 {
		at, f.Range = f.Range, netip.Prefix{} // as Docker has it: with --fixed-cidr-v6 alone, that is the subnet
	}
	if !at.IsValid() {
		return model.IPPool{Range: f.Range}
	}
	p := model.IPPool{Subnet: at.Masked(), Range: f.Range}
	if at.Addr() != at.Masked().Addr() {
		p.Gateway = at.Addr()
	}
	return p
}

// keepPools fills pools that leave the choice to the engine with what was chosen before; a range alone that lies elsewhere is a choice.
func keepPools(want, had []model.IPPool, v6 bool) []model.IPPool {
	out := slices.Clone(want)
	for i, w := range out {
		if !w.Subnet.IsValid() && i < len(had) && had[i].Subnet.Addr().Is6() == (i > 0) && (!w.Range.IsValid() || within(w.Range, had[i].Subnet)) {
			out[i] = had[i]
			out[i].Range = w.Range
		}
	}
	for _, h := range had { // an IPv6 pool that was chosen by fillPools
		if v6 && h.Subnet.Addr().Is6() && !slices.ContainsFunc(out, func(p model.IPPool) bool { return p.Subnet.Addr().Is6() }) {
			out = append(out, h)
		}
	}
	return out
}

// within says that a range is a part of a subnet.
func within(r, subnet netip.Prefix) bool {
	return subnet.Contains(r.Addr()) && r.Bits() >= subnet.Bits()
}

// rangesAlone makes subnets of ranges that are in none, as Docker has it for --fixed-cidr without --bip.
func rangesAlone(pools []model.IPPool) {
	for i := range pools {
		if p := &pools[i]; p.Range.IsValid() && !p.Subnet.IsValid() {
			p.Subnet, p.Range = p.Range.Masked(), netip.Prefix{}
		}
	}
}

// stillFree are those pools of the default bridge that the host can have there. While the bridge is there, all are; when it has to be
// made, as after a boot, the host may have got routes to the same addresses meanwhile: of a VPN, or of another daemon's bridge.
func (m *Manager) stillFree(pools []model.IPPool) ([]model.IPPool, error) {
	if b, err := m.k.Bridge(m.cfg.Bridge.Name); err != nil || b.There {
		return pools, err
	}
	u, err := m.k.Uplink(nil)
	return slices.DeleteFunc(slices.Clone(pools), func(p model.IPPool) bool {
		return slices.ContainsFunc(u.Taken, func(t netip.Prefix) bool { return t.Bits() > 0 && t.Overlaps(p.Subnet) })
	}), err
}
