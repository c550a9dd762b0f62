//go:build kernel

package network

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

func TestPublishedPortFromEverywhere(t *testing.T) {
	w := newWorld(t, nil)
	b := w.box(w.request("web", nil, "8080:80", "8053:80/udp", "127.0.0.1|8081:80", "198.51.100.1|8082:80"))
	other := w.box(w.request("other", nil))
	serve(t, b.ns, 80, "web")
	web, oth, gw := b.ip("bridge").String(), other.ip("bridge").String(), b.at.Endpoints["bridge"].Gateway4.String()
	expect(t, "from outside", call(t, w.outside, "tcp", "198.51.100.1:8080"), "web 198.51.100.2")
	expect(t, "from outside, udp", call(t, w.outside, "udp", "198.51.100.1:8053"), "web 198.51.100.2")
	expect(t, "from outside, one address", call(t, w.outside, "tcp", "198.51.100.1:8082"), "web 198.51.100.2")
	expect(t, "from outside, loopback's port", silent(t, w.outside, "tcp", "198.51.100.1:8081"), "")
	expect(t, "from outside, the container itself", silent(t, w.outside, "tcp", web+":80"), "")
	expect(t, "from the host, loopback", call(t, nil, "tcp", "127.0.0.1:8080"), "web "+gw)
	expect(t, "from the host, loopback udp", call(t, nil, "udp", "127.0.0.1:8053"), "web "+gw)
	expect(t, "from the host, loopback's port", call(t, nil, "tcp", "127.0.0.1:8081"), "web "+gw)
	expect(t, "from the host, ::1", call(t, nil, "tcp", "[::1]:8080"), "web "+gw)
	expect(t, "from the host, ::1 udp", call(t, nil, "udp", "[::1]:8053"), "web "+gw)
	expect(t, "from the host, its address", call(t, nil, "tcp", "198.51.100.1:8080"), "web 198.51.100.1")
	expect(t, "from the host, the container", call(t, nil, "tcp", web+":80"), "web "+gw)
	expect(t, "from outside, IPv6", call(t, w.outside, "tcp", "[2001:db8:1::1]:8080"), "web "+gw)
	sibling := "web " + gw
	if w.m.bridgeNF { // then the kernel needs no detour, and the client's address stays
		sibling = "web " + oth
	}
	expect(t, "from another container", call(t, other.ns, "tcp", "198.51.100.1:8080"), sibling)
	expect(t, "from another container, direct", call(t, other.ns, "tcp", web+":80"), "web "+oth)
	expect(t, "from itself", call(t, b.ns, "tcp", "198.51.100.1:8080"), "web "+gw)
	expect(t, "from another container, gateway", call(t, other.ns, "tcp", gw+":8080"), sibling)
	// A container must not reach what listens on the host's loopback, though bridges may route to it.
	l, err := net.Listen("tcp", "127.0.0.1:7777")
	must(t, err)
	defer l.Close()
	expect(t, "host's loopback from a container", silent(t, b.ns, "tcp", "127.0.0.1:7777"), "")
	serve(t, w.outside, 90, "outside")
	expect(t, "to outside", call(t, b.ns, "tcp", "198.51.100.2:90"), "outside 198.51.100.1")
	must(t, w.m.Detach(context.Background(), b.id, ""))
	expect(t, "after detach", silent(t, nil, "tcp", "127.0.0.1:8080"), "")
	if w.m.holder.Len() != 0 {
		t.Error("ports are still held")
	}
}

func TestPortConflictLeavesNothing(t *testing.T) {
	w := newWorld(t, nil)
	l, err := net.Listen("tcp", "0.0.0.0:8080")
	must(t, err)
	defer l.Close()
	_, err = w.tryBox(w.request("web", nil, "9000:80", "8080:80"))
	if !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Fatal(err)
	}
	b := w.box(w.request("web", nil, "9000:80"))
	_, err = w.tryBox(w.request("web2", nil, "9000:80"))
	if !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), `container "web"`) {
		t.Fatal(err)
	}
	if b.ip("bridge").String() == "" || w.m.holder.Len() != 2 {
		t.Fatal(w.m.holder.Len())
	}
}

