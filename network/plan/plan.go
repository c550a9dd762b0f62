// Package plan says what the kernel should have for a set of networks, endpoints and published ports: bridges, the
// containers' links, and the elements of our nftables sets. It is pure. Package kernel makes it so; the difference
// between plan and kernel is what the audit repairs.
package plan

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/shoalhq/shoal/model"
)

// Bridge is a bridge of the host as it should be.
type Bridge struct {
	Name      string
	MAC       model.MAC
	MTU       int
	Addresses []netip.Prefix // the gateways' addresses
	IPv6      bool
	// RouteLocalnet lets the answers to a connection that came in over the host's loopback find back.
	RouteLocalnet bool
	Forward       bool // IPv4 packets that come in are passed on
	Adopt         bool // the host's owner made it
}

// Port is a container's link on the host: what of it can be changed there.
type Port struct {
	Bridge   string // that it is in and up
	MTU      int
	Isolated bool // the other containers of the bridge cannot be reached
}

// Same says that a link is as it should be. Without an MTU in the plan, the kernel's is right.
func (p Port) Same(is Port) bool {
	if p.MTU == 0 {
		is.MTU = 0
	}
	return p == is
}

// Plug is one container's link to a bridge as it should be, and what is set up at its inner end.
type Plug struct {
	Port
	Host      string // name of the link's end on the host
	Inside    string // name of the end in the container
	MAC       model.MAC
	Addresses []netip.Prefix
	Gateways  []netip.Addr // default routes, at most one for each family
	Direct    Direct       // instead of Host and Port: a link of its own on a link of the host
	Routes    []Route      // further routes, of drivers that are other programs
	Sysctls   []string     // "net.ipv4.conf.IFNAME.log_martians=1", IFNAME stands for Inside
}

// Route leads to a range through a neighbour, or to the link itself when Via is zero.
type Route struct {
	To  netip.Prefix
	Via netip.Addr
}

// Direct is a link that a container has directly on a link of the host, its parent.
type Direct struct {
	Kind   string // macvlan or ipvlan; empty: no direct link
	Parent string // a link of the host, NAME.VLAN for one of its VLANs, or a name of ours for one without a way out
	Mode   string // the driver's word for it
	Flag   string // of ipvlan
}

// Routed says that the link has no neighbours: routes name the link, not a gateway.
func (d Direct) Routed() bool { return d.Kind == "ipvlan" && d.Mode != "" && d.Mode != "l2" }

// Set names one of our nftables sets or maps. The table's documentation is docs/network.md.
type Set string

// The sets and maps, with what their keys are made of.
const (
	SetBridges  Set = "bridges" // ifname: bridges whose containers are reachable only as published
	SetOpen4    Set = "open4"   // ifname: bridges whose containers anybody may reach (gateway mode nat-unprotected)
	SetOpen6    Set = "open6"
	SetRouted4  Set = "routed4" // ifname: bridges whose containers are called by their own addresses (gateway mode routed)
	SetRouted6  Set = "routed6"
	SetInternal Set = "internal" // ifname: bridges without a way out or in
	SetSame     Set = "same"     // ifname . ifname: a bridge with itself, when its containers may talk
	SetOwn      Set = "own"      // ifname . ifname: every bridge with itself
	SetApart    Set = "apart"    // ifname: bridges whose containers may not talk; published ports reach them through the host
	SetMasq4    Set = "masq4"    // ifname: bridges whose IPv4 traffic leaves with the host's address
	SetMasq6    Set = "masq6"
	SetGuarded  Set = "guarded" // ifname: the host's own links, between which we opened no way

	MapSnat4 Set = "snat4" // ifname → ipv4_addr: source address that the user chose
	MapSnat6 Set = "snat6"
	MapPub4  Set = "pub4" // inet_proto . ipv4_addr . inet_service → ipv4_addr . inet_service: published on one address
	MapPub6  Set = "pub6"
	MapAny4  Set = "any4" // inet_proto . inet_service → ipv4_addr . inet_service: published on all addresses
	MapAny6  Set = "any6"

	SetMine4 Set = "mine4" // ipv4_addr . inet_proto . inet_service: a container's own published ports, see Mine
	SetMine6 Set = "mine6"

	SetDirect4 Set = "direct4" // ipv4_addr(range) . inet_proto . ipv4_addr . inet_service: who may call which port of routed containers
	SetDirect6 Set = "direct6"

	SetTrusted4 Set = "trusted4" // ifname . ipv4_addr(range) . inet_proto . ipv4_addr . inet_service: the same for what comes in by one link of the host
	SetTrusted6 Set = "trusted6"

	SetPubLimited4 Set = "publimited4" // inet_proto . ipv4_addr . inet_service of the host: published for some sources only
	SetPubLimited6 Set = "publimited6"
	SetAnyLimited4 Set = "anylimited4" // inet_proto . inet_service: the same for what is published on all addresses
	SetAnyLimited6 Set = "anylimited6"
	SetPubSources4 Set = "pubsources4" // ipv4_addr(range) . inet_proto . ipv4_addr . inet_service: the sources
	SetPubSources6 Set = "pubsources6"
	SetAnySources4 Set = "anysources4" // ipv4_addr(range) . inet_proto . inet_service
	SetAnySources6 Set = "anysources6"
)

