package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/network/plan"
)

// Monitor tells of changes that others make to our packet filter table, or to our links. It sleeps in the kernel until
// somebody changes any table, or link.
type Monitor struct {
	f    *os.File
	read func(events []byte) (who string) // "": nothing that concerns us
	hit  func(who string)
	done chan struct{} // closed when hit will not be called any more
}

// settle is how long a burst of changes may last before it is looked at: a firewall's reload is many transactions.
const settle = 50 * time.Millisecond

// Watch calls hit, not more than once at a time, after other processes touched the table.
func Watch(table string, hit func(who string)) (*Monitor, error) {
	ours := false // the transaction being read touched our table
	return watch(unix.NETLINK_NETFILTER, []int{unix.NFNLGRP_NFTABLES}, hit, func(typ uint16, b []byte) (who string) {
		if typ>>8 != unix.NFNL_SUBSYS_NFTABLES || len(b) < 4 {
			return ""
		}
		if b = b[4:]; typ&0xff != unix.NFT_MSG_NEWGEN {
			ours = ours || attrString(b, 1) == table // in every message but NEWGEN, attribute 1 is the table
			return ""
		}
		if pid, name := genAttrs(b); ours && !ownThread(pid) {
			who = fmt.Sprintf("%s (pid %d)", name, pid)
		}
		ours = false
		return who
	})
}

// WatchLinks calls hit after a link of which wanted says how it should be is not so any more, or has lost an address or a
// route; and after packet forwarding was switched off, of the host or of such a link.
func (k *Real) WatchLinks(wanted func(name string) (plan.Port, bool), hit func(who string)) (*Monitor, error) {
	groups := []int{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF}
	of := func(index uint32) string {
		name, err := ifname(k.host.fd, index)
		if err != nil {
			return "" // the link is gone too, of which there is an event of its own
		}
		if want, is := wanted(name); !is || want.Bridge != "" { // a bridge's port has no addresses
			return ""
		}
		return somebody
	}
	return watch(unix.NETLINK_ROUTE, groups, hit, func(typ uint16, b []byte) string {
		switch {
		case typ == unix.RTM_DELADDR && len(b) >= unix.SizeofIfAddrmsg:
			return of(native.Uint32(b[4:]))
		case typ == unix.RTM_DELROUTE && len(b) >= unix.SizeofRtMsg && b[7] == unix.RTN_UNICAST && b[4] == unix.RT_TABLE_MAIN:
			if dst := attrBytes(b[unix.SizeofRtMsg:], unix.RTA_DST); len(dst) == 16 && dst[0] == 0xfe {
				return "" // fe80::/64 comes and goes with every link
			}
			if index, ok := attrUint32(b[unix.SizeofRtMsg:], unix.RTA_OIF); ok {
				return of(index)
			}
			return ""
		case typ == unix.RTM_NEWNETCONF && len(b) >= 4:
			const netconfIndex, netconfForwarding, allLinks = 1, 2, ^uint32(0) // linux/netconf.h
			index, _ := attrUint32(b[4:], netconfIndex)
			if on, ok := attrUint32(b[4:], netconfForwarding); !ok || on != 0 {
				return ""
			}
			if index == allLinks {
				return somebody
			}
			if b[0] == unix.AF_INET {
				return of(index)
			}
			return ""
		}
		if typ != unix.RTM_NEWLINK && typ != unix.RTM_DELLINK {
			return ""
		}
		l, ok := readLink(b)
		if !ok || typ == unix.RTM_DELLINK && b[0] != unix.AF_UNSPEC { // a bridge tells that a port left; the link tells so, too
			return ""
		}
		want, is := wanted(l.name)
		if !is || typ == unix.RTM_NEWLINK && !k.astray(l, want) {
			return ""
		}
		// The event may be an old one, of a link that was just being made: what counts is how it is now. How it should be
		// comes last, since a link of ours may be removed while we look.
		now, err := whereLink(l.name)
		if want, is = wanted(l.name); !is || err == nil && !k.astray(now, want) {
			return ""
		}
		return somebody
	})
}

