package network

import (
	"context"
	"net"
	"net/netip"
	"os"

	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/kernel"
	"github.com/shoalhq/shoal/network/plan"
)

// Links is the part of the kernel that has interfaces. A namespace is made (Namespace), a bridge ensured (EnsureBridge,
// as often as one likes), a container plugged into it (Plug: all or nothing) and unplugged by removing the host's end
// (RemoveLink; the kernel removes both ends with the namespace too). Nothing is remembered between calls.
type Links interface {
	Namespace(ids *model.IDMaps) (*os.File, error)
	EnsureBridge(b plan.Bridge) (changed bool, err error)
	// Bridge says what is there under a name.
	Bridge(name string) (kernel.BridgeFacts, error)
	Plug(p plan.Plug, ns *os.File) error
	RemoveLink(name string) error
	// EnsureParent makes a VLAN's link or a link without a way out when it is missing; try also makes a direct link.
	EnsureParent(d plan.Direct, try bool) error
	// Links lists bridges and parents of ours and links with the prefix, as they are.
	Links(prefix string) (bridges []string, ports map[string]plan.Port, err error)
	// Replug makes a link that is there as it should be on the host.
	Replug(p plan.Plug) error
}

// Host is what belongs to the host as a whole.
type Host interface {
	Uplink(skip func(link string) bool) (kernel.Uplink, error)
	EnableForwarding(v6 bool) (enabled bool, err error)
	DisableForwarding() error // of IPv4
}

// Filter is the part of the kernel that has our packet filter table. RebuildRules makes it whole; ApplyRules changes it
// and says kernel.ErrRulesGone when it is not there as expected, upon which the table is rebuilt.
type Filter interface {
	Rules() (have plan.Rules, whole bool, err error)
	ApplyRules(del, add []plan.Elem) error
	RebuildRules(elems []plan.Elem) error
	RemoveRules() error
	ForgetUDP(forwards []plan.Forward) error
}

// Inside acts in a container's namespace while the container runs. What ListenNames and Dial open stays there until it
// is closed.
type Inside interface {
	SetGateways(ns *os.File, inside string, gateways []netip.Addr) error
	RemoveInside(ns *os.File, name string) error
	// HasInside says whether a container has an interface.
	HasInside(ns *os.File, name string) (bool, error)
	// RepairInside gives a container's link back what it lost of its addresses and routes.
	RepairInside(p plan.Plug, ns *os.File) (changed bool, err error)
	// Adopt moves a link of the host, which another program made, into the container; Expel moves it back.
	Adopt(link string, p plan.Plug, ns *os.File) error
	Expel(ns *os.File, inside, link string) error
	// ListenNames opens the name server's sockets on 127.0.0.11; with redirect, port 53 of it stays free for the container.
	ListenNames(ns *os.File, redirect bool) (*net.UDPConn, *net.TCPListener, error)
	Dial(ctx context.Context, ns *os.File, network, addr string) (net.Conn, error)
}

// Kernel is all of it.
type Kernel interface {
	Links
	Host
	Inside
	Filter
}

var (
	_ Kernel = (*kernel.Real)(nil)
	_ Kernel = (*kernel.Fake)(nil)
)
