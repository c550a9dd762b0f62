package runflags

import (
	"net"
	"net/netip"
	"reflect"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// netFlags are the networks to join and the names the container resolves.
type netFlags struct {
	modes      opts.NetworkOpt
	aliases    opts.ListOpts
	links      opts.ListOpts
	linkLocal  opts.ListOpts
	ip4, ip6   net.IP
	mac        string
	addHost    opts.ListOpts
	dns        opts.ListOpts
	dnsOptions opts.ListOpts
	dnsSearch  opts.ListOpts
}

func (n *netFlags) add(fs *pflag.FlagSet) {
	n.aliases, n.linkLocal = opts.NewListOpts(nil), opts.NewListOpts(opts.ValidateIPAddress)
	n.links = opts.NewListOpts(opts.ValidateLink)
	n.addHost = opts.NewListOpts(opts.ValidateExtraHost)
	n.dns, n.dnsSearch = opts.NewListOpts(opts.ValidateIPAddress), opts.NewListOpts(opts.ValidateDNSSearch)
	n.dnsOptions = opts.NewListOpts(nil)
	fs.Var(&n.modes, "network", "Connect a container to a network")
	fs.Var(&n.modes, "net", "Connect a container to a network")
	fs.Var(&n.aliases, "network-alias", "Add network-scoped alias for the container")
	fs.Var(&n.aliases, "net-alias", "Add network-scoped alias for the container")
	fs.Var(&n.links, "link", "Add link to another container")
	fs.Var(&n.linkLocal, "link-local-ip", "Container IPv4/IPv6 link-local addresses")
	fs.IPVar(&n.ip4, "ip", nil, "IPv4 address (e.g., 172.30.100.104)")
	fs.IPVar(&n.ip6, "ip6", nil, "IPv6 address (e.g., 2001:db8::33)")
	fs.StringVar(&n.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	fs.Var(&n.addHost, "add-host", "Add a custom host-to-IP mapping (host:ip)")
	fs.Var(&n.dns, "dns", "Set custom DNS servers")
	fs.Var(&n.dnsOptions, "dns-option", "Set DNS options")
	fs.Var(&n.dnsOptions, "dns-opt", "Set DNS options")
	fs.Var(&n.dnsSearch, "dns-search", "Set custom DNS search domains")
	for _, alias := range []string{"net", "net-alias", "dns-opt"} {
		_ = fs.MarkHidden(alias)
	}
}

func (n *netFlags) apply(_ *pflag.FlagSet, r *Request) (err error) {
	h := r.HostConfig
	h.Links, h.ExtraHosts = n.links.GetSlice(), n.addHost.GetSlice()
	h.DNSSearch, h.DNSOptions = n.dnsSearch.GetAllOrEmpty(), n.dnsOptions.GetAllOrEmpty()
	h.DNS = addrs(n.dns.GetSlice())
	h.NetworkMode = container.NetworkMode(n.modes.NetworkMode())
	r.Networking.EndpointsConfig, err = n.endpoints()
	return err
}

// endpoints makes one entry for each --network; the flags outside it (--ip, --network-alias ...) belong to the first.
func (n *netFlags) endpoints() (map[string]*network.EndpointSettings, error) {
	asked := n.modes.Value()
	out := make(map[string]*network.EndpointSettings, len(asked)+1)
	if len(asked) == 0 {
		asked = []opts.NetworkAttachmentOpts{{Target: network.NetworkDefault}}
		if err := n.addToFirst(&asked[0]); err != nil {
			return nil, err
		}
		ep, err := endpoint(asked[0])
		out[network.NetworkDefault] = ep
		return out, err
	}
	own, builtin := "", ""
	for i, a := range asked {
		if container.NetworkMode(a.Target).IsUserDefined() {
			own = a.Target
		} else {
			builtin = a.Target
		}
		if i == 0 {
			if err := n.addToFirst(&a); err != nil {
				return nil, err
			}
		}
		ep, err := endpoint(a)
		if err != nil {
			return nil, err
		}
		if _, twice := out[a.Target]; twice {
			return nil, invalid("network %q is specified multiple times", a.Target)
		}
		// A single network without settings is named by NetworkMode alone, which every server version understands.
		if len(asked) == 1 && reflect.ValueOf(*ep).IsZero() {
			continue
		}
		out[a.Target] = ep
	}
	if own != "" && builtin != "" {
		return nil, invalid("conflicting options: cannot attach both user-defined and non-user-defined network-modes (%q and %q)", own, builtin)
	}
	return out, nil
}

func (n *netFlags) addToFirst(a *opts.NetworkAttachmentOpts) error {
	conflicts := []struct {
		both     bool
		flag, in string
	}{
		{len(a.Aliases) > 0 && n.aliases.Len() > 0, "--network-alias", "per-network alias"},
		{len(a.Links) > 0 && n.links.Len() > 0, "--link", "per-network links"},
		{a.IPv4Address.IsValid() && n.ip4 != nil, "--ip", "per-network IPv4 address"},
		{a.IPv6Address.IsValid() && n.ip6 != nil, "--ip6", "per-network IPv6 address"},
		{a.MacAddress != "" && n.mac != "", "--mac-address", "per-network MAC address"},
		{len(a.LinkLocalIPs) > 0 && n.linkLocal.Len() > 0, "--link-local-ip", "per-network link-local IP addresses"},
	}
	for _, c := range conflicts {
		if c.both {
			return invalid("conflicting options: cannot specify both %s and %s", c.flag, c.in)
		}
	}
	if n.aliases.Len() > 0 {
		a.Aliases = append([]string{}, n.aliases.GetSlice()...)
	}
	// Links on the default bridge are the old kind, which HostConfig.Links carries.
	if n.links.Len() > 0 && container.NetworkMode(a.Target).IsUserDefined() {
		a.Links = append([]string{}, n.links.GetSlice()...)
	}
	if n.ip4 != nil {
		ip, ok := netip.AddrFromSlice(n.ip4.To4())
		if !ok {
			return invalid("--ip %s is not an IPv4 address; IPv6 addresses go to --ip6", n.ip4)
		}
		a.IPv4Address = ip
	}
	if n.ip6 != nil {
		ip, ok := netip.AddrFromSlice(n.ip6.To16())
		if !ok || n.ip6.To4() != nil {
			return invalid("--ip6 %s is not an IPv6 address; IPv4 addresses go to --ip", n.ip6)
		}
		a.IPv6Address = ip
	}
	if n.mac != "" {
		a.MacAddress = n.mac
	}
	if n.linkLocal.Len() > 0 {
		a.LinkLocalIPs = addrs(n.linkLocal.GetSlice())
	}
	return nil
}

func endpoint(a opts.NetworkAttachmentOpts) (*network.EndpointSettings, error) {
	if strings.TrimSpace(a.Target) == "" {
		return nil, invalid("no name set for network")
	}
	if !container.NetworkMode(a.Target).IsUserDefined() {
		if len(a.Aliases) > 0 {
			return nil, invalid("network-scoped aliases are only supported for user-defined networks: create one with \"network create\", %q cannot have them", a.Target)
		}
		if len(a.Links) > 0 {
			return nil, invalid("links are only supported for user-defined networks")
		}
	}
	ep := &network.EndpointSettings{GwPriority: a.GwPriority, Links: a.Links}
	ep.Aliases = append(ep.Aliases, a.Aliases...)
	if len(a.DriverOpts) > 0 {
		ep.DriverOpts = a.DriverOpts
	}
	if a.IPv4Address.IsValid() || a.IPv6Address.IsValid() || len(a.LinkLocalIPs) > 0 {
		ep.IPAMConfig = &network.EndpointIPAMConfig{
			IPv4Address: a.IPv4Address, IPv6Address: a.IPv6Address, LinkLocalIPs: a.LinkLocalIPs}
	}
	if a.MacAddress != "" {
		mac, err := net.ParseMAC(strings.TrimSpace(a.MacAddress))
		if err != nil {
			return nil, invalid("%s is not a valid mac address", a.MacAddress)
		}
		ep.MacAddress = network.HardwareAddr(mac)
	}
	return ep, nil
}

// addrs parses addresses that a validator has already accepted; others are left out.
func addrs(list []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	return out
}