// somebody is who changed a link: the kernel does not say it.
const somebody = "another program"

// WatchRoutes calls hit after the host got a route that another program made: a VPN that came up.
func WatchRoutes(hit func()) (*Monitor, error) {
	groups := []int{unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE}
	return watch(unix.NETLINK_ROUTE, groups, func(string) { hit() }, func(typ uint16, b []byte) string {
		// rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type. The kernel's own (local, broadcast) do not count.
		if typ != unix.RTM_NEWROUTE || len(b) < unix.SizeofRtMsg || b[7] != unix.RTN_UNICAST || b[1] == 0 {
			return ""
		}
		return somebody
	})
}

func watch(family int, groups []int, hit func(who string), message func(typ uint16, body []byte) (who string)) (*Monitor, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, family)
	if err != nil {
		return nil, fmt.Errorf("watch the kernel's network: %w", err)
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, g := range groups {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g)
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch the kernel's network: %w", err)
	}
	m := &Monitor{f: os.NewFile(uintptr(fd), "netlink events"), hit: hit, done: make(chan struct{})}
	m.read = func(b []byte) (who string) {
		for len(b) >= unix.SizeofNlMsghdr {
			size := int(native.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				break
			}
			if w := message(native.Uint16(b[4:]), b[unix.SizeofNlMsghdr:size]); w != "" {
				who = w
			}
			b = b[min(len(b), (size+3)&^3):]
		}
		return who
	}
	go m.run()
	return m, nil
}

// Close ends the watch, and waits for a call of hit that is on its way.
func (m *Monitor) Close() error {
	err := m.f.Close()
	<-m.done
	return err
}

func (m *Monitor) run() {
	defer close(m.done)
	buf := make([]byte, 64<<10)
	for {
		n, err := m.f.Read(buf)
		who := ""
		switch {
		case errors.Is(err, unix.ENOBUFS): // more events than fit: look for ourselves
			who = "somebody"
		case err != nil:
			return
		default:
			who = m.read(buf[:n])
		}
		if who == "" {
			continue
		}
		// More that comes now is part of the same burst. hit looks at everything, so what it says does not matter.
		m.f.SetReadDeadline(time.Now().Add(settle))
		for err = nil; err == nil; {
			n, err = m.f.Read(buf)
			if err == nil {
				m.read(buf[:n])
			}
		}
		m.f.SetReadDeadline(time.Time{})
		m.hit(who)
	}
}

// ownThread says whether a thread is of this process. The kernel names threads, not processes.
func ownThread(tid int) bool {
	_, err := os.Stat("/proc/self/task/" + strconv.Itoa(tid))
	return err == nil
}

// genAttrs reads who made a transaction.
func genAttrs(b []byte) (pid int, name string) {
	for len(b) >= 4 {
		l, t := int(native.Uint16(b)), native.Uint16(b[2:])&0x3fff
		if l < 4 || l > len(b) {
			break
		}
		switch t {
		case 2: // NFTA_GEN_PROC_PID
			if l >= 8 {
				pid = int(binary.BigEndian.Uint32(b[4:]))
			}
		case 3: // NFTA_GEN_PROC_NAME
			name = strings.TrimRight(string(b[4:l]), "\x00")
		}
		b = b[min(len(b), (l+3)&^3):]
	}
	return pid, name
}

func attrUint32(b []byte, want uint16) (uint32, bool) {
	s := attrBytes(b, want)
	if len(s) < 4 {
		return 0, false
	}
	return native.Uint32(s), true
}

func attrString(b []byte, want uint16) string {
	return strings.TrimRight(string(attrBytes(b, want)), "\x00")
}

func attrBytes(b []byte, want uint16) []byte {
	for len(b) >= 4 {
		l, t := int(native.Uint16(b)), native.Uint16(b[2:])&0x3fff
		if l < 4 || l > len(b) {
			break
		}
		if t == want {
			return b[4:l]
		}
		b = b[min(len(b), (l+3)&^3):]
	}
	return nil
}
