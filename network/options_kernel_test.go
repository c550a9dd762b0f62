//go:build kernel

package network

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/kernel"
)

// One port of a container, published to everybody, to few, and to nobody who asks here.
func TestSourcesOfOnePortDiffer(t *testing.T) {
	w := newWorld(t, nil)
	r := w.request("web", nil, "8080:80", "8081:80", "8082:80", "198.51.100.1|8083:80", "8084:80/udp")
	r.Ports[1].Sources = []netip.Prefix{pfxOf(t, "203.0.113.0/24")}
	r.Ports[2].Sources = []netip.Prefix{pfxOf(t, "198.51.100.2/32"), pfxOf(t, "198.51.100.0/24"), pfxOf(t, "10.0.0.0/8")}
	r.Ports[3].Sources = r.Ports[1].Sources
	r.Ports[4].Sources = r.Ports[1].Sources
	b := w.box(r)
	serve(t, b.ns, 80, "web")
	for addr, want := range map[string]string{"198.51.100.1:8080": "web 198.51.100.2", "198.51.100.1:8082": "web 198.51.100.2"} {
		expect(t, addr, call(t, w.outside, "tcp", addr), want)
	}
	for _, addr := range []string{"198.51.100.1:8081", "198.51.100.1:8083", "[2001:db8:1::1]:8081"} {
		expect(t, addr, silent(t, w.outside, "tcp", addr), "")
	}
	expect(t, "udp", silent(t, w.outside, "udp", "198.51.100.1:8084"), "")
	if got := call(t, nil, "tcp", "198.51.100.1:8081"); got == "" {
		t.Error("the host itself is not let through")
	}
	must(t, w.m.Audit(context.Background()))
	if repaired, err := w.m.auditRules(); repaired || err != nil {
		t.Errorf("the table is not as planned: %v %v", repaired, err)
	}
}

func pfxOf(t *testing.T, s string) netip.Prefix {
	t.Helper()
	p, err := netip.ParsePrefix(s)
	must(t, err)
	return p
}

