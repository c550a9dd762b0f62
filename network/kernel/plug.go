package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/network/plan"
)

const vethInfoPeer = 1 // VETH_INFO_PEER

// Plug makes a container's link: a pair whose one end is in the bridge and whose other is in the namespace, with its
// addresses and routes. Nothing is left behind when it fails.
func (k *Real) Plug(p plan.Plug, ns *os.File) error {
	if p.Direct.Kind != "" {
		return k.plugDirect(p, ns)
	}
	k.mu.Lock()
	bridge := k.bridgeIx[p.Bridge]
	k.mu.Unlock()
	if bridge == 0 {
		return errs.New(errs.Internal, "bridge %s was not prepared", p.Bridge)
	}
	pair := linkBody(0, 0, 0).str(unix.IFLA_IFNAME, p.Host).u32(unix.IFLA_MTU, uint32(p.MTU))
	oneQueue(pair)
	pair.nest(unix.IFLA_LINKINFO, func(b *body) {
		b.attr(unix.IFLA_INFO_KIND, []byte("veth"))
		b.nest(unix.IFLA_INFO_DATA, func(b *body) {
			b.nest(vethInfoPeer, func(b *body) {
				b.ifinfo(0, 0, 0)
				b.str(unix.IFLA_IFNAME, p.Inside).u32(unix.IFLA_MTU, uint32(p.MTU)).attr(unix.IFLA_ADDRESS, p.MAC[:])
				b.u32(unix.IFLA_NET_NS_FD, uint32(ns.Fd()))
				oneQueue(b)
			})
		})
	})
	err := k.host.do(request{what: "make link " + p.Host, typ: unix.RTM_NEWLINK, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, body: pair.b})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return errs.New(errs.Unsupported, "%w; the kernel has no virtual Ethernet pairs: load the module veth", err)
	}
	if err != nil {
		return err
	}
	if err = k.plugHost(p, bridge, false); err == nil {
		err = In(ns, func() error { return setupInside(p) })
	}
	if err == nil {
		err = k.host.do(settled(p.Host), settled(p.Bridge))
	}
	if err != nil {
		k.RemoveLink(p.Host)
		return err
	}
	k.introduce(p, bridge)
	return nil
}

// settled asks for a link's state. The kernel's link watch otherwise lets a link that came up carry packets only some
// time later, up to a second on a busy machine, and drops them until then; answering this request it does that at once
// (linkwatch_sync_dev in rtnl_getlink). A container's first packet depends on it.
func settled(name string) request {
	return request{what: "state of " + name, typ: unix.RTM_GETLINK, body: linkBody(0, 0, 0).str(unix.IFLA_IFNAME, name).b}
}

// Replug puts a link that is there back into its bridge, with its MTU and flags, and lets both carry packets.
func (k *Real) Replug(p plan.Plug) error {
	k.mu.Lock()
	bridge := k.bridgeIx[p.Bridge]
	k.mu.Unlock()
	err := k.plugHost(p, bridge, true)
	if err == nil {
		err = k.host.do(settled(p.Host), settled(p.Bridge))
	}
	k.introduce(p, bridge)
	return err
}

// introduce tells the host the container's Ethernet address. Who called the container while it was not there would else
// wait up to a second for the kernel's next question. It is a help only: errors, such as a full table, do not matter.
func (k *Real) introduce(p plan.Plug, bridge int32) {
	var reqs []request
	for _, a := range p.Addresses {
		b := &body{[]byte{unix.AF_INET, 0, 0, 0}}
		if a.Addr().Is6() {
			b.b[0] = unix.AF_INET6
		}
		b.b = native.AppendUint32(b.b, uint32(bridge))
		b.b = native.AppendUint16(b.b, unix.NUD_STALE)
		b.b = append(b.b, 0, unix.RTN_UNICAST)
		b.attr(unix.NDA_DST, a.Addr().AsSlice()).attr(unix.NDA_LLADDR, p.MAC[:])
		reqs = append(reqs, request{what: "introduce the neighbour " + a.Addr().String(), typ: unix.RTM_NEWNEIGH,
			flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE, body: b.b})
	}
	if len(reqs) > 0 {
		k.host.do(reqs...)
	}
}

// oneQueue keeps a link small: the kernel would else make a queue for every processor.
func oneQueue(b *body) { b.u32(unix.IFLA_NUM_TX_QUEUES, 1).u32(unix.IFLA_NUM_RX_QUEUES, 1) }

// plugHost sets up the host's end: of a link just made, or again, whatever became of it.
func (k *Real) plugHost(p plan.Plug, bridge int32, again bool) error {
	setSysctl("net/ipv6/conf/"+p.Host+"/disable_ipv6", "1") // a bridge's port needs no address; absent without IPv6
	put := linkBody(0, unix.IFF_UP, unix.IFF_UP).str(unix.IFLA_IFNAME, p.Host).u32(unix.IFLA_MASTER, uint32(bridge))
	if again && p.MTU > 0 {
		put.u32(unix.IFLA_MTU, uint32(p.MTU))
	}
	if err := k.host.do(request{what: fmt.Sprintf("put link %s into bridge %s", p.Host, p.Bridge), typ: unix.RTM_NEWLINK, body: put.b}); err != nil {
		if errors.Is(err, unix.EXFULL) {
			return errs.New(errs.Exhausted, "%w: a bridge of the kernel has 1,023 ports at most; put some of the containers on another network", err)
		}
		return err
	}
	if !p.Isolated && !again {
		return nil
	}
	index, err := ifindex(k.host.fd, p.Host)
	if err != nil {
		return err
	}
	b := &body{[]byte{unix.AF_BRIDGE, 0, 0, 0}}
	b.b = native.AppendUint32(b.b, uint32(index))
	b.b = append(b.b, 0, 0, 0, 0, 0, 0, 0, 0)
	b.nest(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, func(b *body) { b.u8(unix.IFLA_BRPORT_ISOLATED, map[bool]uint8{true: 1}[p.Isolated]) })
	return k.host.do(request{what: "set the isolation of link " + p.Host, typ: unix.RTM_SETLINK, body: b.b})
}

