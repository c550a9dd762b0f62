package kernel

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/network/plan"
)

// OperatorChain is the chain that belongs to the host's operator: it sees all forwarded traffic first, and is made
// when missing but never flushed or changed.
const OperatorChain = "operator"

// setDefs are our sets and maps: their key's parts, their value's parts for maps, and whether keys are ranges.
var setDefs = []struct {
	name   plan.Set
	key    []nftables.SetDatatype
	val    []nftables.SetDatatype
	ranges bool
}{
	{plan.SetBridges, ifname1, nil, false},
	{plan.SetOpen4, ifname1, nil, false},
	{plan.SetOpen6, ifname1, nil, false},
	{plan.SetRouted4, ifname1, nil, false},
	{plan.SetRouted6, ifname1, nil, false},
	{plan.SetDirect4, append([]nftables.SetDatatype{nftables.TypeIPAddr}, socket4...), nil, true},
	{plan.SetDirect6, append([]nftables.SetDatatype{nftables.TypeIP6Addr}, socket6...), nil, true},
	{plan.SetTrusted4, append([]nftables.SetDatatype{nftables.TypeIFName, nftables.TypeIPAddr}, socket4...), nil, true},
	{plan.SetTrusted6, append([]nftables.SetDatatype{nftables.TypeIFName, nftables.TypeIP6Addr}, socket6...), nil, true},
	{plan.SetInternal, ifname1, nil, false},
	{plan.SetSame, ifname2, nil, false},
	{plan.SetOwn, ifname2, nil, false},
	{plan.SetApart, ifname1, nil, false},
	{plan.SetMasq4, ifname1, nil, false},
	{plan.SetMasq6, ifname1, nil, false},
	{plan.SetGuarded, ifname1, nil, false},
	{plan.MapSnat4, ifname1, []nftables.SetDatatype{nftables.TypeIPAddr}, false},
	{plan.MapSnat6, ifname1, []nftables.SetDatatype{nftables.TypeIP6Addr}, false},
	{plan.MapPub4, socket4, target4, false},
	{plan.MapPub6, socket6, target6, false},
	{plan.MapAny4, service, target4, false},
	{plan.MapAny6, service, target6, false},
	{plan.SetMine4, append([]nftables.SetDatatype{nftables.TypeIPAddr}, service...), nil, false},
	{plan.SetMine6, append([]nftables.SetDatatype{nftables.TypeIP6Addr}, service...), nil, false},
	{plan.SetPubLimited4, socket4, nil, false},
	{plan.SetPubLimited6, socket6, nil, false},
	{plan.SetAnyLimited4, service, nil, false},
	{plan.SetAnyLimited6, service, nil, false},
	{plan.SetPubSources4, append([]nftables.SetDatatype{nftables.TypeIPAddr}, socket4...), nil, true},
	{plan.SetPubSources6, append([]nftables.SetDatatype{nftables.TypeIP6Addr}, socket6...), nil, true},
	{plan.SetAnySources4, append([]nftables.SetDatatype{nftables.TypeIPAddr}, service...), nil, true},
	{plan.SetAnySources6, append([]nftables.SetDatatype{nftables.TypeIP6Addr}, service...), nil, true},
}

var (
	ifname1 = []nftables.SetDatatype{nftables.TypeIFName}
	ifname2 = []nftables.SetDatatype{nftables.TypeIFName, nftables.TypeIFName}
	service = []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}
	socket4 = []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeIPAddr, nftables.TypeInetService}
	socket6 = []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeIP6Addr, nftables.TypeInetService}
	target4 = []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeInetService}
	target6 = []nftables.SetDatatype{nftables.TypeIP6Addr, nftables.TypeInetService}
)

func concat(types []nftables.SetDatatype) nftables.SetDatatype {
	if len(types) == 1 {
		return types[0]
	}
	return nftables.MustConcatSetType(types...)
}

func makeSets(table *nftables.Table) map[plan.Set]*nftables.Set {
	sets := make(map[plan.Set]*nftables.Set, len(setDefs))
	for _, d := range setDefs {
		s := &nftables.Set{Table: table, Name: string(d.name), KeyType: concat(d.key), Interval: d.ranges,
			Concatenation: len(d.key) > 1, KeyByteOrder: binaryutil.BigEndian}
		if d.val != nil {
			s.IsMap, s.DataType = true, concat(d.val)
		}
		if len(d.key) == 1 { // a bare interface name is a host-order string to the nft program, which lists it
			s.KeyByteOrder = binaryutil.NativeEndian
		}
		sets[d.name] = s
	}
	return sets
}

// Registers: a key's parts are loaded into 32-bit registers one after the other, from the first on.
const reg0 = unix.NFT_REG32_00

// part loads one part of a key; words is its length in registers.
type part struct {
	load  func(reg uint32) expr.Any
	words uint32
}