// A bridge that the host's owner made is used as it is, and stays.
func TestForeignBridge(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Bridge.Name, c.Bridge.Table = "lan0", "shoal-lan0" })
	w.m.Close()
	w.m.k.RemoveRules()
	l, err := netlink.LinkByName("lan0")
	must(t, err)
	must(t, netlink.LinkDel(l))
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}}))
	l, err = netlink.LinkByName("lan0")
	must(t, err)
	must(t, netlink.LinkSetMTU(l, 1300)) // by now, the kernel does not fit it to the ports any more
	for _, a := range []string{"192.0.2.9/25", "10.99.0.1/24"} {
		addr, _ := netlink.ParseAddr(a)
		must(t, netlink.AddrAdd(l, addr))
	}
	w.open()
	b := w.box(w.request("web", nil, "8080:80"))
	serve(t, b.ns, 80, "web")
	if !pfxOf(t, "192.0.2.0/25").Contains(b.ip("bridge")) || b.at.Endpoints["bridge"].Gateway4.String() != "192.0.2.9" {
		t.Errorf("%+v", b.at.Endpoints["bridge"])
	}
	expect(t, "published", call(t, w.outside, "tcp", "198.51.100.1:8080"), "web 198.51.100.2")
	_, err = w.m.Create(context.Background(), model.NetworkSpec{Name: "n", IPv4: true, Options: map[string]string{model.OptBridgeName: "lan0"}})
	if err == nil {
		t.Error("two networks on one bridge")
	}
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan1"}}))
	l1, err := netlink.LinkByName("lan1")
	must(t, err)
	addr, _ := netlink.ParseAddr("10.98.0.1/24")
	must(t, netlink.AddrAdd(l1, addr))
	_, err = w.m.Create(context.Background(), model.NetworkSpec{Name: "n", IPv4: true, Options: map[string]string{model.OptBridgeName: "lan1"}})
	must(t, err)
	must(t, w.m.Remove(context.Background(), "n"))
	must(t, w.m.Detach(context.Background(), b.id, ""))
	for name, want := range map[string]string{"lan0": "10.99.0.1/24", "lan1": "10.98.0.1/24"} {
		f, err := w.m.k.Bridge(name)
		must(t, err)
		if !f.Foreign || !contains(f.Addresses, want) {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if l, _ = netlink.LinkByName("lan0"); l.Attrs().MTU != 1300 {
		t.Errorf("MTU %d", l.Attrs().MTU)
	}
}

func contains(ps []netip.Prefix, s string) bool {
	for _, p := range ps {
		if p.String() == s {
			return true
		}
	}
	return false
}

// guardedKernel takes the world's uplinks for real ones.
type guardedKernel struct{ *kernel.Real }

func (k guardedKernel) Uplink(skip func(string) bool) (kernel.Uplink, error) {
	u, err := k.Real.Uplink(skip)
	u.Physical = []string{"uplink0", "uplink1"}
	return u, err
}

// A host that did not forward does not become a router between its own links because it runs containers.
func TestForwardingIsGuarded(t *testing.T) {
	for name, was := range map[string]string{"off before": "0", "on before": "1"} {
		t.Run(name, func(t *testing.T) {
			must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte(was), 0))
			real, err := kernel.Open("shoal", "guard")
			must(t, err)
			w := newWorld(t, func(c *Config) { c.Kernel = guardedKernel{real} })
			other := w.secondOutside()
			serve(t, other, 80, "other")
			must(t, kernel.In(w.outside, func() error {
				return netlink.RouteAdd(&netlink.Route{Dst: mustNet("203.0.113.0/24"), Gw: hostAddr.AsSlice()})
			}))
			want := map[string]string{"0": "", "1": "other 198.51.100.2"}[was]
			expect(t, "through the host", silent(t, w.outside, "tcp", "203.0.113.2:80"), want)
			must(t, w.m.Close())
			real, err = kernel.Open("shoal", "guard")
			must(t, err)
			w.cfg.Kernel = guardedKernel{real}
			w.open()
			expect(t, "through the host, after a restart", silent(t, w.outside, "tcp", "203.0.113.2:80"), want)
			b := w.box(w.request("web", nil, "8080:80"))
			serve(t, b.ns, 80, "web")
			expect(t, "published", call(t, w.outside, "tcp", "198.51.100.1:8080"), "web 198.51.100.2")
			serve(t, w.outside, 81, "outside")
			if got := call(t, b.ns, "tcp", "198.51.100.2:81"); got != "outside 198.51.100.1" {
				t.Errorf("out: %q", got)
			}
		})
	}
}

// secondOutside is a machine at another link of the host.
func (w *world) secondOutside() *os.File {
	t := w.t
	ns, err := w.m.Namespace(context.Background(), nil)
	must(t, err)
	t.Cleanup(func() { ns.Close() })
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "uplink1"}, PeerName: "out1", PeerNamespace: netlink.NsFd(int(ns.Fd()))}))
	up := func(name, addr string) {
		l, err := netlink.LinkByName(name)
		must(t, err)
		a, _ := netlink.ParseAddr(addr)
		must(t, netlink.AddrAdd(l, a))
		must(t, netlink.LinkSetUp(l))
		netlink.LinkByName(name)
	}
	must(t, kernel.In(ns, func() error {
		up("out1", "203.0.113.2/24")
		return netlink.RouteAdd(&netlink.Route{Gw: netip.MustParseAddr("203.0.113.1").AsSlice()})
	}))
	up("uplink1", "203.0.113.1/24")
	must(t, kernel.In(ns, func() error { _, err := netlink.LinkByName("out1"); return err })) // see kernel.Real.Plug
	return ns
}

func mustNet(s string) *net.IPNet {
	_, n, _ := net.ParseCIDR(s)
	return n
}

