//go:build kernel

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/shoalhq/shoal/network/kernel"
)

// directNet makes a macvlan or ipvlan network; the test is skipped where the kernel has no such links.
func (w *netWorld) directNet(t *testing.T, name string, args ...string) {
	t.Helper()
	r := w.Docker(append(append([]string{"network", "create"}, args...), name)...)
	if strings.Contains(r.Err, "the kernel has no") {
		t.Skip(r.Err)
	}
	w.Must(r)
}

// hostLinks are the names of the host's links, without what each has.
func (w *netWorld) hostLinks(t *testing.T) (out []string) {
	t.Helper()
	w.InNet(func() {
		list, err := netlink.LinkList()
		if err != nil {
			t.Error(err)
		}
		for _, l := range list {
			if n := l.Attrs().Name; n != "lo" && n != "up0" && n != "shoal0" && l.Type() != "veth" {
				out = append(out, n)
			}
		}
	})
	return out
}

// outsideServer answers on the machine outside with the client's address.
func (w *netWorld) outsideServer(t *testing.T, addr string) {
	t.Helper()
	var l net.Listener
	if err := kernel.In(w.outside, func() (err error) { l, err = net.Listen("tcp", addr); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go http.Serve(l, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		io.WriteString(rw, "client "+host)
	}))
}

// fetch asks a web server from a container.
func (w *netWorld) fetch(c, url string) string { return w.fetchWithin(10, c, url) }

func (w *netWorld) fetchWithin(seconds int, c, url string) string {
	out, _ := w.shell(c, fmt.Sprintf("wget -T %d -qO- %s 2>&1", seconds, url))
	return out
}

// addr is a container's address on a network.
func (w *netWorld) addr(c, network string) string {
	return w.docker("inspect", "-f", "{{(index .NetworkSettings.Networks \""+network+"\").IPAddress}}", c)
}

// pair runs a web server "web" and a box on a network and checks the ways between them.
func (w *netWorld) pair(t *testing.T, network string) {
	t.Helper()
	w.docker("run", "-d", "--name", "web", "--network", network, "whoami")
	w.docker("run", "-d", "--name", "box", "--network", network, "toolbox", "sleep", "1000")
	wantIn(t, "by name", w.fetch("box", "http://web/"), "Client: "+w.addr("box", network))
	wantIn(t, "by address", w.fetch("box", "http://"+w.addr("web", network)+"/"), "Hostname")
	if out, ok := w.shell("box", "nslookup web 127.0.0.11"); !ok || !strings.Contains(out, w.addr("web", network)) {
		t.Errorf("DNS: %s", out)
	}
}

// away removes the pair and the network, after which nothing of it is on the host.
func (w *netWorld) away(t *testing.T, networks ...string) {
	t.Helper()
	w.docker("rm", "-f", "web", "box")
	w.docker(append([]string{"network", "rm"}, networks...)...)
	want(t, "links that are left", strings.Join(w.hostLinks(t), " "), "")
}