func meta(key expr.MetaKey, words uint32) part {
	return part{func(r uint32) expr.Any { return &expr.Meta{Key: key, Register: r} }, words}
}

func payload(base expr.PayloadBase, off, length uint32) part {
	return part{func(r uint32) expr.Any {
		return &expr.Payload{OperationType: expr.PayloadLoad, DestRegister: r, Base: base, Offset: off, Len: length}
	}, (length + 3) / 4}
}

var (
	iif     = meta(expr.MetaKeyIIFNAME, 4)
	oif     = meta(expr.MetaKeyOIFNAME, 4)
	l4proto = meta(expr.MetaKeyL4PROTO, 1)
	src4    = payload(expr.PayloadBaseNetworkHeader, 12, 4)
	dst4    = payload(expr.PayloadBaseNetworkHeader, 16, 4)
	src6    = payload(expr.PayloadBaseNetworkHeader, 8, 16)
	dst6    = payload(expr.PayloadBaseNetworkHeader, 24, 16)
	dport   = payload(expr.PayloadBaseTransportHeader, 2, 2)
)

// match is a growing rule.
type match []expr.Any

func rule() match { return nil }

func (m match) add(e ...expr.Any) match { return append(m, e...) }

func (m match) key(parts []part) match {
	reg := uint32(reg0)
	for _, p := range parts {
		m = append(m, p.load(reg))
		reg += p.words
	}
	return m
}

func (m match) in(set plan.Set, parts ...part) match {
	return m.key(parts).add(&expr.Lookup{SourceRegister: reg0, SetName: string(set)})
}

func (m match) notIn(set plan.Set, parts ...part) match {
	return m.key(parts).add(&expr.Lookup{SourceRegister: reg0, SetName: string(set), Invert: true})
}

// look replaces the key in the registers by the map's value.
func (m match) look(set plan.Set, parts ...part) match {
	return m.key(parts).add(&expr.Lookup{SourceRegister: reg0, DestRegister: reg0, IsDestRegSet: true, SetName: string(set)})
}

func (m match) family(nfproto byte) match {
	return m.add(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg0},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{nfproto}})
}

func (m match) protocol(p byte) match {
	return m.add(l4proto.load(reg0), &expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{p}})
}

// loopback4 matches an address of 127.0.0.0/8.
func (m match) loopback4(p part) match {
	return m.add(p.load(reg0),
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 4, Mask: []byte{255, 0, 0, 0}, Xor: []byte{0, 0, 0, 0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{127, 0, 0, 0}})
}

// local matches what is addressed to the host itself.
func (m match) local() match {
	return m.add(&expr.Fib{Register: reg0, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)})
}

func (m match) ct(key expr.CtKey, mask uint32) match {
	return m.add(&expr.Ct{Key: key, Register: reg0},
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: []byte{0, 0, 0, 0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: []byte{0, 0, 0, 0}})
}

const ctStatusDNAT = 1 << 5 // IPS_DST_NAT

func (m match) dnatted() match { return m.ct(expr.CtKeySTATUS, ctStatusDNAT) }

func (m match) accept() match { return m.add(&expr.Verdict{Kind: expr.VerdictAccept}) }
func (m match) drop() match   { return m.add(&expr.Verdict{Kind: expr.VerdictDrop}) }
func (m match) jump(c string) match {
	return m.add(&expr.Verdict{Kind: expr.VerdictJump, Chain: c})
}
func (m match) masquerade() match { return m.add(&expr.Masq{}) }

func (m match) dnat4() match {
	return m.add(&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg0, RegProtoMin: reg0 + 1})
}

func (m match) dnat6() match {
	return m.add(&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV6, RegAddrMin: reg0, RegProtoMin: reg0 + 4})
}

func (m match) snat(family uint32) match {
	return m.add(&expr.NAT{Type: expr.NATTypeSourceNAT, Family: family, RegAddrMin: reg0})
}

const v4, v6 = unix.NFPROTO_IPV4, unix.NFPROTO_IPV6

// chainDef is one of our chains with its rules; hook is nil for one that others jump to.
type chainDef struct {
	name  string
	typ   nftables.ChainType
	hook  *nftables.ChainHook
	prio  nftables.ChainPriority
	rules []match
}

