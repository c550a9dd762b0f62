package kernel

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/network/plan"
)

// Words and numbers of the kernel's drivers (linux/if_link.h).
var (
	macvlanModes = map[string]uint32{"": 4, "private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
	ipvlanModes  = map[string]uint16{"": 0, "l2": 0, "l3": 1, "l3s": 2}
	ipvlanFlags  = map[string]uint16{"": 0, "bridge": 0, "private": 1, "vepa": 2}
)

const (
	infoMode  = 1 // IFLA_MACVLAN_MODE, IFLA_IPVLAN_MODE
	infoFlags = 2 // IFLA_IPVLAN_FLAGS
)

// directBody is the request for a direct link with the name; ns is where it appears, or nil for here.
func directBody(d plan.Direct, name string, parent int32, ns *os.File) *body {
	b := linkBody(0, 0, 0).str(unix.IFLA_IFNAME, name).u32(unix.IFLA_LINK, uint32(parent))
	if ns != nil {
		b.u32(unix.IFLA_NET_NS_FD, uint32(ns.Fd()))
	}
	return b.nest(unix.IFLA_LINKINFO, func(b *body) {
		b.attr(unix.IFLA_INFO_KIND, []byte(d.Kind))
		b.nest(unix.IFLA_INFO_DATA, func(b *body) {
			if d.Kind == "macvlan" {
				b.u32(infoMode, macvlanModes[d.Mode])
				return
			}
			b.attr(infoMode, native.AppendUint16(nil, ipvlanModes[d.Mode]))
			b.attr(infoFlags, native.AppendUint16(nil, ipvlanFlags[d.Flag]))
		})
	})
}

func (k *Real) plugDirect(p plan.Plug, ns *os.File) error {
	parent, err := ifindex(k.host.fd, p.Direct.Parent)
	if err != nil {
		return errs.New(errs.Unavailable, "the parent of the network is not there: %w", err)
	}
	b := directBody(p.Direct, p.Inside, parent, ns)
	if p.Direct.Kind == "macvlan" && p.Direct.Mode != "passthru" {
		b.attr(unix.IFLA_ADDRESS, p.MAC[:])
	}
	if p.MTU > 0 {
		b.u32(unix.IFLA_MTU, uint32(p.MTU))
	}
	err = k.host.do(request{what: fmt.Sprintf("make a link of kind %s on %s", p.Direct.Kind, p.Direct.Parent), typ: unix.RTM_NEWLINK,
		flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, body: b.b})
	if err != nil {
		return directRefused(p.Direct, err)
	}
	if err := In(ns, func() error { return setupInside(p) }); err != nil {
		k.RemoveInside(ns, p.Inside)
		return err
	}
	return nil
}

func directRefused(d plan.Direct, err error) error {
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return errs.New(errs.Unsupported, "%w; the kernel has no %s: load its module, or use the driver bridge", err, d.Kind)
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EINVAL):
		return errs.New(errs.Conflict, "%w; the link %s is used by something that %s cannot share it with, such as a bridge, a container that has it for itself (mode passthru), or the other of macvlan and ipvlan", err, d.Parent, d.Kind)
	}
	return err
}

// HasInside says whether a namespace has an interface.
func (k *Real) HasInside(ns *os.File, name string) (has bool, err error) {
	err = In(ns, func() error {
		has, err = hasLink(name)
		return err
	})
	return has, err
}

// hasLink says whether there is a link in the network namespace of the calling thread.
func hasLink(name string) (bool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	if _, err = ifindex(fd, name); errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	return err == nil, err
}

// EnsureParent makes the parent of direct links when it is missing: a VLAN of a link for NAME.VLAN, a link without a way
// out for a name that starts with dm-. With try it also finds out whether a direct link can be made on it.
func (k *Real) EnsureParent(d plan.Direct, try bool) error {
	link, err := netlink.LinkByName(d.Parent)
	var missing netlink.LinkNotFoundError
	made := errors.As(err, &missing)
	if made {
		link, err = k.makeParent(d.Parent)
	}
	if err == nil && (made || link.Attrs().Alias == "" && strings.HasPrefix(d.Parent, "dm-")) { // or we died before it was marked
		if err = netlink.LinkSetAlias(link, k.owner); err == nil && !made {
			err = netlink.LinkSetUp(link)
		}
	}
	if made {
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
	}
	if err != nil {
		return errs.Wrap(err, "parent %s", d.Parent)
	}
	if !try || d.Mode == "passthru" { // it takes the whole link: trying would cut it off
		return nil
	}
	probe := "svtry" + strconv.Itoa(os.Getpid()%100000)
	b := directBody(d, probe, int32(link.Attrs().Index), nil)
	if err := k.host.do(request{what: "try a link of kind " + d.Kind + " on " + d.Parent, typ: unix.RTM_NEWLINK,
		flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, tolerate: unix.EEXIST, body: b.b}); err != nil {
		return directRefused(d, err)
	}
	return k.RemoveLink(probe)
}

func (k *Real) makeParent(name string) (netlink.Link, error) {
	base, tag, isVLAN := strings.Cut(name, ".")
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	var l netlink.Link = &netlink.Dummy{LinkAttrs: attrs}
	switch {
	case isVLAN:
		id, err := strconv.ParseUint(tag, 10, 12)
		if err != nil || id == 0 || id == 4095 {
			return nil, errs.New(errs.Invalid, "%q is no VLAN: want NAME.NUMBER with a number from 1 to 4094", name)
		}
		under, err := netlink.LinkByName(base)
		if err != nil {
			return nil, errs.New(errs.Invalid, "the host has no link %s; `ip link` lists those it has", base)
		}
		attrs.ParentIndex = under.Attrs().Index
		l = &netlink.Vlan{LinkAttrs: attrs, VlanId: int(id)}
	case !strings.HasPrefix(name, "dm-"):
		return nil, errs.New(errs.Invalid, "the host has no link %s; `ip link` lists those it has", name)
	}
	err := netlink.LinkAdd(l)
	if errors.Is(err, unix.EOPNOTSUPP) && !isVLAN { // no dummy links: a pair that leads nowhere does as well
		l = &netlink.Veth{LinkAttrs: attrs, PeerName: "dn-" + strings.TrimPrefix(name, "dm-")}
		if err = netlink.LinkAdd(l); err == nil {
			if peer, perr := netlink.LinkByName("dn-" + strings.TrimPrefix(name, "dm-")); perr == nil {
				netlink.LinkSetUp(peer)
			}
		}
	}
	if err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil, errs.New(errs.Unsupported, "make link %s: the kernel has no %s links: load the module", name, l.Type())
		}
		return nil, fmt.Errorf("make link %s: %w", name, err)
	}
	return netlink.LinkByName(name)
}
