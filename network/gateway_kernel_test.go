//go:build kernel

package network

import (
	"context"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/kernel"
)

// gatewayWorld has a network "n" with the modes, and a route from outside to it.
func gatewayWorld(t *testing.T, mode string, internal bool) (*world, model.Network) {
	w := newWorld(t, nil)
	n, err := w.m.Create(context.Background(), model.NetworkSpec{Name: "n", IPv4: true, IPv6: true, Internal: internal,
		IPAM:    model.IPAM{Pools: []model.IPPool{{Subnet: pfxOf(t, "10.200.0.0/24")}, {Subnet: pfxOf(t, "2001:db8:200::/64")}}},
		Options: map[string]string{model.OptBridgeGatewayMode4: mode, model.OptBridgeGatewayMode6: mode}})
	must(t, err)
	must(t, kernel.In(w.outside, func() error {
		err := netlink.RouteAdd(&netlink.Route{Dst: mustNet("10.200.0.0/24"), Gw: hostAddr.AsSlice()})
		if err == nil {
			err = netlink.RouteAdd(&netlink.Route{Dst: mustNet("2001:db8:200::/64"), Gw: netip.MustParseAddr("2001:db8:1::1").AsSlice()})
		}
		return err
	}))
	return w, n
}

func TestGatewayModes(t *testing.T) {
	const viaHost, direct, unpublished = "viaHost", "direct", "unpublished"
	for mode, want := range map[string]map[string]bool{
		"nat":             {viaHost: true},
		"nat-unprotected": {viaHost: true, direct: true, unpublished: true},
		"routed":          {direct: true},
	} {
		t.Run(mode, func(t *testing.T) {
			w, _ := gatewayWorld(t, mode, false)
			b := w.box(w.request("web", map[string]model.EndpointSpec{"n": {}}, "8080:80"))
			serve(t, b.ns, 80, "web")
			serve(t, b.ns, 81, "web")
			serve(t, w.outside, 90, "outside")
			for name, addrs := range map[string][2]string{
				viaHost:     {"198.51.100.1:8080", "[2001:db8:1::1]:8080"},
				direct:      {netip.AddrPortFrom(b.ip("n"), 80).String(), netip.AddrPortFrom(b.ip6("n"), 80).String()},
				unpublished: {netip.AddrPortFrom(b.ip("n"), 81).String(), netip.AddrPortFrom(b.ip6("n"), 81).String()},
			} {
				for i, client := range []string{"web 198.51.100.2", "web 2001:db8:1::2"} {
					if want[name] {
						expect(t, name, call(t, w.outside, "tcp", addrs[i]), client)
					} else {
						expect(t, name, silent(t, w.outside, "tcp", addrs[i]), "")
					}
				}
			}
			seen := map[bool]string{false: "outside 198.51.100.1", true: "outside " + b.ip("n").String()}[mode == "routed"]
			expect(t, "way out", call(t, b.ns, "tcp", "198.51.100.2:90"), seen)
			list := w.m.Reachable()
			if mode == "routed" && (len(list) != 2 || list[0].HostIP.IsValid() || len(b.at.Ports) != 0) {
				t.Errorf("%+v, %v", list, b.at.Ports)
			}
			// The daemon comes back: all as before, nothing to repair.
			must(t, w.m.Close())
			w.cfg.Kernel = nil
			w.open(Live{Attach: b.r, Path: "/proc/self/fd/" + itoa(int(b.ns.Fd())), State: model.NetworkState{Endpoints: b.at.Endpoints, Ports: b.at.Ports}})
			if repaired, err := w.m.auditRules(); repaired || err != nil {
				t.Errorf("after a restart: %v %v", repaired, err)
			}
			must(t, w.m.Detach(context.Background(), b.id, ""))
			if n := len(w.m.want["direct4"]) + len(w.m.want["any4"]) + len(w.m.want["direct6"]); n > 0 {
				t.Errorf("%d rules left", n)
			}
		})
	}
}