// setupInside runs in the container's namespace.
func setupInside(p plan.Plug) error {
	c, err := dialRTNL()
	if err != nil {
		return err
	}
	defer c.close()
	index, err := ifindex(c.fd, p.Inside)
	if err != nil {
		return err
	}
	for _, a := range p.Addresses {
		if a.Addr().Is6() {
			if err := setSysctl("net/ipv6/conf/"+p.Inside+"/disable_ipv6", "0"); err != nil {
				return errs.Wrap(err, "IPv6 address %s", a)
			}
			setSysctl("net/ipv6/conf/"+p.Inside+"/accept_ra", "0")
			break
		}
	}
	if p.Direct.Kind != "" {
		// The kernel tells the neighbours when the link comes up: they may remember who had the address before, on another machine
		// or by the other kind of link. An old kernel without it is no reason not to start.
		_ = setSysctl("net/ipv4/conf/"+p.Inside+"/arp_notify", "1")
	}
	for _, s := range p.Sysctls {
		key, value, _ := strings.Cut(s, "=")
		parts := strings.Split(key, ".")
		for i, part := range parts {
			if strings.EqualFold(part, "IFNAME") { // Docker's command line makes it lower case
				parts[i] = p.Inside
			}
		}
		path := strings.Join(parts, "/")
		if !strings.HasPrefix(path, "net/") || strings.Contains(path, "..") {
			return errs.New(errs.Invalid, "endpoint sysctl %q: want net.X.Y.IFNAME.Z=value", s)
		}
		if err := setSysctl(path, value); err != nil {
			return errs.New(errs.Invalid, "endpoint sysctl %q: %w", s, err)
		}
	}
	var reqs []request
	for _, a := range p.Addresses {
		reqs = append(reqs, addressRequest(index, a))
	}
	reqs = append(reqs, request{what: "bring up " + p.Inside, typ: unix.RTM_NEWLINK, body: linkBody(index, unix.IFF_UP, unix.IFF_UP).b}, settled(p.Inside))
	for _, gw := range p.Gateways {
		reqs = append(reqs, defaultRoute(unix.RTM_NEWROUTE, index, gw, p.Direct.Routed()))
	}
	return c.do(reqs...)
}

func addressRequest(index int32, a netip.Prefix) request {
	family, flags, ip := byte(unix.AF_INET), byte(0), a.Addr().AsSlice()
	if a.Addr().Is6() {
		family, flags = unix.AF_INET6, unix.IFA_F_NODAD // we know who has which address
	}
	b := &body{[]byte{family, byte(a.Bits()), flags, unix.RT_SCOPE_UNIVERSE}}
	b.b = native.AppendUint32(b.b, uint32(index))
	b.attr(unix.IFA_LOCAL, ip).attr(unix.IFA_ADDRESS, ip)
	if a.Addr().Is4() && a.Bits() < 31 {
		brd := a.Masked().Addr().As4()
		host := ^uint32(0) >> a.Bits()
		for i := range brd {
			brd[i] |= byte(host >> (24 - 8*i))
		}
		b.attr(unix.IFA_BROADCAST, brd[:])
	}
	return request{what: "give the container address " + a.String(), typ: unix.RTM_NEWADDR,
		flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, tolerate: unix.EEXIST, body: b.b}
}

// defaultRoute adds (RTM_NEWROUTE, replacing another) or removes the default route through gw, or of its family by the
// link alone.
func defaultRoute(typ uint16, index int32, gw netip.Addr, byLink bool) request {
	family := byte(unix.AF_INET)
	if gw.Is6() {
		family = unix.AF_INET6
	}
	b := &body{[]byte{family, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0}}
	if byLink {
		b.b[6] = unix.RT_SCOPE_LINK
	} else {
		b.attr(unix.RTA_GATEWAY, gw.AsSlice())
	}
	b.u32(unix.RTA_OIF, uint32(index))
	r := request{what: "default route through " + gw.String(), typ: typ, body: b.b}
	if typ == unix.RTM_NEWROUTE {
		r.flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	} else {
		r.tolerate = unix.ESRCH
	}
	return r
}

// SetGateways makes gateways the default routes of a running container, through the named inner interface.
func (k *Real) SetGateways(ns *os.File, inside string, gateways []netip.Addr) error {
	return In(ns, func() error {
		c, err := dialRTNL()
		if err != nil {
			return err
		}
		defer c.close()
		index, err := ifindex(c.fd, inside)
		if err != nil {
			return err
		}
		var reqs []request
		for _, gw := range gateways {
			reqs = append(reqs, defaultRoute(unix.RTM_NEWROUTE, index, gw, false))
		}
		if len(reqs) == 0 {
			return nil
		}
		return c.do(reqs...)
	})
}
