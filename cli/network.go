package cli

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/network"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/format"
	"github.com/shoalhq/shoal/lib/errs"
)

func networkLsCommand(a *App) *cobra.Command {
	var l listFlags
	cmd := a.command("ls [OPTIONS]", count(0, 0), func(ctx context.Context, api *client.Client, _ []string) error {
		res, err := api.NetworkList(ctx, moby.NetworkListOptions{Filters: l.filter.Value()})
		if err != nil {
			return err
		}
		sortNatural(res.Items, func(n network.Summary) string { return n.Name })
		rows := make([]networkRow, len(res.Items))
		for i, n := range res.Items {
			rows[i] = networkRow{n, !l.noTrunc}
		}
		if l.quiet {
			return ids(a, rows, networkRow.id)
		}
		return networkList.Write(a.Out, a.format(l.format, "networksFormat", l.quiet), rows)
	})
	l.add(cmd.Flags(), "Only display network IDs")
	l.addNoTrunc(cmd.Flags())
	return cmd
}

type networkRow struct {
	network.Summary
	short bool
}

func (r networkRow) id() string {
	if r.short {
		return shortID(r.ID)
	}
	return r.ID
}

var networkList = format.List[networkRow]{
	Columns: []format.Column[networkRow]{
		{Name: "ID", Header: "NETWORK ID", Get: func(r networkRow) any { return r.id() }},
		{Name: "Name", Header: "NAME", Get: func(r networkRow) any { return r.Name }},
		{Name: "Driver", Header: "DRIVER", Get: func(r networkRow) any { return r.Driver }},
		{Name: "Scope", Header: "SCOPE", Get: func(r networkRow) any { return r.Scope }},
		{Name: "IPv4", Header: "IPV4", Get: func(r networkRow) any { return fmt.Sprint(r.EnableIPv4) }},
		{Name: "IPv6", Header: "IPV6", Get: func(r networkRow) any { return fmt.Sprint(r.EnableIPv6) }},
		{Name: "Internal", Header: "INTERNAL", Get: func(r networkRow) any { return fmt.Sprint(r.Internal) }},
		{Name: "Labels", Header: "LABELS", Get: func(r networkRow) any { return format.Labels(r.Labels) }},
		{Name: "CreatedAt", Header: "CREATED AT", Get: func(r networkRow) any { return r.Created.String() }},
	},
	Table: []string{"ID", "Name", "Driver", "Scope"},
	Label: func(r networkRow, key string) string { return r.Labels[key] },
}

type networkCreateFlags struct {
	o          moby.NetworkCreateOptions
	v4, v6     bool
	labels     opts.ListOpts
	driverOpts opts.MapOpts
	ipamDriver string
	ipamOpts   opts.MapOpts
	subnets    []string
	gateways   []string
	ranges     []string
	aux        opts.MapOpts
}