func TestNetworksAreApart(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	for _, s := range []model.NetworkSpec{{Name: "a", IPv4: true}, {Name: "b", IPv4: true}, {Name: "in", IPv4: true, Internal: true},
		{Name: "apart", IPv4: true, Options: map[string]string{model.OptBridgeICC: "false"}}} {
		_, err := w.m.Create(ctx, s)
		must(t, err)
	}
	on := func(name, net string, ports ...string) *box {
		b := w.box(w.request(name, map[string]model.EndpointSpec{net: {}}, ports...))
		serve(t, b.ns, 80, name)
		return b
	}
	a1, a2, b1 := on("a1", "a", "8080:80"), on("a2", "a"), on("b1", "b")
	in1, in2 := on("in1", "in"), on("in2", "in")
	p1, p2 := on("p1", "apart", "8081:80"), on("p2", "apart")
	serve(t, w.outside, 90, "outside")
	expect(t, "same network", call(t, a2.ns, "tcp", a1.ip("a").String()+":80"), "a1 "+a2.ip("a").String())
	expect(t, "other network", silent(t, b1.ns, "tcp", a1.ip("a").String()+":80"), "")
	expect(t, "other network, published", call(t, b1.ns, "tcp", "198.51.100.1:8080"), "a1 "+a1.at.Endpoints["a"].Gateway4.String())
	expect(t, "internal to internal", call(t, in2.ns, "tcp", in1.ip("in").String()+":80"), "in1 "+in2.ip("in").String())
	expect(t, "internal to outside", silent(t, in1.ns, "tcp", "198.51.100.2:90"), "")
	expect(t, "internal to published", silent(t, in1.ns, "tcp", "198.51.100.1:8080"), "")
	expect(t, "icc=false", silent(t, p2.ns, "tcp", p1.ip("apart").String()+":80"), "")
	expect(t, "icc=false, published", call(t, p2.ns, "tcp", "198.51.100.1:8081"), "p1 "+p1.at.Endpoints["apart"].Gateway4.String())
	if err := w.m.Remove(ctx, "a"); !errs.Is(err, errs.Forbidden) || !strings.Contains(err.Error(), "a1") {
		t.Fatal(err)
	}
	for _, b := range []*box{a1, a2} {
		must(t, w.m.Detach(ctx, b.id, ""))
	}
	must(t, w.m.Remove(ctx, "a"))
	if _, err := net.InterfaceByName("br-" + a1.at.Endpoints["a"].NetworkID[:12]); err == nil {
		t.Fatal("bridge is still there")
	}
}

func TestConnectAndDisconnect(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	for _, n := range []string{"a", "b"} {
		_, err := w.m.Create(ctx, model.NetworkSpec{Name: n, IPv4: true})
		must(t, err)
	}
	c := w.box(w.request("c", map[string]model.EndpointSpec{"b": {}}, "8080:80"))
	serve(t, c.ns, 80, "c")
	serve(t, w.outside, 90, "outside")
	peer := w.box(w.request("peer", map[string]model.EndpointSpec{"a": {}}))
	at, err := w.m.Connect(ctx, AttachRequest{ContainerID: c.id, Endpoints: map[string]model.EndpointSpec{"a": {Aliases: []string{"cc"}}}})
	must(t, err)
	if at.Endpoints["a"].Interface != "eth1" || len(at.Endpoints) != 2 {
		t.Fatalf("%+v", at)
	}
	expect(t, "over the new network", call(t, peer.ns, "tcp", at.Endpoints["a"].IPv4.Addr().String()+":80"), "c "+peer.ip("a").String())
	expect(t, "published through the new way out", call(t, w.outside, "tcp", "198.51.100.1:8080"), "c 198.51.100.2")
	expect(t, "out", call(t, c.ns, "tcp", "198.51.100.2:90"), "outside 198.51.100.1")
	expect(t, "alias", lookup(t, peer.ns, "cc"), at.Endpoints["a"].IPv4.Addr().String())
	must(t, w.m.Detach(ctx, c.id, "a"))
	expect(t, "published through the old way out", call(t, w.outside, "tcp", "198.51.100.1:8080"), "c 198.51.100.2")
	expect(t, "out again", call(t, c.ns, "tcp", "198.51.100.2:90"), "outside 198.51.100.1")
	expect(t, "alias is gone", lookup(t, peer.ns, "cc"), "")
}

