//go:build kernel

package network

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/kernel"
)

// Whatever another program takes from the kernel or changes in it is as it was at once, by the kernel's announcement and not by
// the next try after a failure, and reported. The log has the times.
func TestAuditRepairs(t *testing.T) {
	found := make(chan Finding, 64)
	w := newWorld(t, func(c *Config) { c.Report = func(f Finding) { found <- f } })
	for _, n := range []model.NetworkSpec{
		{Name: "a", IPv4: true, IPv6: true, Options: map[string]string{model.OptBridgeName: "br-a"}},
		{Name: "quiet", IPv4: true, Options: map[string]string{model.OptBridgeName: "br-q", model.OptBridgeICC: "false"}},
	} {
		_, err := w.m.Create(context.Background(), n)
		must(t, err)
	}
	open := w.box(w.request("open", map[string]model.EndpointSpec{"a": {}}, "8080:80"))
	apart := w.box(w.request("apart", map[string]model.EndpointSpec{"quiet": {}}))
	serve(t, open.ns, 80, "open")
	link, kept := w.m.conts[open.id].endpoints[0].host, w.m.conts[apart.id].endpoints[0].host
	gateway := open.at.Endpoints["a"].Gateway4.String() + "/16"
	must(t, exec.Command("ip", "link", "add", "elsewhere", "type", "bridge").Run())
	var times []time.Duration
	for _, c := range []struct{ what, harm, look, want string }{
		{"bridge removed", "ip link del br-a", "ip -br link show br-a", "br-a"},
		{"bridge down", "ip link set br-a down", "ip link show br-a", ",UP"},
		{"bridge's MTU", "ip link set br-a mtu 900", "ip link show br-a", "mtu 1400"},
		{"bridge's address", "ip addr flush dev br-a scope global", "ip addr show br-a", gateway},
		{"bridge's IPv6", "sysctl -qw net.ipv6.conf.br-a.disable_ipv6=1", "ip addr show br-a", "fe80::1/64"},
		{"bridge's route", "ip route flush dev br-a", "ip route show dev br-a", "proto kernel"},
		{"bridge's IPv6 route", "ip -6 route flush dev br-a", "ip -6 route show dev br-a", "fd"},
		{"way to the loopback", "sysctl -qw net.ipv4.conf.br-a.route_localnet=0", "sysctl -n net.ipv4.conf.br-a.route_localnet", "1"},
		{"bridge's forwarding", "sysctl -qw net.ipv4.conf.br-a.forwarding=0", "sysctl -n net.ipv4.conf.br-a.forwarding", "1"},
		{"host's forwarding", "sysctl -qw net.ipv4.ip_forward=0", "sysctl -n net.ipv4.ip_forward", "1"},
		{"host's IPv6 forwarding", "sysctl -qw net.ipv6.conf.all.forwarding=0", "sysctl -n net.ipv6.conf.all.forwarding", "1"},
		{"link removed", "ip link del " + link, "ip link show " + link, "master br-a"},
		{"link down", "ip link set " + link + " down", "ip link show " + link, "master br-a state UP"},
		{"link loose", "ip link set " + link + " nomaster", "ip link show " + link, "master br-a"},
		{"link in another bridge", "ip link set " + link + " master elsewhere", "ip link show " + link, "master br-a"},
		{"link's MTU", "ip link set " + link + " mtu 1000", "ip link show " + link, "mtu 1400"},
		{"link isolated", "bridge link set dev " + link + " isolated on", "bridge -d link show dev " + link, "isolated off"},
		{"link not isolated", "bridge link set dev " + kept + " isolated off", "bridge -d link show dev " + kept, "isolated on"},
		{"isolated link in another bridge", "ip link set " + kept + " master elsewhere", "bridge -d link show dev " + kept, "master br-q"},
		{"isolated link back", "true", "bridge -d link show dev " + kept, "isolated on"},
		{"table removed", "nft delete table inet shoal", "nft list table inet shoal", "br-q"},
		{"table asleep", "nft add table inet shoal { flags dormant; }", "nft list table inet shoal", "!dormant"},
		{"policy", "nft add chain inet shoal forward { policy drop; }", "nft list chain inet shoal forward", "policy accept"},
		{"rule removed", "nft flush chain inet shoal early", "nft list chain inet shoal early", "@bridges"},
		{"rule added", "nft insert rule inet shoal forward drop", "nft list chain inet shoal forward", "!\t\tdrop"},
		{"element removed", "nft delete element inet shoal bridges { br-q }", "nft list set inet shoal bridges", "br-q"},
		{"element added", "nft add element inet shoal bridges { lo }", "nft list set inet shoal bridges", `!"lo"`},
		{"element of a map replaced", "nft flush map inet shoal any4", "nft list map inet shoal any4", open.ip("a").String()},
	} {
		for len(found) > 0 {
			<-found
		}
		run(t, c.harm)
		lacks := strings.HasPrefix(c.want, "!")
		start, got := time.Now(), ""
		for time.Since(start) < 2*auditDelay {
			out, _ := exec.Command("sh", "-c", c.look).CombinedOutput()
			if got = string(out); strings.Contains(got, strings.TrimPrefix(c.want, "!")) != lacks {
				break
			}
		}
		took := time.Since(start)
		if strings.Contains(got, strings.TrimPrefix(c.want, "!")) == lacks {
			t.Errorf("%s: not repaired: %s", c.what, got)
			continue
		}
		t.Log(c.what, took)
		times = append(times, took)
		if took >= auditDelay {
			t.Errorf("%s: repaired after %v", c.what, took)
		}
		if c.harm == "true" {
			continue
		}
		select {
		case <-found:
		case <-time.After(patience):
			t.Errorf("%s: not reported", c.what)
		}
	}
	slices.Sort(times)
	if len(times) == 0 || times[len(times)/2] > time.Second { // a single one may wait for a busy machine
		t.Errorf("repaired after %v", times)
	}
	// One rule for another: the number stays the same.
	out, err := exec.Command("nft", "-a", "list", "chain", "inet", "shoal", "early").Output()
	must(t, err)
	_, handle, _ := strings.Cut(string(out), "drop # handle ")
	run(t, "nft replace rule inet shoal early handle "+strings.Fields(handle)[0]+" accept")
	select {
	case f := <-found:
		if !strings.Contains(f.How, "nft") {
			t.Error(f)
		}
	case <-time.After(patience):
		t.Error("a replaced rule was not noticed")
	}
	expect(t, "all works", call(t, w.outside, "tcp", "198.51.100.1:8080"), "open 198.51.100.2")
	// What changed while the daemon was away is found when it is back.
	var live []Live
	for _, b := range []*box{open, apart} {
		live = append(live, Live{Attach: b.r, Path: fmt.Sprintf("/proc/self/fd/%d", b.ns.Fd()), State: model.NetworkState{Endpoints: b.at.Endpoints, Ports: b.at.Ports}})
	}
	must(t, w.m.Close())
	run(t, "bridge link set dev "+kept+" isolated off; ip link set "+link+" mtu 1000; nft add chain inet shoal forward { policy drop; }")
	w.open(live...)
	_, ports, err := w.m.k.Links("sv")
	must(t, err)
	if !ports[kept].Isolated || ports[link].MTU != 1400 {
		t.Errorf("after a restart: %+v", ports)
	}
	if _, whole, err := w.m.k.Rules(); err != nil || !whole {
		t.Error("the packet filter after a restart is not whole", err)
	}
}

