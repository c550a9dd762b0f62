package foreign

import (
	"context"
	"encoding/json"
	"net/netip"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/plugin"
	"github.com/shoalhq/shoal/lib/undo"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/plan"
)

// Remote is a driver that speaks Docker's remote network driver protocol:
// https://github.com/moby/moby/blob/v28.0.0/libnetwork/docs/remote.md
type Remote struct {
	plugins *plugin.Plugins
	name    string
}

// NewRemote looks at nothing yet: the plug-in is asked for again at each use, since it may come and go.
func NewRemote(plugins *plugin.Plugins, name string) *Remote { return &Remote{plugins, name} }

// Labels that the protocol has in options.
const (
	optGeneric  = "com.docker.network.generic"
	optIPv6     = "com.docker.network.enable_ipv6"
	optIPv4     = "com.docker.network.enable_ipv4"
	optInternal = "com.docker.network.internal"
	optPortMap  = "com.docker.network.portmap"
	optExposed  = "com.docker.network.endpoint.exposedports"
	optMAC      = "com.docker.network.endpoint.macaddress"
)

func (r *Remote) call(ctx context.Context, method string, in, out any) error {
	p, err := r.plugins.Get(ctx, r.name, plugin.NetworkDriver)
	if err != nil {
		return err
	}
	return p.Call(ctx, plugin.NetworkDriver+"."+method, in, out)
}

type ipamData struct {
	AddressSpace string
	Pool         string
	Gateway      string
	AuxAddresses map[string]string
}

// CreateNetwork refuses plug-ins that need a cluster.
func (r *Remote) CreateNetwork(ctx context.Context, n model.Network) error {
	var caps struct{ Scope string }
	if err := r.call(ctx, "GetCapabilities", nil, &caps); err != nil && !plugin.Unimplemented(err) {
		return err
	}
	if caps.Scope != "" && caps.Scope != "local" {
		return errs.New(errs.Unsupported, "the network driver %s makes networks of the scope %s, which need a cluster", r.name, caps.Scope)
	}
	in := struct {
		NetworkID          string
		Options            map[string]any
		IPv4Data, IPv6Data []ipamData
	}{NetworkID: n.ID, Options: map[string]any{optGeneric: n.Options, optIPv4: n.IPv4, optIPv6: n.IPv6, optInternal: n.Internal}}
	for _, p := range n.IPAM.Pools {
		d := ipamData{AddressSpace: "LocalDefault", Pool: p.Subnet.String(), AuxAddresses: map[string]string{}}
		if p.Gateway.IsValid() {
			d.Gateway = netip.PrefixFrom(p.Gateway, p.Subnet.Bits()).String()
		}
		for name, a := range p.AuxAddresses {
			d.AuxAddresses[name] = netip.PrefixFrom(a, p.Subnet.Bits()).String()
		}
		if p.Subnet.Addr().Is6() {
			in.IPv6Data = append(in.IPv6Data, d)
		} else {
			in.IPv4Data = append(in.IPv4Data, d)
		}
	}
	return r.call(ctx, "CreateNetwork", in, nil)
}

// RemoveNetwork implements Driver.
func (r *Remote) RemoveNetwork(ctx context.Context, n model.Network) error {
	return r.call(ctx, "DeleteNetwork", map[string]string{"NetworkID": n.ID}, nil)
}

type remoteInterface struct {
	Address, AddressIPv6, MacAddress string
}

type portMap struct {
	Proto       byte
	IP          string
	Port        uint16
	HostIP      string
	HostPort    uint16
	HostPortEnd uint16
}

func ipProto(p model.Proto) byte {
	return map[model.Proto]byte{model.TCP: 6, model.UDP: 17, model.SCTP: 132}[p]
}

func portOptions(e Endpoint) map[string]any {
	maps, exposed := []portMap{}, []map[string]any{}
	for _, b := range e.Ports {
		m := portMap{Proto: ipProto(b.Proto), Port: b.Number, HostPort: b.HostPort, HostPortEnd: b.HostPortEnd}
		if b.HostIP.IsValid() {
			m.HostIP = b.HostIP.String()
		}
		maps = append(maps, m)
	}
	for _, p := range e.Exposed {
		exposed = append(exposed, map[string]any{"Proto": ipProto(p.Proto), "Port": p.Number})
	}
	return map[string]any{optPortMap: maps, optExposed: exposed}
}

