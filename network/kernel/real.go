package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/network/plan"
)

// Real acts on the kernel, in the network namespace of the process. All methods may be called from many goroutines.
type Real struct {
	host  *rtnl
	nft   *nft
	owner string // alias of the bridges we made, so that they are found again

	sysctls *sysctlWatch

	mu       sync.Mutex
	bridgeIx map[string]int32 // index of bridges we ensured
}

// OwnerMark begins the alias of each bridge that a daemon made; the daemon's identity follows.
const OwnerMark = "shoal:"

// Open prepares the hand. table is the name of our packet filter table; owner marks what we make on the host.
func Open(table, owner string) (*Real, error) {
	c, err := dialRTNL()
	if err != nil {
		return nil, err
	}
	return &Real{host: c, nft: newNFT(table), owner: OwnerMark + owner, bridgeIx: map[string]int32{}, sysctls: newSysctlWatch()}, nil
}

// Close lets go of the kernel; what was made stays.
func (k *Real) Close() error {
	k.host.close()
	k.sysctls.close()
	return nil
}

// EnsureBridge makes a bridge or repairs it to be as planned. The result says whether anything had to be changed.
func (k *Real) EnsureBridge(b plan.Bridge) (changed bool, err error) {
	link, err := netlink.LinkByName(b.Name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		if link, err = k.createBridge(b); err != nil {
			return false, err
		}
		changed = true
	case err != nil:
		return false, fmt.Errorf("look for bridge %s: %w", b.Name, err)
	case link.Type() != "bridge":
		return false, errs.New(errs.Conflict, "interface %s is there but is a %s, not a bridge; choose another name for the network's bridge, or remove the interface", b.Name, link.Type())
	}
	if link.Attrs().Alias == "" && link.Attrs().HardwareAddr.String() == b.MAC.String() {
		// Made by us, and we died before it was marked: nobody else gives it the address that follows from the network's ID.
		if err := netlink.LinkSetAlias(link, k.owner); err != nil {
			return changed, fmt.Errorf("mark bridge %s: %w", b.Name, err)
		}
		link.Attrs().Alias = k.owner
	}
	if alias := link.Attrs().Alias; strings.HasPrefix(alias, OwnerMark) && alias != k.owner {
		return false, errs.New(errs.Conflict, "bridge %s belongs to another Shoal daemon of this host; give each daemon a bridge of its own (--bridge), or, if that daemon is gone for good, remove its bridge: ip link delete %s", b.Name, b.Name)
	}
	index := int32(link.Attrs().Index)
	k.mu.Lock()
	k.bridgeIx[b.Name] = index
	k.mu.Unlock()
	foreign := !changed && link.Attrs().Alias != k.owner // the host's owner made it: its MTU and other addresses are not ours to change
	switched, err := k.bridgeSwitches(b, index, foreign)
	if changed = changed || switched; err != nil {
		return changed, err
	}
	if at := link.Attrs(); !foreign && at.MTU != b.MTU && b.MTU > 0 {
		if err := netlink.LinkSetMTU(link, b.MTU); err != nil {
			return changed, fmt.Errorf("set the MTU of bridge %s to %d: %w", b.Name, b.MTU, err)
		}
		changed = true
	}
	again, err := k.bridgeAddresses(link, b, foreign)
	if err != nil {
		return changed, err
	}
	changed = changed || again
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(link); err != nil {
			return changed, fmt.Errorf("bring bridge %s up: %w", b.Name, err)
		}
		changed = true
	}
	again, err = bridgeRoutes(link, b)
	return changed || again, err
}

// bridgeSwitches sets what the kernel decides by sysctls of the bridge.
func (k *Real) bridgeSwitches(b plan.Bridge, index int32, foreign bool) (changed bool, err error) {
	var keys []string
	if b.RouteLocalnet {
		keys = append(keys, routeLocalnet(b.Name))
	}
	if b.Forward && !foreign {
		keys = append(keys, "net/ipv4/conf/"+b.Name+"/forwarding")
	}
	for _, key := range keys {
		if getSysctl(key) == "1" {
			continue
		}
		if err := setSysctl(key, "1"); err != nil {
			return changed, err
		}
		changed = true
	}
	if b.RouteLocalnet {
		k.sysctls.keep(b.Name, index)
	}
	return changed, nil
}

