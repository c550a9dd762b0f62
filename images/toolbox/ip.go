package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ip: ip [-4|-6] addr|link|route|neigh [show [dev X]], ip link set X up|down|mtu N, ip addr add|del A/B dev X,
// ip route add|del N [via A] [dev X].
func ip(c *call) error {
	family := netlink.FAMILY_ALL
	args := c.args
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-4":
			family = netlink.FAMILY_V4
		case "-6":
			family = netlink.FAMILY_V6
		case "-o", "-c", "-br", "-brief":
		default:
			return fmt.Errorf("unknown option %s", args[0])
		}
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("want addr, link, route or neigh")
	}
	object, verb, rest := args[0], "show", []string(nil)
	if len(args) > 1 {
		verb, rest = args[1], args[2:]
	}
	short := func(s string, names ...string) bool {
		for _, n := range names {
			if s != "" && strings.HasPrefix(n, s) {
				return true
			}
		}
		return false
	}
	show := short(verb, "show", "list", "ls")
	switch {
	case short(object, "address", "link") && show:
		return ipLinks(c, family, short(object, "address"), after(rest, "dev"))
	case short(object, "link") && verb == "set":
		return ipSet(rest)
	case short(object, "address"):
		return ipAddress(verb, rest)
	case short(object, "route") && show:
		return ipRoutes(c, family)
	case short(object, "route"):
		return ipRoute(verb, rest)
	case short(object, "neighbour", "neighbor") && show:
		return ipNeighbours(c, family)
	}
	return fmt.Errorf("%s %s is not here", object, verb)
}

// after gives the word that follows name, or a single word without it.
func after(words []string, name string) string {
	for i, w := range words {
		if w == name && i+1 < len(words) {
			return words[i+1]
		}
	}
	if len(words) == 1 && name == "dev" {
		return words[0]
	}
	return ""
}

func ipLinks(c *call, family int, addresses bool, only string) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		a := l.Attrs()
		if only != "" && a.Name != only {
			continue
		}
		flags := strings.ToUpper(strings.ReplaceAll(a.Flags.String(), "|", ","))
		name := a.Name
		if a.ParentIndex > 0 {
			name += "@if" + strconv.Itoa(a.ParentIndex)
		}
		fmt.Fprintf(c.out, "%d: %s: <%s> mtu %d state %s\n    link/%s %s\n", a.Index, name, flags, a.MTU, strings.ToUpper(a.OperState.String()), a.EncapType, a.HardwareAddr)
		if !addresses {
			continue
		}
		list, err := netlink.AddrList(l, family)
		if err != nil {
			return err
		}
		for _, x := range list {
			kind := "inet6"
			if x.IP.To4() != nil {
				kind = "inet"
			}
			fmt.Fprintf(c.out, "    %s %s scope %s %s\n", kind, x.IPNet, netlink.Scope(x.Scope), a.Name)
		}
	}
	return nil
}

func ipSet(words []string) error {
	if len(words) < 2 {
		return errors.New("want link set NAME up|down|mtu N")
	}
	if words[0] == "dev" {
		words = words[1:]
	}
	l, err := netlink.LinkByName(words[0])
	if err != nil {
		return err
	}
	for i := 1; i < len(words); i++ {
		switch words[i] {
		case "up":
			err = netlink.LinkSetUp(l)
		case "down":
			err = netlink.LinkSetDown(l)
		case "mtu":
			n := 0
			if i++; i < len(words) {
				n, err = strconv.Atoi(words[i])
			}
			if err == nil {
				err = netlink.LinkSetMTU(l, n)
			}
		default:
			err = fmt.Errorf("unknown word %s", words[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func ipAddress(verb string, words []string) error {
	dev := after(words, "dev")
	if len(words) == 0 || dev == "" {
		return errors.New("want addr add|del ADDRESS/BITS dev NAME")
	}
	a, err := netlink.ParseAddr(words[0])
	if err != nil {
		return err
	}
	l, err := netlink.LinkByName(dev)
	if err != nil {
		return err
	}
	switch verb {
	case "add":
		return netlink.AddrAdd(l, a)
	case "del":
		return netlink.AddrDel(l, a)
	}
	return fmt.Errorf("addr %s is not here", verb)
}

func ipRoutes(c *call, family int) error {
	if family == netlink.FAMILY_ALL {
		family = netlink.FAMILY_V4
	}
	list, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	for _, r := range list {
		line := "default"
		if r.Dst != nil && r.Dst.String() != "0.0.0.0/0" && r.Dst.String() != "::/0" {
			line = r.Dst.String()
		}
		if r.Gw != nil {
			line += " via " + r.Gw.String()
		}
		if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
			line += " dev " + l.Attrs().Name
		}
		if r.Src != nil {
			line += " src " + r.Src.String()
		}
		fmt.Fprintln(c.out, line)
	}
	return err
}

func ipRoute(verb string, words []string) error {
	if len(words) == 0 {
		return errors.New("want route add|del NET|default [via ADDRESS] [dev NAME]")
	}
	var r netlink.Route
	if words[0] != "default" {
		dst, err := netlink.ParseIPNet(words[0])
		if err != nil {
			return err
		}
		r.Dst = dst
	}
	if via := after(words[1:], "via"); via != "" {
		r.Gw = net.ParseIP(via)
	}
	if dev := after(words[1:], "dev"); dev != "" && dev != "via" {
		l, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		r.LinkIndex = l.Attrs().Index
	}
	switch verb {
	case "add":
		return netlink.RouteAdd(&r)
	case "del":
		return netlink.RouteDel(&r)
	}
	return fmt.Errorf("route %s is not here", verb)
}

func ipNeighbours(c *call, family int) error {
	list, err := netlink.NeighList(0, family)
	for _, n := range list {
		name := strconv.Itoa(n.LinkIndex)
		if l, err := netlink.LinkByIndex(n.LinkIndex); err == nil {
			name = l.Attrs().Name
		}
		fmt.Fprintf(c.out, "%s dev %s lladdr %s state 0x%x\n", n.IP, name, n.HardwareAddr, n.State)
	}
	return err
}