func TestRestoreTakesOver(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	_, err := w.m.Create(ctx, model.NetworkSpec{Name: "a", IPv4: true})
	must(t, err)
	b := w.box(w.request("web", map[string]model.EndpointSpec{"a": {}}, "8080:80", "0:80"))
	gone := w.box(w.request("gone", map[string]model.EndpointSpec{"a": {}}, "8090:80"))
	serve(t, b.ns, 80, "web")
	serve(t, gone.ns, 80, "gone")
	live := Live{Attach: b.r, Path: fmt.Sprintf("/proc/self/fd/%d", b.ns.Fd()), State: model.NetworkState{Endpoints: b.at.Endpoints, Ports: b.at.Ports}}
	w.m.Close()
	expect(t, "while no daemon runs", call(t, w.outside, "tcp", "198.51.100.1:8080"), "web 198.51.100.2")
	w.open(live)
	expect(t, "after", call(t, w.outside, "tcp", "198.51.100.1:8080"), "web 198.51.100.2")
	expect(t, "what is gone", silent(t, w.outside, "tcp", "198.51.100.1:8090"), "")
	if got := fmt.Sprint(w.m.attachment(w.m.conts[b.id]).Ports); got != fmt.Sprint(b.at.Ports) {
		t.Fatalf("ports %s, want %s", got, b.at.Ports)
	}
	next := w.box(w.request("next", map[string]model.EndpointSpec{"a": {}}))
	if next.ip("a") == b.ip("a") {
		t.Fatal("an address in use was handed out")
	}
	expect(t, "names", lookup(t, next.ns, "web"), b.ip("a").String())
	expect(t, "names", lookup(t, b.ns, "next"), next.ip("a").String())
	if _, plugs, _ := w.m.k.Links("sv"); len(plugs) != 2 {
		t.Fatalf("links %v", plugs)
	}
}

func TestFlushIsRepaired(t *testing.T) {
	found := make(chan Finding, 8)
	w := newWorld(t, func(c *Config) { c.Report = func(f Finding) { found <- f } })
	b := w.box(w.request("web", nil, "8080:80"))
	serve(t, b.ns, 80, "web")
	for _, what := range [][]string{{"flush", "ruleset"}, {"delete", "element", "inet", "shoal", "any4", "{", "tcp", ".", "8080", "}"}, {"flush", "chain", "inet", "shoal", "prerouting"}} {
		if out, err := exec.Command("nft", what...).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		select {
		case f := <-found:
			if !strings.Contains(f.How, "nft (pid ") {
				t.Error(f)
			}
		case <-time.After(patience):
			t.Fatalf("%v was not noticed", what)
		}
		expect(t, "after "+strings.Join(what, " "), call(t, w.outside, "tcp", "198.51.100.1:8080"), "web 198.51.100.2")
	}
}

func TestLinksAreRepaired(t *testing.T) {
	found := make(chan Finding, 8)
	w := newWorld(t, func(c *Config) { c.Report = func(f Finding) { found <- f } })
	b := w.box(w.request("web", nil, "8080:80"))
	serve(t, b.ns, 80, "web")
	host := w.m.conts[b.id].endpoints[0].host
	for _, what := range [][]string{{"link", "del", "shoal0"}, {"link", "set", host, "nomaster"}, {"link", "del", host}} {
		if out, err := exec.Command("ip", what...).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		select {
		case <-found:
		case <-time.After(patience):
			t.Fatalf("%v was not noticed", what)
		}
		expect(t, "after "+strings.Join(what, " "), call(t, w.outside, "tcp", "198.51.100.1:8080"), "web 198.51.100.2")
		must(t, w.m.Audit(context.Background()))
		for len(found) > 0 {
			<-found
		}
	}
}

func TestBridgeIsRepaired(t *testing.T) {
	w := newWorld(t, nil)
	for _, x := range w.m.watch {
		x.Close() // the repair on use, not on notice
	}
	must(t, w.m.k.RemoveLink("shoal0"))
	b := w.box(w.request("web", nil, "8080:80"))
	serve(t, b.ns, 80, "web")
	expect(t, "call", call(t, w.outside, "tcp", "198.51.100.1:8080"), "web 198.51.100.2")
}