// bridgeRoutes puts the routes to the bridge's subnets back, which come with its addresses but can be taken away alone.
func bridgeRoutes(link netlink.Link, b plan.Bridge) (changed bool, err error) {
	index := link.Attrs().Index
	have, err := whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: index, Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return false, fmt.Errorf("routes of bridge %s: %w", b.Name, err)
	}
	for _, a := range b.Addresses {
		if a.IsSingleIP() || slices.ContainsFunc(have, func(r netlink.Route) bool { return prefixOf(r.Dst) == a.Masked() }) {
			continue
		}
		if err := netlink.RouteReplace(connected(index, a)); err != nil {
			return changed, fmt.Errorf("route to %s by bridge %s: %w", a.Masked(), b.Name, err)
		}
		changed = true
	}
	return changed, nil
}

// connected is the route that comes with a link's address.
func connected(index int, a netip.Prefix) *netlink.Route {
	r := &netlink.Route{LinkIndex: index, Dst: ipnet(a.Masked()), Protocol: unix.RTPROT_KERNEL}
	if a.Addr().Is4() {
		r.Scope, r.Src = netlink.SCOPE_LINK, a.Addr().AsSlice()
	} else {
		r.Priority = 256 // as the kernel's own
	}
	return r
}

func (k *Real) createBridge(b plan.Bridge) (netlink.Link, error) {
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: b.Name, HardwareAddr: b.MAC[:], TxQLen: -1}}
	if err := netlink.LinkAdd(br); err != nil && !errors.Is(err, unix.EEXIST) { // an audit may have come first
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil, errs.New(errs.Unsupported, "make bridge %s: the kernel has no bridges; load the module bridge", b.Name)
		}
		return nil, fmt.Errorf("make bridge %s: %w", b.Name, err)
	}
	link, err := netlink.LinkByName(b.Name)
	if err == nil {
		err = netlink.LinkSetAlias(link, k.owner)
	}
	if err != nil {
		return nil, fmt.Errorf("find bridge %s just made: %w", b.Name, err)
	}
	return link, nil
}

// BridgeFacts is what is there under the name of a bridge.
type BridgeFacts struct {
	There     bool
	Foreign   bool // there, and not made by us
	Addresses []netip.Prefix
	MTU       int
}

// Bridge says what is there under a name.
func (k *Real) Bridge(name string) (BridgeFacts, error) {
	link, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return BridgeFacts{}, nil
	}
	if err != nil {
		return BridgeFacts{}, fmt.Errorf("look for bridge %s: %w", name, err)
	}
	f := BridgeFacts{There: true, MTU: link.Attrs().MTU, Foreign: link.Attrs().Alias != k.owner}
	addrs, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	for _, a := range addrs {
		f.Addresses = append(f.Addresses, prefixOf(a.IPNet))
	}
	return f, err
}

// bridgeAddresses gives the bridge its gateways' addresses and, unless it is foreign, takes away others that are global,
// such as those of a range it had before.
func (k *Real) bridgeAddresses(link netlink.Link, b plan.Bridge, foreign bool) (changed bool, err error) {
	disable := "1"
	if b.IPv6 {
		disable = "0"
	}
	if v := getSysctl("net/ipv6/conf/" + b.Name + "/disable_ipv6"); v != "" && v != disable && (b.IPv6 || !foreign) {
		if err := setSysctl("net/ipv6/conf/"+b.Name+"/disable_ipv6", disable); err != nil {
			return false, err
		}
	}
	if b.IPv6 && !foreign {
		setSysctl("net/ipv6/conf/"+b.Name+"/accept_ra", "0")
	}
	have, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return false, fmt.Errorf("addresses of bridge %s: %w", b.Name, err)
	}
	missing := map[netip.Prefix]bool{}
	for _, p := range b.Addresses {
		missing[p] = true
	}
	for _, a := range have {
		p := prefixOf(a.IPNet)
		if missing[p] {
			delete(missing, p)
		} else if !foreign && a.Scope == unix.RT_SCOPE_UNIVERSE && !p.Addr().IsLinkLocalUnicast() {
			if err := netlink.AddrDel(link, &a); err != nil {
				return changed, fmt.Errorf("remove address %s of bridge %s: %w", p, b.Name, err)
			}
			changed = true
		}
	}
	for p := range missing {
		a := &netlink.Addr{IPNet: ipnet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrReplace(link, a); err != nil {
			return changed, fmt.Errorf("give bridge %s the address %s: %w", b.Name, p, err)
		}
		changed = true
	}
	return changed, nil
}

// Rules gives the content of our packet filter table, and whether its program is whole.
func (k *Real) Rules() (plan.Rules, bool, error) { return k.nft.read() }

// ApplyRules takes elements out of our table and puts elements in, in one transaction; ErrRulesGone when the table is
// not as expected.
func (k *Real) ApplyRules(del, add []plan.Elem) error { return k.nft.apply(del, add) }

