package convert

import (
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/network"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/model"
)

// NetworkSpec makes a network's spec of a create body.
func NetworkSpec(b *NetworkCreateBody, v types.Version) (model.NetworkSpec, error) {
	s := model.NetworkSpec{Name: b.Name, Driver: b.Driver, Scope: b.Scope, Internal: b.Internal, Attachable: b.Attachable,
		Ingress: b.Ingress, IPv4: true, Options: b.Options, Labels: b.Labels}
	s.ConfigOnly = b.ConfigOnly
	if b.ConfigFrom != nil {
		s.ConfigFrom = b.ConfigFrom.Network
	}
	if s.Driver == "" {
		s.Driver = model.DriverBridge
	}
	if b.EnableIPv4 != nil && v >= 48 {
		s.IPv4 = *b.EnableIPv4
	}
	if b.EnableIPv6 != nil {
		s.IPv6 = *b.EnableIPv6
	}
	if b.IPAM == nil {
		return s, nil
	}
	s.IPAM = model.IPAM{Driver: b.IPAM.Driver, Options: b.IPAM.Options}
	for _, c := range b.IPAM.Config {
		s.IPAM.Pools = append(s.IPAM.Pools, model.IPPool{Subnet: c.Subnet, Range: c.IPRange, Gateway: c.Gateway, AuxAddresses: c.AuxAddress})
	}
	return s, nil
}

// Network is a network as lists show it.
func Network(n *model.Network) network.Network {
	out := network.Network{Name: n.Name, ID: n.ID, Created: n.Created, Scope: n.Scope, Driver: n.Driver, EnableIPv4: n.IPv4, EnableIPv6: n.IPv6,
		IPAM:     network.IPAM{Driver: n.IPAM.Driver, Options: n.IPAM.Options, Config: []network.IPAMConfig{}},
		Internal: n.Internal, Attachable: n.Attachable, Ingress: n.Ingress, Options: orEmptyMap(n.Options), Labels: orEmptyMap(n.Labels),
		ConfigOnly: n.ConfigOnly, ConfigFrom: network.ConfigReference{Network: n.ConfigFrom}}
	if out.Scope == "" {
		out.Scope = model.ScopeLocal
	}
	if out.IPAM.Driver == "" {
		out.IPAM.Driver = "default"
	}
	for _, p := range n.IPAM.Pools {
		out.IPAM.Config = append(out.IPAM.Config, network.IPAMConfig{Subnet: p.Subnet, IPRange: p.Range, Gateway: p.Gateway, AuxAddress: p.AuxAddresses})
	}
	return out
}

func orEmptyMap(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// NetworkMember is a container in a network's inspect.
func NetworkMember(e *model.Endpoint, containerName string) network.EndpointResource {
	out := network.EndpointResource{Name: containerName, EndpointID: e.ID, IPv4Address: e.IPv4, IPv6Address: e.IPv6}
	if !e.MAC.IsZero() {
		out.MacAddress = slices.Clone(e.MAC[:])
	}
	return out
}

// NetworkStatus is how full the network's subnets are.
func NetworkStatus(use map[netip.Prefix]model.SubnetUse) *network.Status {
	if use == nil {
		return nil
	}
	subnets := network.SubnetStatuses{}
	for subnet, u := range use {
		subnets[subnet] = network.SubnetStatus{IPsInUse: u.InUse, DynamicIPsAvailable: u.Free}
	}
	return &network.Status{IPAM: network.IPAMStatus{Subnets: subnets}}
}
