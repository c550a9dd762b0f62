package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/network/plan"
)

// WatchInside calls hit after an address or a route was taken away in other network namespaces, which it names by the
// numbers of NamespaceID. One socket on the host hears of all of them, and the kernel passes it nothing else: what happens
// in a namespace while a container starts wakes nobody.
func (k *Real) WatchInside(hit func(ids map[int32]bool)) (*Monitor, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch the containers' networks: %w", err)
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20)
	if err = onlyRemovals(fd); err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	for _, g := range []int{unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE} {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g)
		}
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch the containers' networks: %w", err)
	}
	m := &Monitor{f: os.NewFile(uintptr(fd), "netlink events of containers"), done: make(chan struct{})}
	go m.runInside(hit)
	return m, nil
}

// onlyRemovals lets a socket receive messages of the two kinds only.
func onlyRemovals(fd int) error {
	typ := func(t uint16) uint32 { // as the filter loads it: a number in network order, of the machine's own order
		return uint32(binary.BigEndian.Uint16(native.AppendUint16(nil, t)))
	}
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 4},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: typ(unix.RTM_DELADDR)},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: typ(unix.RTM_DELROUTE)},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
		{Code: unix.BPF_RET | unix.BPF_K},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]})
}

func (m *Monitor) runInside(hit func(map[int32]bool)) {
	defer close(m.done)
	raw, err := m.f.SyscallConn()
	if err != nil {
		return
	}
	buf, oob := make([]byte, 16<<10), make([]byte, 128)
	for {
		ids := map[int32]bool{}
		for { // what comes together is one look
			var n int
			var rerr error
			err := raw.Read(func(fd uintptr) bool {
				_, n, _, _, rerr = unix.Recvmsg(int(fd), buf, oob, 0)
				return rerr != unix.EAGAIN
			})
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return
			}
			if id, ok := sender(oob[:n]); rerr == nil && ok {
				ids[id] = true
			}
			if len(ids) == 1 {
				m.f.SetReadDeadline(time.Now().Add(settle))
			}
		}
		m.f.SetReadDeadline(time.Time{})
		hit(ids)
	}
}

// sender is the namespace that a message is of; none for the socket's own.
func sender(oob []byte) (id int32, ok bool) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, false
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_NETLINK && m.Header.Type == unix.NETLINK_LISTEN_ALL_NSID && len(m.Data) >= 4 {
			return int32(native.Uint32(m.Data)), true
		}
	}
	return 0, false
}

// NamespaceID is the number by which this namespace knows another; -1: it does not.
func (k *Real) NamespaceID(ns *os.File) (int32, error) {
	const attrNSID, attrFD = 1, 3 // NETNSA_NSID, NETNSA_FD
	req := nl.NewNetlinkRequest(unix.RTM_GETNSID, unix.NLM_F_REQUEST)
	req.AddData(nl.NewRtGenMsg())
	req.AddData(nl.NewRtAttr(attrFD, nl.Uint32Attr(uint32(ns.Fd()))))
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNSID)
	if err != nil {
		return -1, err
	}
	for _, m := range msgs {
		if id, ok := attrUint32(m[min(4, len(m)):], attrNSID); ok {
			return int32(id), nil
		}
	}
	return -1, nil
}

// RepairInside gives a container's link back what it lost of its addresses, the routes that come with them, and the way
// out, if there is none at all any more. A link that is gone or down is left alone.
func (k *Real) RepairInside(p plan.Plug, ns *os.File) (changed bool, err error) {
	err = In(ns, func() error {
		changed, err = repairInside(p)
		return err
	})
	return changed, err
}

func repairInside(p plan.Plug) (changed bool, err error) {
	link, err := netlink.LinkByName(p.Inside)
	if err != nil || link.Attrs().Flags&net.FlagUp == 0 {
		return false, nil
	}
	c, err := dialRTNL()
	if err != nil {
		return false, err
	}
	defer c.close()
	index := int32(link.Attrs().Index)
	addrs, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return false, err
	}
	for _, a := range p.Addresses {
		if !slices.ContainsFunc(addrs, func(h netlink.Addr) bool { return prefixOf(h.IPNet) == a }) {
			if err := c.do(addressRequest(index, a)); err != nil {
				return changed, err
			}
			changed = true
		}
	}
	routes, err := whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return changed, err
	}
	for _, a := range p.Addresses {
		there := func(r netlink.Route) bool { return r.LinkIndex == int(index) && prefixOf(r.Dst) == a.Masked() }
		if a.IsSingleIP() || a.Addr().IsLinkLocalUnicast() || slices.ContainsFunc(routes, there) {
			continue
		}
		if err := netlink.RouteReplace(connected(int(index), a)); err != nil {
			return changed, err
		}
		changed = true
	}
	for _, gw := range p.Gateways {
		if slices.ContainsFunc(routes, func(r netlink.Route) bool { return isDefault(r, gw) }) {
			continue
		}
		if err := c.do(defaultRoute(unix.RTM_NEWROUTE, index, gw, false)); err != nil {
			return changed, err
		}
		changed = true
	}
	return changed, nil
}

// isDefault says that a route is a way out of the gateway's family, whoever made it.
func isDefault(r netlink.Route, gw netip.Addr) bool {
	family := unix.AF_INET
	if gw.Is6() {
		family = unix.AF_INET6
	}
	dst := prefixOf(r.Dst)
	return r.Family == family && (!dst.IsValid() || dst.Bits() == 0)
}