// Addresses and routes that somebody takes away in a container that cannot do so itself come back; with one that can, they
// are its own affair.
func TestInsideIsRepaired(t *testing.T) {
	found := make(chan Finding, 64)
	w := newWorld(t, func(c *Config) { c.Report = func(f Finding) { found <- f } })
	_, err := w.m.Create(context.Background(), model.NetworkSpec{Name: "a", IPv4: true, IPv6: true})
	must(t, err)
	early := w.box(w.request("early", map[string]model.EndpointSpec{"a": {}}))
	in := func(b *box, command string) string {
		out, err := exec.Command("nsenter", append([]string{fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), b.ns.Fd()), "ip"}, strings.Fields(command)...)...).CombinedOutput()
		if err != nil {
			t.Errorf("ip %s: %v %s", command, err, out)
		}
		return string(out)
	}
	var fixed sync.Map // of boxes that cannot change their addresses themselves
	fixed.Store(early.id, true)
	in(early, "route del default") // while nobody looks
	w.m.WatchInside(func() map[string]bool {
		all := map[string]bool{}
		fixed.Range(func(id, _ any) bool { all[id.(string)] = true; return true })
		return all
	})
	box := w.box(w.request("box", map[string]model.EndpointSpec{"a": {}, "bridge": {}}))
	own := w.box(w.request("own", map[string]model.EndpointSpec{"a": {}}))
	fixed.Store(box.id, true)
	e := box.at.Endpoints["a"]
	repaired := func(what string) {
		t.Helper()
		select {
		case f := <-found:
			if !strings.Contains(f.What, "addresses or routes of eth") {
				t.Errorf("%s: %+v", what, f)
			}
		case <-time.After(auditDelay):
			t.Errorf("%s: not repaired", what)
		}
	}
	repaired("before the watch")
	addrs := func() string { // the kernel still asks whether anybody else has the link's own address, or has asked by now
		return strings.ReplaceAll(in(box, "addr show dev "+e.Interface), " tentative", "")
	}
	before := addrs() + in(box, "route") + in(box, "-6 route show default")
	for _, harm := range []string{"route del default", "-6 route del default", "addr del " + e.IPv4.String() + " dev " + e.Interface, "addr del " + e.IPv6.String() + " dev " + e.Interface,
		"route del " + e.IPv4.Masked().String() + " dev " + e.Interface} {
		start := time.Now()
		in(box, harm)
		repaired(harm)
		t.Log(harm, time.Since(start))
		after := addrs() + in(box, "route") + in(box, "-6 route show default")
		for _, word := range strings.Fields(before) {
			if word != "tentative" && !strings.Contains(after, word) { // the link's own address is for a second
				t.Errorf("%s: %q is missing in\n%s", harm, word, after)
			}
		}
	}
	// Another way out is somebody's wish, a container's own doing is its own affair, and our own changes are none of both.
	in(box, "route replace default via "+box.at.Endpoints["bridge"].Gateway4.String())
	in(own, "route del default")
	must(t, w.m.Detach(context.Background(), box.id, "a"))
	must(t, w.m.Detach(context.Background(), box.id, ""))
	select {
	case f := <-found:
		t.Errorf("repaired: %+v", f)
	case <-time.After(300 * time.Millisecond):
	}
	expect(t, "own", in(own, "route show default"), "")
}