func TestGatewayIsolated(t *testing.T) {
	w, n := gatewayWorld(t, "isolated", true)
	f, err := w.m.k.Bridge(n.Link)
	must(t, err)
	if len(f.Addresses) > 0 {
		t.Errorf("the host has addresses in an isolated network: %v", f.Addresses)
	}
	a := w.box(w.request("a", map[string]model.EndpointSpec{"n": {}}))
	b := w.box(w.request("b", map[string]model.EndpointSpec{"n": {}}))
	serve(t, a.ns, 80, "a")
	expect(t, "sibling", call(t, b.ns, "tcp", netip.AddrPortFrom(a.ip("n"), 80).String()), "a "+b.ip("n").String())
	expect(t, "sibling, IPv6", call(t, b.ns, "tcp", netip.AddrPortFrom(a.ip6("n"), 80).String()), "a "+b.ip6("n").String())
	expect(t, "host", silent(t, nil, "tcp", netip.AddrPortFrom(a.ip("n"), 80).String()), "")
	for _, mode := range []string{"isolated", "nosuch"} {
		_, err = w.m.Create(context.Background(), model.NetworkSpec{Name: "x", IPv4: true, Options: map[string]string{model.OptBridgeGatewayMode4: mode}})
		if err == nil {
			t.Errorf("%s without --internal is accepted", mode)
		}
	}
}

// Published ports are open at the container's own address to who comes in by a trusted link, and to nobody else.
func TestTrustedLinks(t *testing.T) {
	w := newWorld(t, nil)
	_, err := w.m.Create(context.Background(), model.NetworkSpec{Name: "n", IPv4: true, IPv6: true,
		IPAM:    model.IPAM{Pools: []model.IPPool{{Subnet: pfxOf(t, "10.200.0.0/24")}, {Subnet: pfxOf(t, "2001:db8:200::/64")}}},
		Options: map[string]string{model.OptBridgeTrusted: "vxlan.1:uplink0"}})
	must(t, err)
	_, err = w.m.Create(context.Background(), model.NetworkSpec{Name: "other", IPv4: true,
		IPAM: model.IPAM{Pools: []model.IPPool{{Subnet: pfxOf(t, "10.201.0.0/24")}}}, Options: map[string]string{model.OptBridgeTrusted: "lo"}})
	must(t, err)
	must(t, kernel.In(w.outside, func() error {
		for _, r := range []*netlink.Route{{Dst: mustNet("10.200.0.0/24"), Gw: hostAddr.AsSlice()}, {Dst: mustNet("10.201.0.0/24"), Gw: hostAddr.AsSlice()},
			{Dst: mustNet("2001:db8:200::/64"), Gw: netip.MustParseAddr("2001:db8:1::1").AsSlice()}} {
			if err := netlink.RouteAdd(r); err != nil {
				return err
			}
		}
		return nil
	}))
	limited := binding(t, "8085:85")
	limited.Sources = []netip.Prefix{pfxOf(t, "192.0.2.0/24")}
	r := w.request("web", map[string]model.EndpointSpec{"n": {}}, "127.0.0.1|8080:80", "8081:80")
	r.Ports = append(r.Ports, limited)
	b := w.box(r)
	o := w.box(w.request("other", map[string]model.EndpointSpec{"other": {}}, "8090:80"))
	for _, port := range []uint16{80, 85, 90} {
		serve(t, b.ns, port, "web")
	}
	serve(t, o.ns, 80, "other")
	at := func(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }
	expect(t, "published", call(t, w.outside, "tcp", at(b.ip("n"), 80)), "web 198.51.100.2")
	expect(t, "published, IPv6", call(t, w.outside, "tcp", at(b.ip6("n"), 80)), "web 2001:db8:1::2")
	expect(t, "not published", silent(t, w.outside, "tcp", at(b.ip("n"), 90)), "")
	expect(t, "for others only", silent(t, w.outside, "tcp", at(b.ip("n"), 85)), "")
	expect(t, "another link", silent(t, w.outside, "tcp", at(o.ip("other"), 80)), "")
	// One of two ports that lead to the same goes: what the other opened stays.
	_, err = w.m.UpdatePorts(b.id, nil, []model.PortBinding{binding(t, "8081:80")})
	must(t, err)
	expect(t, "still published", call(t, w.outside, "tcp", at(b.ip("n"), 80)), "web 198.51.100.2")
	if repaired, err := w.m.auditRules(); repaired || err != nil {
		t.Errorf("repaired %v %v", repaired, err)
	}
	must(t, w.m.Detach(context.Background(), b.id, ""))
	must(t, w.m.Detach(context.Background(), o.id, ""))
	if n := len(w.m.want["trusted4"]) + len(w.m.want["trusted6"]); n > 0 {
		t.Errorf("%d rules left", n)
	}
	for _, v := range []string{"a/b", "eth0::eth1", "a-name-that-is-too-long", ":"} {
		if _, err := w.m.Create(context.Background(), model.NetworkSpec{Name: "x", IPv4: true, Options: map[string]string{model.OptBridgeTrusted: v}}); err == nil {
			t.Errorf("links %q are accepted", v)
		}
	}
}
