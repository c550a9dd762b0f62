package network

import (
	"net/netip"
	"os"

	"github.com/shoalhq/shoal/network/kernel"
	"github.com/shoalhq/shoal/network/plan"
)

// Links is the part of the kernel that has interfaces. A namespace is made (Namespace), a bridge ensured (EnsureBridge,
// as often as one likes), a container plugged into it (Plug: all or nothing) and unplugged by removing the host's end
// (RemoveLink; the kernel removes both ends with the namespace too). Nothing is remembered between calls.
type Links interface {
	Namespace() (*os.File, error)
	EnsureBridge(b plan.Bridge) (changed bool, err error)
	Plug(p plan.Plug, ns *os.File) error
	RemoveLink(name string) error
	// Links lists bridges of ours and links with the prefix (with the bridge they are in).
	Links(prefix string) (bridges []string, plugs map[string]string, err error)
	SetGateways(ns *os.File, inside string, gateways []netip.Addr) error
	Uplink(skip func(link string) bool) (kernel.Uplink, error)
	EnableForwarding(v6 bool) (enabled bool, err error)
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

// Kernel is all of it.
type Kernel interface {
	Links
	Filter
}

var _ Kernel = (*kernel.Real)(nil)