func TestDirectNetworks(t *testing.T) {
	w := newNetWorld(t)
	w.outsideServer(t, ":90")
	lan := []string{"--subnet", "198.51.100.0/24", "--ip-range", "198.51.100.128/25", "--gateway", outsideIP, "-o", "parent=up0"}
	t.Run("ipvlan l2", func(t *testing.T) {
		w.directNet(t, "lan", append([]string{"-d", "ipvlan"}, lan...)...)
		w.pair(t, "lan")
		want(t, "outside", w.fetch("box", "http://"+outsideIP+":90/"), "client "+w.addr("box", "lan"))
		w.reaches(t, "from outside", false, w.addr("web", "lan")+":80", "Client: "+outsideIP)
		// The daemon's death changes nothing, and what it leaves is found.
		w.KillDaemon()
		w.reaches(t, "without the daemon", false, "198.51.100.128:80", "Hostname")
		w.StartDaemon()
		wantIn(t, "by name, after the daemon's death", w.fetch("box", "http://web/"), "Hostname")
		w.docker("restart", "-t", "0", "web")
		wantIn(t, "started again", w.fetch("box", "http://web/"), "Hostname")
		w.away(t, "lan")
	})
	for _, mode := range []string{"l3", "l3s"} {
		t.Run("ipvlan "+mode, func(t *testing.T) {
			w.directNet(t, "routed", "-d", "ipvlan", "-o", "ipvlan_mode="+mode, "-o", "parent=up0", "--subnet", "10.77.0.0/24")
			w.pair(t, "routed")
			if err := kernel.In(w.outside, func() error {
				_, to, _ := net.ParseCIDR("10.77.0.0/24")
				return netlink.RouteReplace(&netlink.Route{Dst: to, Gw: net.ParseIP(hostIP)})
			}); err != nil {
				t.Fatal(err)
			}
			want(t, "outside", w.fetch("box", "http://"+outsideIP+":90/"), "client "+w.addr("box", "routed"))
			w.reaches(t, "from outside", false, w.addr("web", "routed")+":80", "Client: "+outsideIP)
			w.away(t, "routed")
		})
	}
	for mode, sees := range map[string]bool{"bridge": true, "private": false, "vepa": false} {
		t.Run("macvlan "+mode, func(t *testing.T) {
			w.directNet(t, "lan", append([]string{"-d", "macvlan", "-o", "macvlan_mode=" + mode}, lan...)...)
			if err := kernel.In(w.outside, func() error { // which remembers somebody else at that address
				out, err := netlink.LinkByName("out0")
				if err != nil {
					return err
				}
				return netlink.NeighSet(&netlink.Neigh{LinkIndex: out.Attrs().Index, IP: net.ParseIP("198.51.100.128"), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}, State: netlink.NUD_REACHABLE})
			}); err != nil {
				t.Fatal(err)
			}
			w.docker("run", "-d", "--name", "web", "--network", "lan", "whoami")
			w.docker("run", "-d", "--name", "box", "--network", "lan", "toolbox", "sleep", "1000")
			limit := 1
			if sees {
				limit = 10
			}
			if got := strings.Contains(w.fetchWithin(limit, "box", "http://"+w.addr("web", "lan")+"/"), "Hostname"); got != sees {
				t.Errorf("siblings see each other: %v", got)
			}
			want(t, "outside", w.fetch("box", "http://"+outsideIP+":90/"), "client "+w.addr("box", "lan"))
			w.reaches(t, "from outside", false, w.addr("web", "lan")+":80", "Client: "+outsideIP)
			w.away(t, "lan")
		})
	}
	t.Run("macvlan passthru", func(t *testing.T) {
		w.directNet(t, "lan", append([]string{"-d", "macvlan", "-o", "macvlan_mode=passthru"}, lan...)...)
		w.docker("run", "-d", "--name", "web", "--network", "lan", "whoami")
		w.reaches(t, "from outside", false, w.addr("web", "lan")+":80", "Client: "+outsideIP)
		r := w.Docker("run", "-d", "--name", "box", "--network", "lan", "whoami")
		if r.Code != 125 || !strings.Contains(r.Err, "up0") || !strings.Contains(r.Err, "passthru") {
			t.Errorf("a second one on a link that the first has for itself: %+v", r)
		}
		w.away(t, "lan")
	})
	for _, driver := range []string{"ipvlan", "macvlan"} {
		for how, args := range map[string][]string{"without a parent": {}, "internal": {"--internal", "-o", "parent=up0"}} {
			t.Run(driver+" "+how, func(t *testing.T) {
				w.directNet(t, "alone", append([]string{"-d", driver, "--subnet", "10.78.0.0/24"}, args...)...)
				w.pair(t, "alone")
				if got := w.fetchWithin(1, "box", "http://"+outsideIP+":90/"); strings.Contains(got, "client") {
					t.Errorf("outside: %s", got)
				}
				w.away(t, "alone")
			})
		}
	}
	t.Run("together", func(t *testing.T) { directTogether(t, w) })
	t.Run("vlan", func(t *testing.T) { directVLAN(t, w) })
}