// Connect makes the endpoint, joins the container to it and lets the driver publish its ports.
func (r *Remote) Connect(ctx context.Context, e Endpoint) (made Made, err error) {
	var u undo.Stack
	defer u.Run()
	opts := portOptions(e)
	for k, v := range e.Spec.DriverOpts {
		opts[k] = v
	}
	iface := remoteInterface{MacAddress: e.Spec.MAC.String()}
	if e.IPv4.IsValid() {
		iface.Address = e.IPv4.String()
	}
	if e.IPv6.IsValid() {
		iface.AddressIPv6 = e.IPv6.String()
	}
	if iface.MacAddress != "" {
		opts[optMAC] = iface.MacAddress
	}
	ids := map[string]any{"NetworkID": e.NetworkID, "EndpointID": e.ID}
	var answer struct{ Interface *remoteInterface }
	if err := r.call(ctx, "CreateEndpoint", with(ids, "Interface", iface, "Options", opts), &answer); err != nil {
		return made, err
	}
	u.Add(func() { r.call(context.WithoutCancel(ctx), "DeleteEndpoint", ids, nil) })
	if answer.Interface != nil {
		if err := made.take(*answer.Interface, e); err != nil {
			return made, errs.Wrap(err, "plug-in %s: answer to CreateEndpoint", r.name)
		}
	}
	if err := r.join(ctx, e, ids, &made); err != nil {
		return made, err
	}
	u.Add(func() { r.call(context.WithoutCancel(ctx), "Leave", ids, nil) })
	if err := r.call(ctx, "ProgramExternalConnectivity", with(ids, "Options", opts), nil); err != nil && !plugin.Unimplemented(err) {
		return made, err
	}
	made.Memo, _ = json.Marshal(made.Link)
	u.Release()
	return made, nil
}

func (r *Remote) join(ctx context.Context, e Endpoint, ids map[string]any, made *Made) error {
	var joined struct {
		InterfaceName        struct{ SrcName, DstPrefix string }
		Gateway, GatewayIPv6 string
		StaticRoutes         []struct {
			Destination string
			NextHop     string
		}
	}
	if err := r.call(ctx, "Join", with(ids, "SandboxKey", e.Namespace, "Options", map[string]any{}), &joined); err != nil {
		return err
	}
	made.Link, made.Prefix = joined.InterfaceName.SrcName, joined.InterfaceName.DstPrefix
	var err error
	parse := func(s string) (a netip.Addr) {
		if s != "" && err == nil {
			a, err = netip.ParseAddr(s)
		}
		return a
	}
	made.GW4, made.GW6 = parse(joined.Gateway), parse(joined.GatewayIPv6)
	for _, s := range joined.StaticRoutes {
		route := plan.Route{Via: parse(s.NextHop)}
		if err == nil {
			route.To, err = netip.ParsePrefix(s.Destination)
		}
		made.Routes = append(made.Routes, route)
	}
	return errs.Wrap(err, "plug-in %s: answer to Join", r.name)
}

// take reads what the driver chose; what was given it may not choose again.
func (m *Made) take(i remoteInterface, e Endpoint) (err error) {
	for _, f := range []struct {
		text  string
		given netip.Prefix
		to    *netip.Prefix
	}{{i.Address, e.IPv4, &m.V4}, {i.AddressIPv6, e.IPv6, &m.V6}} {
		if f.text == "" {
			continue
		}
		if *f.to, err = netip.ParsePrefix(f.text); err != nil {
			return err
		}
		if f.given.IsValid() && *f.to != f.given {
			return errs.New(errs.Conflict, "the driver chose the address %s, but the endpoint has %s already", f.text, f.given)
		}
	}
	if i.MacAddress == "" {
		return nil
	}
	if m.MAC, err = model.ParseMAC(i.MacAddress); err == nil && !e.Spec.MAC.IsZero() && m.MAC != e.Spec.MAC {
		err = errs.New(errs.Conflict, "the driver chose the Ethernet address %s, but %s was asked for", i.MacAddress, e.Spec.MAC)
	}
	return err
}

func with(m map[string]any, more ...any) map[string]any {
	out := map[string]any{}
	for k, v := range m {
		out[k] = v
	}
	for i := 0; i+1 < len(more); i += 2 {
		out[more[i].(string)] = more[i+1]
	}
	return out
}

// Disconnect tells all that it tells, even when the driver refuses a part: what counts is that the endpoint goes.
func (r *Remote) Disconnect(ctx context.Context, e Endpoint) error {
	ids := map[string]any{"NetworkID": e.NetworkID, "EndpointID": e.ID}
	if err := r.call(ctx, "RevokeExternalConnectivity", ids, nil); errs.Is(err, errs.Unavailable) || errs.Is(err, errs.NotFound) {
		return err
	}
	if err := r.call(ctx, "Leave", ids, nil); errs.Is(err, errs.Unavailable) {
		return err
	}
	return r.call(ctx, "DeleteEndpoint", ids, nil)
}

// Check asks nothing: the protocol has no question for it.
func (r *Remote) Check(context.Context, Endpoint) error { return nil }

// MovedLink is the host's name of the link that Connect's caller moved.
func MovedLink(e Endpoint) (name string) {
	if e.Net.Driver != DriverCNI {
		json.Unmarshal(e.Memo, &name)
	}
	return name
}