// RebuildRules writes the whole table in one transaction.
func (k *Real) RebuildRules(elems []plan.Elem) error { return k.nft.rebuild(elems) }

// RemoveRules removes the table.
func (k *Real) RemoveRules() error { return k.nft.remove() }

// Uplink is what the host's way out looks like.
type Uplink struct {
	MTU       int            // of the default route's link; 1500 without one
	Taken     []netip.Prefix // every range that the host has an address in or a route to, but for the default
	Connected []netip.Prefix // ranges that the host has an address in
	Physical  []string       // links that are neither virtual nor the loopback
	BridgeNF  bool           // bridged packets pass the packet filter too
	Address4  netip.Addr     // the host's own address on its default route's link
	Address6  netip.Addr
}

// Uplink looks at the host's routes, addresses and links; skip names links whose ranges do not count.
func (k *Real) Uplink(skip func(link string) bool) (Uplink, error) {
	u := Uplink{MTU: 1500, BridgeNF: getSysctl("net/bridge/bridge-nf-call-iptables") == "1"}
	links, err := whole(netlink.LinkList)
	if err != nil {
		return u, fmt.Errorf("list the host's links: %w", err)
	}
	byIndex := map[int]netlink.Link{}
	for _, l := range links {
		byIndex[l.Attrs().Index] = l
		if _, err := os.Stat("/sys/class/net/" + l.Attrs().Name + "/device"); err == nil {
			u.Physical = append(u.Physical, l.Attrs().Name)
		}
	}
	routes, err := whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return u, fmt.Errorf("list the host's routes: %w", err)
	}
	defaultLink := 0
	for _, r := range routes {
		l := byIndex[r.LinkIndex]
		if r.Table == unix.RT_TABLE_LOCAL || l != nil && skip != nil && skip(l.Attrs().Name) {
			continue
		}
		if p := prefixOf(r.Dst); p.IsValid() && p.Bits() > 0 {
			if !p.Addr().IsLinkLocalUnicast() && !p.Addr().IsMulticast() {
				u.Taken = append(u.Taken, p)
			}
		} else if l != nil && r.Table == unix.RT_TABLE_MAIN && defaultLink == 0 {
			defaultLink = r.LinkIndex
			u.MTU = l.Attrs().MTU
			if r.MTU > 0 {
				u.MTU = r.MTU
			}
		}
	}
	addrs, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return u, fmt.Errorf("list the host's addresses: %w", err)
	}
	for _, a := range addrs {
		l, p := byIndex[a.LinkIndex], prefixOf(a.IPNet)
		if l == nil || !p.IsValid() || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() || skip != nil && skip(l.Attrs().Name) {
			continue
		}
		u.Taken = append(u.Taken, p.Masked())
		u.Connected = append(u.Connected, p.Masked())
		if a.LinkIndex == defaultLink {
			if p.Addr().Is4() && !u.Address4.IsValid() {
				u.Address4 = p.Addr()
			} else if p.Addr().Is6() && !u.Address6.IsValid() {
				u.Address6 = p.Addr()
			}
		}
	}
	return u, nil
}

// EnableForwarding lets the host pass packets on for a family; enabled says that it did not before.
func (k *Real) EnableForwarding(v6 bool) (enabled bool, err error) {
	if !v6 {
		if getSysctl("net/ipv4/ip_forward") == "1" {
			return false, nil
		}
		return true, setSysctl("net/ipv4/ip_forward", "1")
	}
	if getSysctl("net/ipv6/conf/all/forwarding") == "1" {
		return false, nil
	}
	// A forwarding host ignores router advertisements unless told otherwise, and would lose its own default route.
	names, _ := os.ReadDir("/proc/sys/net/ipv6/conf")
	for _, n := range names {
		if p := "net/ipv6/conf/" + n.Name() + "/accept_ra"; n.Name() != "all" && n.Name() != "lo" && getSysctl(p) == "1" {
			setSysctl(p, "2")
		}
	}
	return true, setSysctl("net/ipv6/conf/all/forwarding", "1")
}

// DisableForwarding keeps the host from passing IPv4 packets on.
func (k *Real) DisableForwarding() error { return setSysctl("net/ipv4/ip_forward", "0") }

// whole repeats a listing that the kernel says was changed by others while it was read. After some tries it is taken as
// it is: on a host where links come and go all the time that is the best there is.
func whole[T any](list func() ([]T, error)) ([]T, error) {
	for try := 0; ; try++ {
		got, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return got, err
		}
		if try == 20 {
			return got, nil
		}
	}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones)
}

func ipnet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