// What the daemon does itself is not taken for somebody else's doing: on a host with many links each look at all of them
// costs others their time.
func TestOwnWorkIsNotAudited(t *testing.T) {
	w := newWorld(t, nil)
	var hits atomic.Int64
	watch, err := w.m.k.(*kernel.Real).WatchLinks(w.m.wanted, func(string) { hits.Add(1) })
	must(t, err)
	for range 3 {
		n, err := w.m.Create(context.Background(), model.NetworkSpec{Name: "a", IPv4: true, IPv6: true, Options: map[string]string{model.OptMTU: "1280", model.OptBridgeICC: "false"}})
		must(t, err)
		for range 3 {
			b := w.box(w.request("web", map[string]model.EndpointSpec{"a": {}, "bridge": {}}, "0:80"))
			must(t, w.m.Detach(context.Background(), b.id, "bridge"))
			must(t, w.m.Detach(context.Background(), b.id, ""))
			b.ns.Close()
		}
		w.m.bg.Wait()
		must(t, w.m.Remove(context.Background(), n.ID))
	}
	must(t, watch.Close())
	if n := hits.Load(); n > 0 {
		t.Errorf("%d audits for nothing", n)
	}
}

func run(t *testing.T, command string) {
	t.Helper()
	command = strings.NewReplacer("{", "'{", "}", "}'").Replace(command)
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v %s", command, err, out)
	}
}
