package network

import (
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
	hostIP       netip.Addr
	mtu          int
	prefix       string // of the interfaces' names in containers
	open4, open6 bool
	snat4, snat6 netip.Addr
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
			o.open4, err = gatewayMode(spec, v)
		case model.OptBridgeGatewayMode6:
			o.open6, err = gatewayMode(spec, v)
		case model.OptHostIPv4:
			o.snat4, err = netip.ParseAddr(v)
		case model.OptHostIPv6:
			o.snat6, err = netip.ParseAddr(v)
		case model.OptBridgeTrusted:
			err = errs.New(errs.Unsupported, "this option is not known here yet")
		}
		if errs.Is(err, errs.Unsupported) {
			return o, errs.Wrap(err, "network %s: option %s=%s", spec.Name, key, v)
		}
		if err != nil {
			return o, errs.New(errs.Invalid, "network %s: option %s=%q: %w", spec.Name, key, v, err)
		}
	}
	return o, nil
}

func gatewayMode(spec *model.NetworkSpec, v string) (open bool, err error) {
	switch v {
	case "", "nat":
		return false, nil
	case "nat-unprotected":
		return true, nil
	}
	return false, errs.New(errs.Unsupported, "gateway mode %s is not known here; use nat or nat-unprotected", v)
}

// kernel says that endpoints of the network have a link; those of host and none have not.
func (s *state) kernel() bool { return s.Link != "" || s.direct().Kind != "" }

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
	return plan.Access{Bridge: s.Link, Internal: s.Internal, ICC: s.opts.icc, Masq4: s.opts.masq && s.IPv4,
		Masq6: s.opts.masq && s.IPv6, Snat4: s.opts.snat4, Snat6: s.opts.snat6, Open: s.opts.open4 || s.opts.open6}
}

// bridge is what the host's link of the network should be.
func (s *state) bridge() plan.Bridge {
	b := plan.Bridge{Name: s.Link, MTU: s.opts.mtu, IPv6: s.IPv6, RouteLocalnet: !s.Internal}
	b.MAC = model.MAC{0x02, 0x42}
	copy(b.MAC[2:], s.ID) // digits of a random ID are random enough
	for _, p := range s.pools {
		if p.Gateway.IsValid() && !p.foreignGateway {
			b.Addresses = append(b.Addresses, netip.PrefixFrom(p.Gateway, p.Subnet.Bits()))
		}
	}
	if s.IPv6 {
		// Without an address of the link itself that is usable at once, the kernel cannot ask for a container's Ethernet
		// address on behalf of others until it has checked the automatic one for a second or two.
		b.Addresses = append(b.Addresses, bridgeLinkLocal)
	}
	return b
}

var bridgeLinkLocal = netip.MustParsePrefix("fe80::1/64")