// directTogether: one link carries macvlan or ipvlan, as the kernel says; who comes second hears why.
func directTogether(t *testing.T, w *netWorld) {
	w.directNet(t, "iv", "-d", "ipvlan", "-o", "parent=up0", "--subnet", "10.79.0.0/24")
	w.directNet(t, "mv", "-d", "macvlan", "-o", "parent=up0", "--subnet", "10.80.0.0/24") // no container yet: each can have the link
	w.docker("run", "-d", "--name", "web", "--network", "iv", "whoami")
	r := w.Docker("run", "-d", "--name", "box", "--network", "mv", "whoami")
	if r.Code != 125 {
		t.Errorf("both kinds on one link: %+v", r)
	}
	wantIn(t, "both kinds on one link", r.Err, "up0", "macvlan", "the other of macvlan and ipvlan")
	r = w.Docker("network", "create", "-d", "macvlan", "-o", "parent=up0", "--subnet", "10.81.0.0/24", "late")
	wantIn(t, "a network of the other kind", r.Err, "up0", "the other of macvlan and ipvlan")
	r = w.Docker("network", "create", "-d", "ipvlan", "-o", "parent=up0", "-o", "ipvlan_mode=l3", "--subnet", "10.82.0.0/24", "mode")
	wantIn(t, "a second mode of ipvlan on one link", r.Err, "one mode", "iv has l2")
	w.docker("rm", "-f", "web")
	w.docker("start", "box")
	w.docker("run", "-d", "--name", "web", "--network", "mv", "whoami")
	w.away(t, "iv", "mv")
}

// directVLAN: a parent NAME.NUMBER is made when it is missing, shared by networks, and goes with the last; one that was there stays.
func directVLAN(t *testing.T, w *netWorld) {
	for _, driver := range []string{"ipvlan", "macvlan"} {
		w.directNet(t, "v20", "-d", driver, "-o", "parent=up0.20", "--subnet", "10.20.0.0/24", "--gateway", "10.20.0.254")
		if driver == "ipvlan" {
			if err := kernel.In(w.outside, func() error {
				out, err := netlink.LinkByName("out0")
				if err != nil {
					return err
				}
				v := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "out0.20", ParentIndex: out.Attrs().Index}, VlanId: 20}
				if err := netlink.LinkAdd(v); err != nil {
					return err
				}
				a, _ := netlink.ParseAddr("10.20.0.254/24")
				if err := netlink.AddrAdd(v, a); err != nil {
					return err
				}
				return netlink.LinkSetUp(v)
			}); err != nil {
				t.Fatal(err)
			}
		}
		w.pair(t, "v20")
		want(t, "outside, through the VLAN", w.fetch("box", "http://10.20.0.254:90/"), "client "+w.addr("box", "v20"))
		w.docker("network", "create", "-d", driver, "-o", "parent=up0.20", "--subnet", "10.21.0.0/24", "second")
		w.docker("network", "rm", "second")
		want(t, "while a network has it", strings.Join(w.hostLinks(t), " "), "up0.20")
		w.KillDaemon()
		w.InNet(func() { // behind the daemon's back
			if l, err := netlink.LinkByName("up0.20"); err == nil && driver == "macvlan" {
				netlink.LinkDel(l)
			}
		})
		w.StartDaemon()
		want(t, "after the daemon's death", strings.Join(w.hostLinks(t), " "), "up0.20")
		if driver == "macvlan" {
			w.docker("restart", "-t", "0", "web", "box")
		}
		want(t, "outside, after the daemon's death", w.fetch("box", "http://10.20.0.254:90/"), "client "+w.addr("box", "v20"))
		w.away(t, "v20")
	}
	w.InNet(func() {
		if l, err := netlink.LinkByName("up0"); err == nil {
			netlink.LinkAdd(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "up0.30", ParentIndex: l.Attrs().Index}, VlanId: 30})
		}
	})
	w.directNet(t, "v30", "-d", "macvlan", "-o", "parent=up0.30", "--subnet", "10.30.0.0/24")
	w.docker("network", "rm", "v30")
	want(t, "the administrator's own", strings.Join(w.hostLinks(t), " "), "up0.30")
	w.InNet(func() {
		if l, err := netlink.LinkByName("up0.30"); err == nil {
			netlink.LinkDel(l)
		}
	})
}
