package network

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/shoalhq/shoal/lib/clock"
	"github.com/shoalhq/shoal/lib/plugin"
	"github.com/shoalhq/shoal/network/ipam"
)

// Config is what the daemon's flags say about networks. The zero value of a field is the default.
type Config struct {
	Root      string // directory of the networks' records; made when missing
	Exec      string // directory that a restart of the machine empties
	Bridge    BridgeConfig
	Pools     []ipam.Base // where subnets are cut from; empty: Docker's ranges and a range of unique local IPv6 addresses
	Defaults  Defaults
	NoForward bool // never switch the host's packet forwarding on
	Carriage
	Foreign
	Kernel Kernel // nil: the real one
	Clock  clock.Clock
	Log    *slog.Logger
	// Report is told of what was found wrong in the kernel and repaired; nil: only the log.
	Report func(Finding)
}

// Carriage says who carries connections to published ports: the kernel's packet filter, and the daemon where that cannot.
type Carriage struct {
	NoRules bool // never touch the packet filter; published ports are then carried by the daemon itself
	NoRelay bool // never carry a connection in the daemon, also where the packet filter cannot
	// HostPolicy lets the host's firewall decide as it does for the host's own servers: connections to published ports
	// arrive at the host, in the chain input, and the daemon carries them on. The containers see the host's address.
	HostPolicy bool
	// DirectRouting lets everybody with a route to a container reach its published ports at the container's own address.
	DirectRouting bool
}

// Foreign is where drivers of others are found.
type Foreign struct {
	Plugins *plugin.Plugins // nil: there are none
	CNIBin  []string        // directories of CNI plug-ins; empty: where distributions put them
	CNIConf string          // directory of CNI network configurations; "": /etc/cni/net.d
	Timeout time.Duration   // for one CNI plug-in; 0: its default
}

// BridgeConfig is the default network "bridge".
type BridgeConfig struct {
	Disabled   bool
	Name       string // of the host's interface; default "shoal0"
	Table      string // of the packet filter; default "shoal", with another bridge name "shoal-" and that name
	IPv4, IPv6 BridgeFamily
	NoICC      bool // containers cannot reach each other
	NoMasq     bool
	HostIP     netip.Addr // host address of ports published without one; zero: all
}

// BridgeFamily is one address family of the default network.
type BridgeFamily struct {
	On      bool         // of IPv6 only; it is on as well when there is a Bridge
	Bridge  netip.Prefix // the bridge's address and its subnet; zero: chosen, or what a bridge that is there already has
	Range   netip.Prefix // part of the subnet that containers get their addresses from; alone, it is the subnet
	Gateway netip.Addr   // default route of the containers, when it is not the bridge
}

// Defaults are for networks and containers that say nothing.
type Defaults struct {
	MTU          int                          // 0: the uplink's
	Options      map[string]map[string]string // driver → options
	HostGateways []netip.Addr                 // what host-gateway stands for; empty: the gateways of the container's networks
}

// Finding is one thing that was not in the kernel as it should be.
type Finding struct {
	Code string    // one of the codes below; empty is Repaired
	What string    // "packet filter table shoal"
	How  string    // "was flushed by nft (pid 812)"
	Last time.Time // when it was found, the last time
	N    int       // how often
}

// The codes are headings in docs/doctor.md.
const (
	Repaired   = "network-repaired"    // somebody changed it, and it is as it should be again
	RouteClash = "network-route-clash" // the host has another way to a network's addresses
	BadRemote  = "network-endpoint"    // the driver, another program, says that an endpoint is not as it made it
)

const (
	defaultBridge = "shoal0"
	defaultTable  = "shoal"
)

func (c *Config) fill() {
	if c.Bridge.Name == "" {
		c.Bridge.Name = defaultBridge
	}
	if c.Bridge.Table == "" {
		c.Bridge.Table = defaultTable
		if c.Bridge.Name != defaultBridge {
			c.Bridge.Table += "-" + c.Bridge.Name
		}
	}
	if len(c.Pools) == 0 {
		c.Pools = ipam.DefaultBases()
	}
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Report == nil {
		c.Report = func(Finding) {}
	}
}
