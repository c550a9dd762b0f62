package kernel

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/network/plan"
)

// ForgetUDP removes the connection tracking entries of published UDP ports. A UDP client that keeps sending never lets
// its entry expire, so without this it would stay with the container that had the port before, or with none.
func (k *Real) ForgetUDP(forwards []plan.Forward) error {
	for _, f := range forwards {
		family := netlink.InetFamily(unix.AF_INET)
		if f.Target.Is6() {
			family = unix.AF_INET6
		}
		var filter netlink.ConntrackFilter
		filter.AddProtocol(unix.IPPROTO_UDP)
		filter.AddPort(netlink.ConntrackOrigDstPort, f.HostPort)
		if !f.HostIP.IsUnspecified() {
			filter.AddIP(netlink.ConntrackOrigDstIP, f.HostIP.AsSlice())
		}
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, &filter); err != nil {
			return fmt.Errorf("forget connections of published port %d/udp: %w", f.HostPort, err)
		}
	}
	return nil
}
