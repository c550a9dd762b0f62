package network

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/plan"
)

// options are the driver options of a bridge network, read.
type options struct {
	icc, masq    bool
	inhibit4     bool // the bridge has no IPv4 address
	hostIP       netip.Addr
	mtu          int
	prefix       string // of the interfaces' names in containers
	gw4, gw6     gatewayMode
	snat4, snat6 netip.Addr
	trusted      []string // links of the host, by which published ports are reached at the containers' own addresses too
	unknown      []string // keys that nothing here reads
}

// bridgeOptions reads the options that the bridge driver knows and refuses values it cannot honour. Unknown keys are
// other programs' and are kept.
func bridgeOptions(spec *model.NetworkSpec) (options, error) {
	o := options{icc: true, masq: true, prefix: "eth"}
	for key, v := range spec.Options {
		var err error
		switch key {
		case model.OptBridgeICC:
			o.icc, err = strconv.ParseBool(v)
		case model.OptBridgeMasquerade:
			o.masq, err = strconv.ParseBool(v)
		case model.OptBridgeHostIPv4:
			if v != "" {
				o.hostIP, err = netip.ParseAddr(v)
			}
		case model.OptMTU:
			if o.mtu, err = strconv.Atoi(v); err == nil && o.mtu != 0 && (o.mtu < 68 || o.mtu > 65535) {
				return o, errs.New(errs.Invalid, "network %s: MTU %s is not from 68 to 65535", spec.Name, v)
			}
		case model.OptIfacePrefix:
			if v == "" || len(v) > 10 || strings.ContainsAny(v, "/ \t\n:%") {
				return o, errs.New(errs.Invalid, "network %s: interface prefix %q: want at most 10 letters or digits", spec.Name, v)
			}
			o.prefix = v
		case model.OptBridgeName:
			if len(v) > 15 || strings.ContainsAny(v, "/ \t\n:%") || v == "." || v == ".." {
				return o, errs.New(errs.Invalid, "network %s: bridge name %q: want at most 15 letters, digits, - _ .", spec.Name, v)
			}
		case model.OptBridgeGatewayMode4:
			o.gw4, err = readGatewayMode(spec, v)
		case model.OptBridgeGatewayMode6:
			o.gw6, err = readGatewayMode(spec, v)
		case model.OptHostIPv4:
			o.snat4, err = netip.ParseAddr(v)
		case model.OptHostIPv6:
			o.snat6, err = netip.ParseAddr(v)
		case model.OptBridgeInhibit4:
			o.inhibit4, err = strconv.ParseBool(v)
		case model.OptBridgeTrusted:
			o.trusted, err = readTrusted(v)
		default:
			o.unknown = append(o.unknown, key)
		}
		if err != nil {
			return o, errs.New(errs.Invalid, "network %s: option %s=%q: %w", spec.Name, key, v, err)
		}
	}
	return o, nil
}

// readTrusted reads names of links with a colon between.
func readTrusted(v string) (links []string, err error) {
	for _, name := range strings.Split(v, ":") {
		if name == "" && v == "" {
			break
		}
		if name == "" || len(name) > 15 || strings.ContainsAny(name, "/ \t\n%") || name == "." || name == ".." {
			return nil, errs.New(errs.Invalid, "%q is no name of a link; want names with a colon between, such as eth0:vxlan.1", name)
		}
		if !slices.Contains(links, name) {
			links = append(links, name)
		}
	}
	return links, nil
}

// UnknownOptions lists the driver options of a network that nothing here reads. They are kept, as Docker keeps them.
func UnknownOptions(spec *model.NetworkSpec) (unknown []string) {
	switch {
	case spec.Driver == model.DriverBridge:
		o, _ := bridgeOptions(spec)
		unknown = o.unknown
	case spec.ConfigOnly: // whose options they are shows when a network is made from them
	case builtinDriver(spec.Driver): // another program's options are its own
		for key := range spec.Options {
			if !slices.Contains([]string{model.OptMacvlanMode, model.OptIPvlanMode, model.OptIPvlanFlag, model.OptParent, model.OptMTU, model.OptIfacePrefix}, key) {
				unknown = append(unknown, key)
			}
		}
	}
	slices.Sort(unknown)
	return unknown
}

// commonOptions reads the options that do not depend on the driver.
func commonOptions(spec *model.NetworkSpec) (options, error) {
	some := model.NetworkSpec{Name: spec.Name, Options: map[string]string{}}
	for _, key := range []string{model.OptIfacePrefix, model.OptMTU} {
		if v, has := spec.Options[key]; has {
			some.Options[key] = v
		}
	}
	return bridgeOptions(&some)
}

// gatewayMode is how one address family of a bridge network meets the world.
type gatewayMode string

const (
	gatewayNAT      gatewayMode = ""                // containers leave with the host's address; what is published is led to them
	gatewayOpen     gatewayMode = "nat-unprotected" // the same, and everybody with a route to the containers reaches all of their ports
	gatewayRouted   gatewayMode = "routed"          // no address translation; published ports are open at the container's own address
	gatewayIsolated gatewayMode = "isolated"        // internal networks only: the host has no address in it either
)

