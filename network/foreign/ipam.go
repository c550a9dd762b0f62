package foreign

import (
	"context"
	"net/netip"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/plugin"
	"github.com/shoalhq/shoal/model"
)

// IPAM is an address manager that speaks Docker's IPAM driver protocol:
// https://github.com/moby/moby/blob/v28.0.0/libnetwork/docs/ipam.md
type IPAM struct {
	plugins *plugin.Plugins
	name    string
}

// NewIPAM looks at nothing yet.
func NewIPAM(plugins *plugin.Plugins, name string) *IPAM { return &IPAM{plugins, name} }

const (
	optAddressType = "RequestAddressType"
	optGateway     = "com.docker.network.gateway"
)

func (i *IPAM) call(ctx context.Context, method string, in, out any) error {
	p, err := i.plugins.Get(ctx, i.name, plugin.IPAMDriver)
	if err != nil {
		return err
	}
	return p.Call(ctx, plugin.IPAMDriver+"."+method, in, out)
}

// Pool asks for a pool, of which any part may be open, with its gateway and auxiliary addresses. What was taken is given
// back when it fails.
func (i *IPAM) Pool(ctx context.Context, want model.IPPool, v6, internal bool, opts map[string]string) (p model.IPPool, err error) {
	var spaces struct{ LocalDefaultAddressSpace string }
	if err := i.call(ctx, "GetDefaultAddressSpaces", nil, &spaces); err != nil {
		return p, err
	}
	in := map[string]any{"AddressSpace": spaces.LocalDefaultAddressSpace, "Pool": "", "SubPool": "", "Options": opts, "V6": v6}
	if want.Subnet.IsValid() {
		in["Pool"] = want.Subnet.String()
	}
	if want.Range.IsValid() {
		in["SubPool"] = want.Range.String()
	}
	var answer struct {
		PoolID, Pool string
		Data         map[string]string
	}
	if err := i.call(ctx, "RequestPool", in, &answer); err != nil {
		return p, err
	}
	p = want
	p.Handle = answer.PoolID
	defer func() {
		if err != nil {
			i.Release(context.WithoutCancel(ctx), p)
		}
	}()
	if p.Subnet, err = netip.ParsePrefix(answer.Pool); err != nil || p.Subnet.Addr().Is6() != v6 {
		return p, errs.New(errs.Unavailable, "plug-in %s: answer to RequestPool: %q is no subnet of the address family", i.name, answer.Pool)
	}
	p.Subnet = p.Subnet.Masked()
	p.Gateway, p.AuxAddresses = netip.Addr{}, nil // as far as they are taken
	if gw, perr := netip.ParsePrefix(answer.Data[optGateway]); perr == nil && (!want.Gateway.IsValid() || gw.Addr() == want.Gateway) {
		p.Gateway = gw.Addr()
	} else {
		a, err := i.Address(ctx, p.Handle, want.Gateway, map[string]string{optAddressType: optGateway})
		if err != nil {
			return p, errs.Wrap(err, "address of the gateway")
		}
		p.Gateway = a.Addr()
	}
	for name, a := range want.AuxAddresses {
		if _, err := i.Address(ctx, p.Handle, a, nil); err != nil {
			return p, errs.Wrap(err, "auxiliary address %s", name)
		}
		if p.AuxAddresses == nil {
			p.AuxAddresses = map[string]netip.Addr{}
		}
		p.AuxAddresses[name] = a
	}
	return p, nil
}

// Release gives a pool back with its gateway and auxiliary addresses.
func (i *IPAM) Release(ctx context.Context, p model.IPPool) error {
	if p.Gateway.IsValid() {
		i.ReleaseAddress(ctx, p.Handle, p.Gateway)
	}
	for _, a := range p.AuxAddresses {
		i.ReleaseAddress(ctx, p.Handle, a)
	}
	return i.call(ctx, "ReleasePool", map[string]string{"PoolID": p.Handle}, nil)
}

// Address asks for an address of a pool: want, or any.
func (i *IPAM) Address(ctx context.Context, pool string, want netip.Addr, opts map[string]string) (netip.Prefix, error) {
	text := ""
	if want.IsValid() {
		text = want.String()
	}
	if opts == nil {
		opts = map[string]string{}
	}
	var answer struct{ Address string }
	if err := i.call(ctx, "RequestAddress", map[string]any{"PoolID": pool, "Address": text, "Options": opts}, &answer); err != nil {
		return netip.Prefix{}, err
	}
	a, err := netip.ParsePrefix(answer.Address)
	if err != nil || want.IsValid() && a.Addr() != want {
		return a, errs.New(errs.Unavailable, "plug-in %s: answer to RequestAddress: %q is not the address %s with a prefix length", i.name, answer.Address, text)
	}
	return a, nil
}

// EndpointAddress is Address for an endpoint; some drivers choose by the Ethernet address.
func (i *IPAM) EndpointAddress(ctx context.Context, pool string, want netip.Addr, mac model.MAC) (netip.Prefix, error) {
	opts := map[string]string{}
	if !mac.IsZero() {
		opts[optMAC] = mac.String()
	}
	return i.Address(ctx, pool, want, opts)
}

// ReleaseAddress gives an address back.
func (i *IPAM) ReleaseAddress(ctx context.Context, pool string, a netip.Addr) error {
	return i.call(ctx, "ReleaseAddress", map[string]string{"PoolID": pool, "Address": a.String()}, nil)
}

// NeedsReplay says that the driver forgets its pools when it ends, and wants to be asked for them again.
func (i *IPAM) NeedsReplay(ctx context.Context) (bool, error) {
	var caps struct{ RequiresRequestReplay bool }
	err := i.call(ctx, "GetCapabilities", nil, &caps)
	if plugin.Unimplemented(err) {
		err = nil
	}
	return caps.RequiresRequestReplay, err
}
