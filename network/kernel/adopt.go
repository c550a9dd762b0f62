package kernel

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/network/plan"
)

// Adopt moves a link of the host, which another program made, into the namespace under the name p.Inside and sets it up
// there. It stays where it was when it cannot be set up.
func (k *Real) Adopt(link string, p plan.Plug, ns *os.File) error {
	index, err := ifindex(k.host.fd, link)
	if err != nil {
		return fmt.Errorf("the link that the driver says it made: %w", err)
	}
	// A link cannot be renamed while it is up.
	down := request{what: "take down " + link, typ: unix.RTM_NEWLINK, body: linkBody(index, 0, unix.IFF_UP).b}
	if err := k.host.do(down, moveRequest(index, link, p.Inside, ns)); err != nil {
		return err
	}
	if err := In(ns, func() error { return adoptInside(p) }); err != nil {
		k.Expel(ns, p.Inside, link)
		return err
	}
	return nil
}

// moveRequest moves a link into a namespace and gives it a name there, in one step: no name is taken twice meanwhile.
func moveRequest(index int32, from, to string, ns *os.File) request {
	return request{what: fmt.Sprintf("move link %s into the other namespace as %s", from, to), typ: unix.RTM_NEWLINK,
		body: linkBody(index, 0, 0).str(unix.IFLA_IFNAME, to).u32(unix.IFLA_NET_NS_FD, uint32(ns.Fd())).b}
}

func adoptInside(p plan.Plug) error {
	c, err := dialRTNL()
	if err != nil {
		return err
	}
	defer c.close()
	index, err := ifindex(c.fd, p.Inside)
	if err != nil {
		return err
	}
	set := linkBody(index, 0, 0)
	if !p.MAC.IsZero() {
		set.attr(unix.IFLA_ADDRESS, p.MAC[:])
	}
	if p.MTU > 0 {
		set.u32(unix.IFLA_MTU, uint32(p.MTU))
	}
	if err := c.do(request{what: "set up " + p.Inside, typ: unix.RTM_NEWLINK, body: set.b}); err != nil {
		return err
	}
	if err := setupInside(p); err != nil {
		return err
	}
	var reqs []request
	for _, r := range p.Routes {
		reqs = append(reqs, routeRequest(index, r))
	}
	if len(reqs) == 0 {
		return nil
	}
	return c.do(reqs...)
}

func routeRequest(index int32, r plan.Route) request {
	family, scope := byte(unix.AF_INET), byte(unix.RT_SCOPE_UNIVERSE)
	if r.To.Addr().Is6() {
		family = unix.AF_INET6
	}
	if !r.Via.IsValid() {
		scope = unix.RT_SCOPE_LINK
	}
	b := &body{[]byte{family, byte(r.To.Bits()), 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST, 0, 0, 0, 0}}
	b.attr(unix.RTA_DST, r.To.Masked().Addr().AsSlice())
	if r.Via.IsValid() {
		b.attr(unix.RTA_GATEWAY, r.Via.AsSlice())
	}
	b.u32(unix.RTA_OIF, uint32(index))
	return request{what: "route to " + r.To.String(), typ: unix.RTM_NEWROUTE, flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE, body: b.b}
}

// Expel moves a link of the container to the host, under the name link; the container's addresses and routes of it go.
func (k *Real) Expel(ns *os.File, inside, link string) error {
	host, err := os.Open(ownNamespace)
	if err != nil {
		return fmt.Errorf("open the host's network namespace: %w", err)
	}
	defer host.Close()
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
		down := request{what: "take down " + inside, typ: unix.RTM_NEWLINK, body: linkBody(index, 0, unix.IFF_UP).b}
		return c.do(down, moveRequest(index, inside, link, host))
	})
}