func readGatewayMode(spec *model.NetworkSpec, v string) (gatewayMode, error) {
	switch m := gatewayMode(v); m {
	case "nat", gatewayNAT:
		return gatewayNAT, nil
	case gatewayIsolated:
		if !spec.Internal {
			return "", errs.New(errs.Invalid, "gateway mode isolated is for internal networks; add --internal")
		}
		return m, nil
	case gatewayOpen, gatewayRouted:
		return m, nil
	}
	return "", errs.New(errs.Invalid, "want nat, nat-unprotected, routed or isolated")
}

// gateway is the mode of a family.
func (o *options) gateway(v6 bool) gatewayMode {
	if v6 {
		return o.gw6
	}
	return o.gw4
}

// kernel says that endpoints of the network have a link; those of host and none have not.
func (s *state) kernel() bool { return s.Link != "" || s.direct().Kind != "" || s.foreign() }

// direct is the kind of link of a macvlan or ipvlan network.
func (s *state) direct() plan.Direct { return directOf(&s.Network) }

func directOf(n *model.Network) plan.Direct {
	d := plan.Direct{Kind: n.Driver, Parent: n.Options[model.OptParent]}
	switch n.Driver {
	case model.DriverMacvlan:
		d.Mode = n.Options[model.OptMacvlanMode]
	case model.DriverIPvlan:
		d.Mode, d.Flag = n.Options[model.OptIPvlanMode], n.Options[model.OptIPvlanFlag]
	default:
		return plan.Direct{}
	}
	if d.Parent == "" || n.Internal { // Docker's way to say: among themselves only
		d.Parent = "dm-" + n.ID[:12]
	}
	return d
}

// oneMode refuses an ipvlan network with another mode than one that is there on the same parent: the kernel keeps the mode with the
// parent, so making a link in another one would change all that run. The network is recorded already: of two that come at once, one sees the other.
func (m *Manager) oneMode(s *state) error {
	mode := func(d plan.Direct) string { return cmp.Or(d.Mode, "l2") + " " + cmp.Or(d.Flag, "bridge") }
	d := s.direct()
	if d.Kind != model.DriverIPvlan {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, other := range m.nets {
		if o := other.direct(); other != s && o.Kind == d.Kind && o.Parent == d.Parent && mode(o) != mode(d) {
			return errs.New(errs.Conflict, "network %s: all ipvlan networks on a parent have one mode: %s has %s on %s, and %s was asked for; use that mode, another parent, or remove that network",
				s.Name, other.Name, mode(o), d.Parent, mode(d))
		}
	}
	return nil
}

// directOptions refuses what the drivers macvlan and ipvlan cannot honour.
func directOptions(spec *model.NetworkSpec) error {
	known := map[string][]string{model.OptMacvlanMode: {"", "bridge", "private", "vepa", "passthru"},
		model.OptIPvlanMode: {"", "l2", "l3", "l3s"}, model.OptIPvlanFlag: {"", "bridge", "private", "vepa"}}
	for key, words := range known {
		if v := spec.Options[key]; !slices.Contains(words, v) {
			return errs.New(errs.Invalid, "network %s: option %s=%q: want one of %s", spec.Name, key, v, strings.Join(words[1:], ", "))
		}
	}
	if p := spec.Options[model.OptParent]; len(p) > 15 || strings.ContainsAny(p, "/ \t\n:%") {
		return errs.New(errs.Invalid, "network %s: parent %q: want the name of a link of the host, or NAME.VLAN", spec.Name, p)
	}
	return nil
}

// access is what the packet filter is told of a network.
func (s *state) access() plan.Access {
	a := plan.Access{Bridge: s.Link, Internal: s.Internal, ICC: s.opts.icc}
	a.V4 = familyAccess(s.IPv4, s.opts.masq, s.opts.snat4, s.opts.gw4)
	a.V6 = familyAccess(s.IPv6, s.opts.masq, s.opts.snat6, s.opts.gw6)
	return a
}

func familyAccess(on, masq bool, snat netip.Addr, gw gatewayMode) plan.FamilyAccess {
	f := plan.FamilyAccess{Open: on && gw == gatewayOpen, Routed: on && gw == gatewayRouted}
	if on && !f.Routed {
		f.Masq, f.Snat = masq, snat
	}
	return f
}

// bridge is what the host's link of the network should be.
func (s *state) bridge() plan.Bridge {
	v6 := s.IPv6 && s.opts.gw6 != gatewayIsolated
	b := plan.Bridge{Name: s.Link, MTU: s.opts.mtu, IPv6: v6, RouteLocalnet: !s.Internal}
	b.MAC = model.MAC{0x02, 0x42}
	copy(b.MAC[2:], s.ID) // digits of a random ID are random enough
	for _, p := range s.pools {
		if s.opts.inhibit4 && p.Subnet.Addr().Is4() {
			continue
		}
		if p.Gateway.IsValid() && !p.foreignGateway && s.opts.gateway(p.Gateway.Is6()) != gatewayIsolated {
			b.Addresses = append(b.Addresses, netip.PrefixFrom(p.Gateway, p.Subnet.Bits()))
		}
	}
	if v6 {
		// Without an address of the link itself that is usable at once, the kernel cannot ask for a container's Ethernet
		// address on behalf of others until it has checked the automatic one for a second or two.
		b.Addresses = append(b.Addresses, bridgeLinkLocal)
	}
	return b
}

var bridgeLinkLocal = netip.MustParsePrefix("fe80::1/64")