// chains is the whole program of our table. It never changes while the daemon runs; what changes is the sets. So the
// cost of one packet and of one change does not depend on how many containers and ports there are.
func chains() []chainDef {
	return []chainDef{
		{name: OperatorChain},
		{name: "publish", rules: []match{ // what is published on one address comes before what is published on all
			rule().family(v4).look(plan.MapPub4, l4proto, dst4, dport).dnat4(),
			rule().family(v6).look(plan.MapPub6, l4proto, dst6, dport).dnat6(),
			rule().family(v4).look(plan.MapAny4, l4proto, dport).dnat4(),
			rule().family(v6).look(plan.MapAny6, l4proto, dport).dnat6(),
		}},
		// What is published for some sources only. It is judged by the host's address and port that the client called, so
		// that one port of a container can be published to everybody and to few. The host itself may always.
		{name: "limits", rules: []match{
			rule().family(v4).in(plan.SetPubLimited4, l4proto, dst4, dport).notIn(plan.SetPubSources4, src4, l4proto, dst4, dport).drop(),
			rule().family(v6).in(plan.SetPubLimited6, l4proto, dst6, dport).notIn(plan.SetPubSources6, src6, l4proto, dst6, dport).drop(),
			rule().family(v4).in(plan.SetAnyLimited4, l4proto, dport).notIn(plan.SetAnySources4, src4, l4proto, dport).drop(),
			rule().family(v6).in(plan.SetAnyLimited6, l4proto, dport).notIn(plan.SetAnySources6, src6, l4proto, dport).drop(),
		}},
		{name: "early", typ: nftables.ChainTypeFilter, hook: nftables.ChainHookPrerouting, prio: *nftables.ChainPriorityRaw, rules: []match{
			// Bridges may route to the loopback, for published ports; a container may not use that.
			rule().family(v4).loopback4(dst4).in(plan.SetBridges, iif).drop(),
		}},
		{name: "prerouting", typ: nftables.ChainTypeNAT, hook: nftables.ChainHookPrerouting, prio: *nftables.ChainPriorityNATDest, rules: []match{
			rule().in(plan.SetInternal, iif).accept(),
			rule().local().jump("limits"),
			rule().in(plan.SetApart, iif).accept(),
			rule().family(v4).in(plan.SetMine4, src4, l4proto, dport).accept(),
			rule().family(v6).in(plan.SetMine6, src6, l4proto, dport).accept(),
			rule().local().jump("publish"),
		}},
		{name: "output", typ: nftables.ChainTypeNAT, hook: nftables.ChainHookOutput, prio: *nftables.ChainPriorityNATDest, rules: []match{
			rule().family(v4).local().jump("publish"),
			// The kernel lets nothing leave with the source ::1: those connections reach our held socket instead.
			rule().family(v6).add(dst6.load(reg0), &expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: loopback6[:]}).local().jump("publish"),
		}},
		{name: "forward", typ: nftables.ChainTypeFilter, hook: nftables.ChainHookForward, prio: *nftables.ChainPriorityFilter, rules: []match{
			rule().jump(OperatorChain),
			rule().ct(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED).accept(),
			rule().in(plan.SetSame, iif, oif).accept(),
			rule().in(plan.SetInternal, iif).drop(),
			rule().in(plan.SetInternal, oif).drop(),
			rule().dnatted().in(plan.SetBridges, oif).accept(), // a connection that publish sent to a container
			rule().family(v4).in(plan.SetOpen4, oif).accept(),
			rule().family(v6).in(plan.SetOpen6, oif).accept(),
			rule().family(v4).in(plan.SetDirect4, src4, l4proto, dst4, dport).in(plan.SetBridges, oif).accept(),
			rule().family(v6).in(plan.SetDirect6, src6, l4proto, dst6, dport).in(plan.SetBridges, oif).accept(),
			rule().family(v4).in(plan.SetTrusted4, iif, src4, l4proto, dst4, dport).in(plan.SetBridges, oif).accept(),
			rule().family(v6).in(plan.SetTrusted6, iif, src6, l4proto, dst6, dport).in(plan.SetBridges, oif).accept(),
			rule().family(v4).protocol(unix.IPPROTO_ICMP).in(plan.SetRouted4, oif).accept(), // who is routed to answers a ping
			rule().family(v6).protocol(unix.IPPROTO_ICMPV6).in(plan.SetRouted6, oif).accept(),
			rule().in(plan.SetBridges, oif).drop(), // from another network or from outside, and not published
			rule().in(plan.SetBridges, iif).accept(),
			rule().in(plan.SetGuarded, iif).in(plan.SetGuarded, oif).drop(),
		}},
		{name: "postrouting", typ: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting, prio: *nftables.ChainPriorityNATSource, rules: []match{
			rule().family(v4).loopback4(src4).in(plan.SetBridges, oif).masquerade(),
			// A container that calls a published port of its own network: the answer must come back through us.
			rule().in(plan.SetOwn, iif, oif).dnatted().masquerade(),
			rule().in(plan.SetOwn, iif, oif).accept(),
			rule().family(v4).look(plan.MapSnat4, iif).snat(v4),
			rule().family(v6).look(plan.MapSnat6, iif).snat(v6),
			rule().family(v4).in(plan.SetMasq4, iif).masquerade(),
			rule().family(v6).in(plan.SetMasq6, iif).masquerade(),
		}},
	}
}

var loopback6 = [16]byte{15: 1}
