//go:build kernel

package network

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/ipam"
)

// A network whose subnet the engine chose grows when it is full; one whose subnet a user chose does not.
func TestNetworksGrow(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Pools = []ipam.Base{{Base: netip.MustParsePrefix("10.77.0.0/24"), Size: 29}}
	})
	ctx := context.Background()
	_, err := w.m.Create(ctx, model.NetworkSpec{Name: "a", IPv4: true})
	must(t, err)
	var boxes []*box
	for i := range 12 {
		boxes = append(boxes, w.box(w.request(fmt.Sprint("c", i), map[string]model.EndpointSpec{"a": {}}, fmt.Sprintf("%d:80", 8000+i))))
	}
	first, last := boxes[0], boxes[11]
	serve(t, first.ns, 80, "first")
	serve(t, last.ns, 80, "last")
	expect(t, "from the new subnet", call(t, last.ns, "tcp", netip.AddrPortFrom(first.ip("a"), 80).String()), "first "+last.ip("a").String())
	expect(t, "to the new subnet", call(t, first.ns, "tcp", netip.AddrPortFrom(last.ip("a"), 80).String()), "last "+first.ip("a").String())
	expect(t, "published", call(t, w.outside, "tcp", "198.51.100.1:8011"), "last 198.51.100.2")
	expect(t, "name", lookup(t, last.ns, "c0"), first.ip("a").String())
	n, err := w.m.Resolve(ctx, "a")
	must(t, err)
	if len(n.IPAM.Pools) != 3 {
		t.Errorf("%v", n.IPAM.Pools)
	}
	must(t, w.m.Close())
	w.cfg.Kernel = nil
	var live []Live
	for _, b := range boxes {
		live = append(live, Live{Attach: b.r, Path: "/proc/self/fd/" + itoa(int(b.ns.Fd())), State: model.NetworkState{Endpoints: b.at.Endpoints, Ports: b.at.Ports}})
	}
	w.open(live...)
	expect(t, "after a restart", call(t, last.ns, "tcp", netip.AddrPortFrom(first.ip("a"), 80).String()), "first "+last.ip("a").String())
	_, err = w.m.Create(ctx, model.NetworkSpec{Name: "fixed", IPv4: true, IPAM: model.IPAM{Pools: []model.IPPool{{Subnet: pfxOf(t, "10.88.0.0/30")}}}})
	must(t, err)
	w.box(w.request("x", map[string]model.EndpointSpec{"fixed": {}}))
	if _, err := w.tryBox(w.request("y", map[string]model.EndpointSpec{"fixed": {}})); !errs.Is(err, errs.Exhausted) {
		t.Errorf("%v", err)
	}
}