func networkCreateCommand(a *App) *cobra.Command {
	n := networkCreateFlags{labels: opts.NewListOpts(opts.ValidateLabel), driverOpts: *opts.NewMapOpts(nil, nil),
		ipamOpts: *opts.NewMapOpts(nil, nil), aux: *opts.NewMapOpts(nil, nil)}
	var cmd *cobra.Command
	cmd = a.command("create [OPTIONS] NETWORK", count(1, 1), func(ctx context.Context, api *client.Client, args []string) error {
		ipam, err := n.ipam()
		if err != nil {
			return err
		}
		o := n.o
		o.IPAM, o.Options = ipam, n.driverOpts.GetAll()
		o.Labels = opts.ConvertKVStringsToMap(n.labels.GetSlice())
		if cmd.Flags().Changed("ipv4") {
			o.EnableIPv4 = &n.v4
		}
		if cmd.Flags().Changed("ipv6") {
			o.EnableIPv6 = &n.v6
		}
		res, err := api.NetworkCreate(ctx, args[0], o)
		if err != nil {
			return err
		}
		a.warnings(res.Warning)
		a.say(res.ID)
		return nil
	})
	fs := cmd.Flags()
	fs.StringVarP(&n.o.Driver, "driver", "d", "bridge", "Driver to manage the Network")
	fs.VarP(&n.driverOpts, "opt", "o", "Set driver specific options")
	fs.Var(&n.labels, "label", "Set metadata on a network")
	fs.BoolVar(&n.o.Internal, "internal", false, "Restrict external access to the network")
	fs.BoolVar(&n.v4, "ipv4", true, "Enable or disable IPv4 address assignment")
	fs.BoolVar(&n.v6, "ipv6", false, "Enable or disable IPv6 address assignment")
	fs.BoolVar(&n.o.Attachable, "attachable", false, "Enable manual container attachment")
	fs.BoolVar(&n.o.Ingress, "ingress", false, "Create swarm routing-mesh network")
	fs.StringVar(&n.o.Scope, "scope", "", "Control the network's scope")
	fs.BoolVar(&n.o.ConfigOnly, "config-only", false, "Create a configuration only network")
	fs.StringVar(&n.o.ConfigFrom, "config-from", "", "The network from which to copy the configuration")
	fs.StringVar(&n.ipamDriver, "ipam-driver", "default", "IP Address Management Driver")
	fs.StringSliceVar(&n.subnets, "subnet", nil, "Subnet in CIDR format that represents a network segment")
	fs.StringSliceVar(&n.ranges, "ip-range", nil, "Allocate container ip from a sub-range")
	fs.StringSliceVar(&n.gateways, "gateway", nil, "IPv4 or IPv6 Gateway for the master subnet")
	fs.Var(&n.aux, "aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver")
	fs.Var(&n.ipamOpts, "ipam-opt", "Set IPAM driver specific options")
	return cmd
}

// ipam gathers subnets with the range, gateway and reserved addresses that lie in each.
func (n *networkCreateFlags) ipam() (*network.IPAM, error) {
	out := &network.IPAM{Driver: n.ipamDriver, Options: n.ipamOpts.GetAll(), Config: []network.IPAMConfig{}}
	if len(n.subnets) < len(n.ranges) || len(n.subnets) < len(n.gateways) {
		return nil, badFlag("every ip-range or gateway must have a corresponding subnet; give --subnet too")
	}
	for _, s := range n.subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, badFlag("invalid subnet %q: want an address and a prefix length, such as 10.1.0.0/16 or fd00:1::/64", s)
		}
		for _, o := range out.Config {
			if o.Subnet.Overlaps(p) {
				return nil, badFlag("multiple overlapping subnet configuration is not supported: %s and %s", o.Subnet, p)
			}
		}
		out.Config = append(out.Config, network.IPAMConfig{Subnet: p})
	}
	in := func(addr netip.Addr) *network.IPAMConfig {
		for i := range out.Config {
			if out.Config[i].Subnet.Contains(addr) {
				return &out.Config[i]
			}
		}
		return nil
	}
	for _, s := range n.ranges {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, badFlag("invalid ip-range %q: %w", s, err)
		}
		c := in(p.Addr())
		switch {
		case c == nil:
			return nil, badFlag("no matching subnet for range %s", s)
		case c.IPRange.IsValid():
			return nil, badFlag("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", s, c.IPRange, c.Subnet)
		}
		c.IPRange = p
	}
	for _, s := range n.gateways {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return nil, badFlag("invalid gateway %q: %w", s, err)
		}
		c := in(ip)
		switch {
		case c == nil:
			return nil, badFlag("no matching subnet for gateway %s", s)
		case c.Gateway.IsValid():
			return nil, badFlag("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", s, c.Gateway, c.Subnet)
		}
		c.Gateway = ip
	}
	for name, s := range n.aux.GetAll() {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return nil, badFlag("invalid aux-address %s=%q: %w", name, s, err)
		}
		c := in(ip)
		if c == nil {
			return nil, badFlag("no matching subnet for aux-address %s", s)
		}
		if c.AuxAddress == nil {
			c.AuxAddress = map[string]netip.Addr{}
		}
		c.AuxAddress[name] = ip
	}
	return out, nil
}

