package kernel

import (
	"fmt"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/network/plan"
)

// linkFacts is a link of the host as the kernel tells of it.
type linkFacts struct {
	index, master uint32
	name, alias   string
	mtu           uint32
	up, isolated  bool
}

// readLink reads the body of a message about a link. A message of the family bridge has the flags of a bridge's port in
// another place.
func readLink(b []byte) (l linkFacts, ok bool) {
	if len(b) < unix.SizeofIfInfomsg {
		return l, false
	}
	family := b[0]
	l.index, l.up = native.Uint32(b[4:]), native.Uint32(b[8:])&unix.IFF_UP != 0
	b = b[unix.SizeofIfInfomsg:]
	l.name, l.alias = attrString(b, unix.IFLA_IFNAME), attrString(b, unix.IFLA_IFALIAS)
	l.mtu, _ = attrUint32(b, unix.IFLA_MTU)
	l.master, _ = attrUint32(b, unix.IFLA_MASTER)
	port := attrBytes(attrBytes(b, unix.IFLA_LINKINFO), unix.IFLA_INFO_SLAVE_DATA)
	if family == unix.AF_BRIDGE {
		port = attrBytes(b, unix.IFLA_PROTINFO)
	}
	if v := attrBytes(port, unix.IFLA_BRPORT_ISOLATED); len(v) == 1 {
		l.isolated = v[0] != 0
	}
	return l, l.name != ""
}

// whereLink asks for one link, by name.
func whereLink(name string) (l linkFacts, err error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err == nil && len(msgs) > 0 {
		l, _ = readLink(msgs[0])
	}
	return l, err
}

// Links lists the links of ours: bridges and parents of direct links with our mark, and links whose name starts with prefix, each as it is;
// one that is down counts as plugged into no bridge.
func (k *Real) Links(prefix string) (bridges []string, ports map[string]plan.Port, err error) {
	msgs, err := whole(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list the host's links: %w", err)
	}
	names, found := map[uint32]string{}, []linkFacts{}
	for _, m := range msgs {
		l, ok := readLink(m)
		if !ok {
			continue
		}
		names[l.index] = l.name
		if strings.HasPrefix(l.name, prefix) {
			found = append(found, l)
		} else if l.alias == k.owner {
			bridges = append(bridges, l.name)
		}
	}
	ports = map[string]plan.Port{}
	for _, l := range found {
		p := plan.Port{MTU: int(l.mtu), Isolated: l.isolated}
		if l.up {
			p.Bridge = names[l.master]
		}
		ports[l.name] = p
	}
	return bridges, ports, nil
}

// astray says whether a link of ours is not as it should be: gone, down, with another MTU; or, if it is a container's, not
// in its bridge, or not kept from the others there as it should be.
func (k *Real) astray(l linkFacts, want plan.Port) bool {
	if !l.up {
		return true
	}
	if want.Bridge == "" {
		return l.alias == k.owner && want.MTU > 0 && int(l.mtu) != want.MTU
	}
	k.mu.Lock()
	bridge := k.bridgeIx[want.Bridge]
	k.mu.Unlock()
	return !want.Same(plan.Port{Bridge: want.Bridge, MTU: int(l.mtu), Isolated: l.isolated}) || l.master != uint32(bridge)
}