// Elem is one element: key and value as the kernel holds them, each part padded to four bytes. KeyEnd is set in range
// sets only.
type Elem struct {
	Set              Set
	Key, KeyEnd, Val string
}

// Rules is the content of all sets. An element's identity is its set and key.
type Rules map[Set]map[string]Elem

// Add puts elements in. An element that is there is replaced.
func (r Rules) Add(elems ...Elem) {
	for _, e := range elems {
		if r[e.Set] == nil {
			r[e.Set] = map[string]Elem{}
		}
		r[e.Set][e.Key+e.KeyEnd] = e
	}
}

// Remove takes elements out that are there with the same value.
func (r Rules) Remove(elems ...Elem) {
	for _, e := range elems {
		if r[e.Set][e.Key+e.KeyEnd] == e {
			delete(r[e.Set], e.Key+e.KeyEnd)
		}
	}
}

// All lists the elements, sorted.
func (r Rules) All() []Elem {
	var out []Elem
	for _, set := range r {
		for _, e := range set {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, compareElem)
	return out
}

func compareElem(a, b Elem) int {
	return cmp.Or(strings.Compare(string(a.Set), string(b.Set)), strings.Compare(a.Key, b.Key), strings.Compare(a.KeyEnd, b.KeyEnd))
}

// Diff says what to take out of have and what to put in to get want. A changed value is in both.
func Diff(have, want Rules) (del, add []Elem) {
	for set, elems := range have {
		for k, e := range elems {
			if w, ok := want[set][k]; !ok || w != e {
				del = append(del, e)
			}
		}
	}
	for set, elems := range want {
		for k, e := range elems {
			if h, ok := have[set][k]; !ok || h != e {
				add = append(add, e)
			}
		}
	}
	slices.SortFunc(del, compareElem)
	slices.SortFunc(add, compareElem)
	return del, add
}

// Name is an interface name as a key.
func Name(s string) string {
	var b [16]byte
	copy(b[:15], s)
	return string(b[:])
}

func proto(p model.Proto) string {
	n := byte(6)
	switch p {
	case model.UDP:
		n = 17
	case model.SCTP:
		n = 132
	}
	return string([]byte{n, 0, 0, 0})
}

func port(n uint16) string { return string([]byte{byte(n >> 8), byte(n), 0, 0}) }

func addr(a netip.Addr) string { return string(a.AsSlice()) }

// Access is how a network treats what comes and goes, as far as the packet filter knows it.
type Access struct {
	Bridge   string
	Internal bool
	ICC      bool // its containers may talk with each other
	V4, V6   FamilyAccess
}

// FamilyAccess is the part of one address family.
type FamilyAccess struct {
	Masq   bool       // leave with the host's address
	Snat   netip.Addr // or with this one
	Open   bool       // everybody may reach everything
	Routed bool       // published ports are reached at the containers' own addresses
}

// Elems is what the packet filter has of a network.
func (a Access) Elems() []Elem {
	name := Name(a.Bridge)
	out := []Elem{{Set: SetOwn, Key: name + name}}
	out = append(out, Elem{Set: SetBridges, Key: name})
	if a.ICC {
		out = append(out, Elem{Set: SetSame, Key: name + name})
	} else {
		out = append(out, Elem{Set: SetApart, Key: name})
	}
	if a.Internal {
		return append(out, Elem{Set: SetInternal, Key: name})
	}
	for _, f := range []struct {
		FamilyAccess
		snat, masq, open, routed Set
	}{{a.V4, MapSnat4, SetMasq4, SetOpen4, SetRouted4}, {a.V6, MapSnat6, SetMasq6, SetOpen6, SetRouted6}} {
		if f.Snat.IsValid() {
			out = append(out, Elem{Set: f.snat, Key: name, Val: addr(f.Snat)})
		} else if f.Masq {
			out = append(out, Elem{Set: f.masq, Key: name})
		}
		if f.Open {
			out = append(out, Elem{Set: f.open, Key: name})
		}
		if f.Routed {
			out = append(out, Elem{Set: f.routed, Key: name})
		}
	}
	return out
}

// Opening lets others call one port of a container at the container's own address.
type Opening struct {
	Proto   model.Proto
	Target  netip.Addr
	Port    uint16
	Sources []netip.Prefix // empty: everybody
	Link    string         // of the host, by which they must come in; empty: any
}

// Elems is what the packet filter has of an opening.
func (o Opening) Elems() (out []Elem) {
	set, sources, link := SetDirect4, o.Sources, ""
	switch {
	case o.Link != "" && o.Target.Is6():
		set, link = SetTrusted6, Name(o.Link)
	case o.Link != "":
		set, link = SetTrusted4, Name(o.Link)
	case o.Target.Is6():
		set = SetDirect6
	}
	if len(sources) == 0 {
		sources = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	}
	dest := proto(o.Proto) + addr(o.Target) + port(o.Port)
	for _, s := range disjoint(sources, o.Target.Is6()) {
		out = append(out, Elem{Set: set, Key: link + addr(s.Addr()) + dest, KeyEnd: link + addr(last(s)) + dest})
	}
	return out
}

// Forward sends one port of the host to one port of a container. HostIP and Target are of the same family; an
// unspecified HostIP means every address.
type Forward struct {
	Proto         model.Proto
	HostIP        netip.Addr
	HostPort      uint16
	Target        netip.Addr
	ContainerPort uint16
	Sources       []netip.Prefix // empty: everybody
}

// Elems is what the packet filter has of a forward.
func (f Forward) Elems() []Elem {
	sets := forwardSets[f.Target.Is6()][f.HostIP.IsUnspecified()]
	key := proto(f.Proto) + addr(f.HostIP) + port(f.HostPort)
	if f.HostIP.IsUnspecified() {
		key = proto(f.Proto) + port(f.HostPort)
	}
	out := []Elem{{Set: sets.to, Key: key, Val: addr(f.Target) + port(f.ContainerPort)}}
	if len(f.Sources) == 0 {
		return out
	}
	out = append(out, Elem{Set: sets.limited, Key: key})
	for _, s := range disjoint(f.Sources, f.Target.Is6()) {
		out = append(out, Elem{Set: sets.sources, Key: addr(s.Addr()) + key, KeyEnd: addr(last(s)) + key})
	}
	return out
}

type forwardSet struct{ to, limited, sources Set }

// forwardSets are the sets by family (IPv6) and by whether the port is published on all addresses.
var forwardSets = map[bool]map[bool]forwardSet{
	false: {false: {MapPub4, SetPubLimited4, SetPubSources4}, true: {MapAny4, SetAnyLimited4, SetAnySources4}},
	true:  {false: {MapPub6, SetPubLimited6, SetPubSources6}, true: {MapAny6, SetAnyLimited6, SetAnySources6}},
}

// disjoint gives the ranges of a family without those that lie in another: the kernel refuses ranges that overlap.
func disjoint(in []netip.Prefix, v6 bool) (out []netip.Prefix) {
	for _, p := range in {
		p = p.Masked()
		covered := p.Addr().Is6() != v6 || slices.Contains(out, p) ||
			slices.ContainsFunc(in, func(q netip.Prefix) bool { return q.Bits() < p.Bits() && q.Contains(p.Addr()) })
		if !covered {
			out = append(out, p)
		}
	}
	return out
}

// Mine leaves a container's calls of its own published port to the daemon's relay. It is needed where the kernel filters
// bridged packets too (br_netfilter): there the call would have to leave the bridge by the port it came in.
func (f Forward) Mine() Elem {
	set := SetMine4
	if f.Target.Is6() {
		set = SetMine6
	}
	return Elem{Set: set, Key: addr(f.Target) + proto(f.Proto) + port(f.HostPort)}
}

func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// MACFor derives a container's Ethernet address from its first IP address, as Docker long did: an address that comes
// back comes back with the same Ethernet address, so no neighbour's cache is ever wrong and nothing needs announcing.
func MACFor(a netip.Addr) model.MAC {
	b := a.AsSlice()
	m := model.MAC{0x02, 0x42}
	copy(m[2:], b[len(b)-4:])
	return m
}

// HostLink names a link's end on the host after its endpoint's ID; instance keeps two daemons' links apart. Together
// at most 15 bytes, the kernel's limit.
func HostLink(instance, endpointID string) string {
	return LinkPrefix(instance) + endpointID[:15-len(LinkPrefix(instance))]
}

// LinkPrefix is what the names of all links of an instance start with.
func LinkPrefix(instance string) string {
	if len(instance) > 4 {
		instance = instance[:4]
	}
	return "sv" + instance + "-"
}