func networkRmCommand(a *App) *cobra.Command {
	var force bool
	cmd := a.command("rm NETWORK [NETWORK...]", count(1, -1), func(ctx context.Context, api *client.Client, args []string) error {
		failed := false
		for _, name := range args {
			if _, err := api.NetworkRemove(ctx, name, moby.NetworkRemoveOptions{}); err != nil {
				if force && notThere(err) {
					continue
				}
				failed = true
				fmt.Fprintln(a.Err, a.explain(err))
				if client.IsConnection(err) {
					break
				}
				continue
			}
			a.say(name)
		}
		if failed {
			return exit{code: errs.ExitFailure}
		}
		return nil
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not error if the network does not exist")
	return cmd
}

type connectFlags struct {
	ip, ip6    net.IP
	links      opts.ListOpts
	aliases    []string
	linkLocal  []string
	driverOpts []string
	priority   int
}

func networkConnectCommand(a *App) *cobra.Command {
	c := connectFlags{links: opts.NewListOpts(opts.ValidateLink)}
	cmd := a.command("connect [OPTIONS] NETWORK CONTAINER", count(2, 2), func(ctx context.Context, api *client.Client, args []string) error {
		ep, err := c.endpoint()
		if err != nil {
			return err
		}
		_, err = api.NetworkConnect(ctx, args[0], moby.NetworkConnectOptions{Container: args[1], EndpointConfig: ep})
		return err
	})
	fs := cmd.Flags()
	fs.IPVar(&c.ip, "ip", nil, `IPv4 address (e.g., "172.30.100.104")`)
	fs.IPVar(&c.ip6, "ip6", nil, `IPv6 address (e.g., "2001:db8::33")`)
	fs.Var(&c.links, "link", "Add link to another container")
	fs.StringSliceVar(&c.aliases, "alias", nil, "Add network-scoped alias for the container")
	fs.StringSliceVar(&c.linkLocal, "link-local-ip", nil, "Add a link-local address for the container")
	fs.StringSliceVar(&c.driverOpts, "driver-opt", nil, "driver options for the network")
	fs.IntVar(&c.priority, "gw-priority", 0, "Highest gw-priority provides the default gateway. Accepts positive and negative values.")
	return cmd
}

func (c *connectFlags) endpoint() (*network.EndpointSettings, error) {
	ep := &network.EndpointSettings{Links: c.links.GetSlice(), Aliases: c.aliases, GwPriority: c.priority}
	var ipam network.EndpointIPAMConfig
	if c.ip != nil {
		ip, ok := netip.AddrFromSlice(c.ip.To4())
		if !ok {
			return nil, badFlag("--ip %s is not an IPv4 address; IPv6 addresses go to --ip6", c.ip)
		}
		ipam.IPv4Address = ip
	}
	if c.ip6 != nil {
		if c.ip6.To4() != nil {
			return nil, badFlag("--ip6 %s is not an IPv6 address; IPv4 addresses go to --ip", c.ip6)
		}
		ipam.IPv6Address, _ = netip.AddrFromSlice(c.ip6.To16())
	}
	for _, s := range c.linkLocal {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return nil, badFlag("invalid --link-local-ip %q: %w", s, err)
		}
		ipam.LinkLocalIPs = append(ipam.LinkLocalIPs, ip)
	}
	ep.IPAMConfig = &ipam
	for _, o := range c.driverOpts {
		key, val, ok := strings.Cut(o, "=")
		if !ok || key == "" {
			return nil, badFlag("invalid key=value pair in --driver-opt %q", o)
		}
		if ep.DriverOpts == nil {
			ep.DriverOpts = map[string]string{}
		}
		ep.DriverOpts[key] = val
	}
	return ep, nil
}

func networkDisconnectCommand(a *App) *cobra.Command {
	var force bool
	cmd := a.command("disconnect [OPTIONS] NETWORK CONTAINER", count(2, 2), func(ctx context.Context, api *client.Client, args []string) error {
		_, err := api.NetworkDisconnect(ctx, args[0], moby.NetworkDisconnectOptions{Container: args[1], Force: force})
		return err
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the container to disconnect from a network")
	return cmd
}
