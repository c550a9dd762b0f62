//go:build kernel

package network

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/kernel"
)

func TestMacvlan(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	lan := model.NetworkSpec{Name: "lan", Driver: "macvlan", IPv4: true, Options: map[string]string{model.OptParent: "uplink0"},
		IPAM: model.IPAM{Pools: []model.IPPool{{Subnet: netip.MustParsePrefix("198.51.100.0/24"), Range: netip.MustParsePrefix("198.51.100.64/26"), Gateway: outsideAddr}}}}
	_, err := w.m.Create(ctx, lan)
	if errs.Is(err, errs.Unsupported) {
		t.Skip(err)
	}
	must(t, err)
	a := w.box(w.request("a", map[string]model.EndpointSpec{"lan": {}}, "8080:80"))
	b := w.box(w.request("b", map[string]model.EndpointSpec{"lan": {}}))
	serve(t, w.outside, 90, "outside")
	serve(t, a.ns, 80, "a")
	ip := a.ip("lan").String()
	expect(t, "to the neighbour", call(t, a.ns, "tcp", "198.51.100.2:90"), "outside "+ip)
	expect(t, "from the neighbour", call(t, w.outside, "tcp", ip+":80"), "a 198.51.100.2")
	expect(t, "sibling", call(t, b.ns, "tcp", ip+":80"), "a "+b.ip("lan").String())
	expect(t, "names", lookup(t, b.ns, "a"), ip)
	for _, x := range []*box{a, b} {
		must(t, w.m.Detach(ctx, x.id, ""))
		// At once, and not when the namespace ends: the parent has each Ethernet address once.
		if has, err := (&kernel.Real{}).HasInside(x.ns, "eth0"); has || err != nil {
			t.Errorf("the link of a detached container is there: %v %v", has, err)
		}
	}
	must(t, w.m.Remove(ctx, "lan"))
	alone := model.NetworkSpec{Name: "alone", Driver: "macvlan", IPv4: true}
	n, err := w.m.Create(ctx, alone)
	must(t, err)
	a = w.box(w.request("a", map[string]model.EndpointSpec{"alone": {}}))
	b = w.box(w.request("b", map[string]model.EndpointSpec{"alone": {}}))
	serve(t, a.ns, 80, "a")
	expect(t, "without a parent", call(t, b.ns, "tcp", a.ip("alone").String()+":80"), "a "+b.ip("alone").String())
	for _, x := range []*box{a, b} {
		must(t, w.m.Detach(ctx, x.id, ""))
	}
	must(t, w.m.Remove(ctx, "alone"))
	if _, err := net.InterfaceByName("dm-" + n.ID[:12]); err == nil {
		t.Error("the parent we made is still there")
	}
	lan.Name, lan.Options = "nope", map[string]string{model.OptParent: "nope0"}
	if _, err := w.m.Create(ctx, lan); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "nope0") {
		t.Error(err)
	}
}

func TestIPvlan(t *testing.T) {
	w := newWorld(t, nil)
	for _, mode := range []string{"l2", "l3"} {
		_, err := w.m.Create(context.Background(), model.NetworkSpec{Name: mode, Driver: "ipvlan", IPv4: true, Options: map[string]string{model.OptIPvlanMode: mode}})
		if errs.Is(err, errs.Unsupported) {
			if !strings.Contains(err.Error(), "ipvlan") || len(w.m.List(context.Background())) != 3 {
				t.Error(err)
			}
			t.Skip(err)
		}
		must(t, err)
		a := w.box(w.request("a", map[string]model.EndpointSpec{mode: {}}))
		b := w.box(w.request("b", map[string]model.EndpointSpec{mode: {}}))
		serve(t, a.ns, 80, "a")
		expect(t, mode, call(t, b.ns, "tcp", a.ip(mode).String()+":80"), "a "+b.ip(mode).String())
	}
}