// The default network has IPv6 when the daemon is told so.
func TestDefaultBridgeIPv6(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Bridge.IPv6 = BridgeFamily{On: true, Range: netip.MustParsePrefix("2001:db8:77::/64")}
	})
	b := w.box(w.request("web", nil, "8080:80"))
	serve(t, b.ns, 80, "web")
	if !pfxOf(t, "2001:db8:77::/64").Contains(b.ip6("bridge")) {
		t.Errorf("%+v", b.at.Endpoints["bridge"])
	}
	expect(t, "IPv6", call(t, w.outside, "tcp", "[2001:db8:1::1]:8080"), "web 2001:db8:1::2")
	expect(t, "IPv4", call(t, w.outside, "tcp", "198.51.100.1:8080"), "web 198.51.100.2")
	must(t, w.m.Detach(context.Background(), b.id, ""))
	w.m.Close()
	w.cfg.Bridge.IPv6 = BridgeFamily{}
	w.open()
	n, err := w.m.Resolve(context.Background(), "bridge")
	must(t, err)
	if n.IPv6 || len(n.IPAM.Pools) != 1 {
		t.Errorf("IPv6 stays after it was switched off: %+v", n.IPAM)
	}
}

// Without the relay, what the packet filter cannot carry is not listened for.
func TestWithoutRelay(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.NoRelay = true })
	b := w.box(w.request("web", nil, "8080:80"))
	serve(t, b.ns, 80, "web")
	expect(t, "IPv4", call(t, w.outside, "tcp", "198.51.100.1:8080"), "web 198.51.100.2")
	expect(t, "IPv6", silent(t, w.outside, "tcp", "[2001:db8:1::1]:8080"), "")
	for _, p := range b.at.Ports {
		if p.HostIP.Is6() {
			t.Errorf("listens on %s", p)
		}
	}
}

// With the host's policy, a published port obeys what the host's firewall says of its own ports.
func TestHostPolicy(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.HostPolicy = true })
	r := w.request("web", nil, "8080:80", "8081:80", "8082:80", "8083:80/udp")
	r.Ports[2].Sources = []netip.Prefix{pfxOf(t, "203.0.113.0/24")}
	b := w.box(r)
	serve(t, b.ns, 80, "web")
	for _, args := range [][]string{{"add", "table", "inet", "fw"}, {"add", "chain", "inet", "fw", "input", "{ type filter hook input priority 0; }"},
		{"add", "rule", "inet", "fw", "input", "tcp", "dport", "8080", "drop"}} {
		if out, err := exec.Command("nft", args...).CombinedOutput(); err != nil {
			t.Skipf("nft: %v %s", err, out)
		}
	}
	defer exec.Command("nft", "delete", "table", "inet", "fw").Run()
	gw := b.at.Endpoints["bridge"].Gateway4.String()
	expect(t, "closed by the host", silent(t, w.outside, "tcp", "198.51.100.1:8080"), "")
	expect(t, "open", call(t, w.outside, "tcp", "198.51.100.1:8081"), "web "+gw)
	expect(t, "for others", silent(t, w.outside, "tcp", "198.51.100.1:8082"), "")
	expect(t, "udp", call(t, w.outside, "udp", "198.51.100.1:8083"), "web "+gw)
	expect(t, "way in by address", silent(t, w.outside, "tcp", netip.AddrPortFrom(b.ip("bridge"), 80).String()), "")
}

// A route that comes later and leads a network's addresses elsewhere is told, once.
func TestRouteClashIsTold(t *testing.T) {
	told := make(chan Finding, 10)
	w := newWorld(t, func(c *Config) { c.Report = func(f Finding) { told <- f } })
	must(t, netlink.RouteAdd(&netlink.Route{Dst: mustNet("192.0.2.0/24"), Gw: outsideAddr.AsSlice()})) // no clash
	n, err := w.m.Resolve(context.Background(), "bridge")
	must(t, err)
	sub := n.IPAM.Pools[0].Subnet
	dst := netip.PrefixFrom(sub.Addr(), sub.Bits()+1).String()
	must(t, netlink.RouteAdd(&netlink.Route{Dst: mustNet(dst), Gw: outsideAddr.AsSlice()}))
	select {
	case f := <-told:
		if !strings.Contains(f.What, "bridge") || !strings.Contains(f.How, dst) {
			t.Errorf("%+v", f)
		}
	case <-time.After(patience):
		t.Fatal("nothing is told")
	}
	w.m.checkRoutes()
	select {
	case f := <-told:
		t.Errorf("told again: %+v", f)
	default:
	}
}
