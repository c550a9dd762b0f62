//go:build kernel

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/shoalhq/shoal/network/kernel"
	"github.com/shoalhq/shoal/test/world"
)

// netWorld is a world whose host has an uplink to a machine outside.
type netWorld struct {
	*world.World
	outside *os.File // the machine's network namespace
}

const (
	hostIP, hostIP6       = "198.51.100.1", "2001:db8:1::1"
	outsideIP, outsideIP6 = "198.51.100.2", "2001:db8:1::2"
)

func newNetWorld(t *testing.T, flags ...string) *netWorld {
	w := &netWorld{World: world.New(t, flags...)}
	k, err := kernel.Open("unused", "unused")
	if err == nil {
		w.outside, err = k.Namespace(nil)
		k.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.outside.Close() })
	setup := func(name, gw string, addrs ...string) (err error) {
		l, err := netlink.LinkByName(name)
		os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("0"), 0)
		for _, a := range addrs {
			addr, perr := netlink.ParseAddr(a)
			if perr != nil || err != nil {
				break
			}
			if addr.IP.To4() == nil {
				addr.Flags = 0x02 // IFA_F_NODAD
			}
			err = netlink.AddrAdd(l, addr)
		}
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err == nil {
			_, err = netlink.LinkByName(name) // lets it carry packets at once
		}
		if err == nil && gw != "" {
			err = netlink.RouteAdd(&netlink.Route{Gw: netip.MustParseAddr(gw).AsSlice()})
		}
		return err
	}
	w.InNet(func() {
		err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up0"}, PeerName: "out0", PeerNamespace: netlink.NsFd(int(w.outside.Fd()))})
	})
	if err == nil {
		err = kernel.In(w.outside, func() error { return setup("out0", "", outsideIP+"/24", outsideIP6+"/64") })
	}
	if err == nil {
		w.InNet(func() { err = setup("up0", outsideIP, hostIP+"/24", hostIP6+"/64") })
	}
	if err == nil {
		err = kernel.In(w.outside, func() error { _, err := netlink.LinkByName("out0"); return err })
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// get asks a web server from the machine outside, or from the host, and waits long: there is an answer.
func (w *netWorld) get(fromHost bool, addr, path string) (string, error) {
	return w.getFor(fromHost, addr, path, 20*time.Second)
}

func (w *netWorld) getFor(fromHost bool, addr, path string, limit time.Duration) (string, error) {
	dial := func(_ context.Context, network, addr string) (c net.Conn, err error) {
		f := func() error {
			c, err = net.DialTimeout(network, addr, limit)
			return err
		}
		if fromHost {
			w.InNet(func() { f() })
		} else {
			kernel.In(w.outside, f)
		}
		return c, err
	}
	c := &http.Client{Timeout: 2 * limit, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	resp, err := c.Get("http://" + addr + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func (w *netWorld) reaches(t *testing.T, what string, fromHost bool, addr string, parts ...string) {
	t.Helper()
	var got string
	var err error
	world.Await(func() bool { // the server may still be starting
		got, err = w.get(fromHost, addr, "/")
		return err == nil || !strings.Contains(err.Error(), "refused") && !strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), "reset")
	})
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	wantIn(t, what, got, parts...)
}

func (w *netWorld) silent(t *testing.T, what string, fromHost bool, addr string) {
	t.Helper()
	if got, err := w.getFor(fromHost, addr, "/", 2*time.Second); err == nil {
		t.Errorf("%s: answered %q", what, got)
	}
}

// asks is a shell's way to ask a web server until it answers: it may still be starting. The test's end comes before that of
// one who never gets an answer.
func asks(url string) string {
	return "until wget -q -T 20 -O - " + url + "; do sleep 0.05; done"
}

// shell runs a command in a container with the docker command line and gives its output and whether it succeeded.
func (w *netWorld) shell(c, script string) (string, bool) {
	r := w.Docker("exec", c, "sh", "-c", script)
	return strings.TrimSpace(r.Out + r.Err), r.Code == 0
}

func (w *netWorld) docker(args ...string) string {
	w.T.Helper()
	return w.Must(w.Docker(args...))
}

func TestNetworkCommands(t *testing.T) {
	w := newNetWorld(t)
	wantIn(t, "ls", w.docker("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"), "bridge bridge local", "host host local", "none null local")
	id := w.docker("network", "create", "--label", "a=b", "--subnet", "10.123.0.0/24", "--ip-range", "10.123.0.128/25", "--gateway", "10.123.0.9", "--aux-address", "x=10.123.0.128", "n1")
	if len(id) != 64 {
		t.Errorf("id %q", id)
	}
	wantIn(t, "inspect", w.docker("network", "inspect", "n1"), `"Subnet": "10.123.0.0/24"`, `"IPRange": "10.123.0.128/25"`, `"Gateway": "10.123.0.9"`, `"x": "10.123.0.128"`, `"a": "b"`)
	wantIn(t, "filter", w.docker("network", "ls", "--filter", "label=a=b", "-q", "--no-trunc"), id)
	for what, c := range map[string]struct {
		args []string
		part string
	}{
		"name twice":     {[]string{"network", "create", "n1"}, "already exists"},
		"overlap":        {[]string{"network", "create", "--subnet", "10.123.0.0/16", "n2"}, "overlaps"},
		"bad driver":     {[]string{"network", "create", "-d", "nosuch", "n2"}, "nosuch"},
		"bad subnet":     {[]string{"network", "create", "--subnet", "10.0.0.1/8", "n2"}, "10.0.0.0/8"},
		"predefined":     {[]string{"network", "rm", "bridge"}, "cannot be removed"},
		"not there":      {[]string{"network", "inspect", "nosuch"}, "not found"},
		"bad option":     {[]string{"network", "create", "-o", "com.docker.network.driver.mtu=x", "n2"}, "mtu"},
		"second host":    {[]string{"network", "create", "-d", "host", "n2"}, "only one"},
		"address abroad": {[]string{"run", "--rm", "--network", "n1", "--ip", "10.9.9.9", "toolbox", "true"}, "10.9.9.9"},
		"run without":    {[]string{"run", "--rm", "--network", "nosuch", "toolbox", "true"}, "nosuch"},
	} {
		if r := w.Docker(c.args...); r.Code == 0 || !strings.Contains(r.Err, c.part) {
			t.Errorf("%s: code %d, %s", what, r.Code, r.Err)
		}
	}
	w.docker("run", "-d", "--name", "c1", "--network", "n1", "--ip", "10.123.0.77", "--mac-address", "02:aa:bb:cc:dd:ee", "--network-alias", "al", "toolbox", "sleep", "1000")
	w.docker("run", "-d", "--name", "c2", "--network", "n1", "toolbox", "sleep", "1000")
	want(t, "static address", w.docker("inspect", "-f", "{{.NetworkSettings.Networks.n1.IPAddress}} {{.NetworkSettings.Networks.n1.MacAddress}} {{.NetworkSettings.Networks.n1.Gateway}}", "c1"), "10.123.0.77 02:aa:bb:cc:dd:ee 10.123.0.9")
	want(t, "range", w.docker("inspect", "-f", "{{.NetworkSettings.Networks.n1.IPAddress}}", "c2"), "10.123.0.129")
	out, _ := w.shell("c1", "ip addr show eth0; ip route")
	wantIn(t, "inside", out, "02:aa:bb:cc:dd:ee", "10.123.0.77/24", "default via 10.123.0.9")
	wantIn(t, "members", w.docker("network", "inspect", "n1"), `"Name": "c1"`, `"Name": "c2"`, `"IPv4Address": "10.123.0.77/24"`)
	if r := w.Docker("network", "rm", "n1"); r.Code == 0 || !strings.Contains(r.Err, "active endpoints") || !strings.Contains(r.Err, "c1") {
		t.Errorf("removal in use: %s", r.Err)
	}
	if r := w.Docker("run", "--rm", "--network", "n1", "--ip", "10.123.0.77", "toolbox", "true"); r.Code == 0 || !strings.Contains(r.Err, "c1") {
		t.Errorf("address in use: %s", r.Err)
	}
	for _, name := range []string{"c1", "al", "c1.n1", w.docker("inspect", "-f", "{{.Config.Hostname}}", "c1")} {
		if out, ok := w.shell("c2", "ping -c 1 -w 20 "+name); !ok {
			t.Errorf("ping %s: %s", name, out)
		}
	}
	out, _ = w.shell("c2", "nslookup 10.123.0.77")
	wantIn(t, "reverse", out, "c1.n1")
	w.docker("network", "create", "n2")
	w.docker("network", "connect", "--alias", "second", "n2", "c1")
	w.docker("run", "-d", "--name", "c3", "--network", "n2", "--dns", "127.0.0.1", "toolbox", "sleep", "1000")
	if out, ok := w.shell("c3", "ping -c 1 -w 20 second && ping -c 1 -w 20 c1"); !ok {
		t.Errorf("connected: %s", out)
	}
	if _, ok := w.shell("c3", "ping -c 1 -w 1 c2 || ping -c 1 -w 1 10.123.0.129"); ok {
		t.Error("another network is reached")
	}
	out, _ = w.shell("c1", "ip -o addr show eth1; ip route")
	wantIn(t, "second link", out, "eth1", "default via 10.123.0.9")
	w.docker("network", "disconnect", "n2", "c1")
	if out, ok := w.shell("c3", "ping -c 1 -w 1 c1"); ok {
		t.Errorf("disconnected, but reached: %s", out)
	}
	w.docker("rm", "-f", "c1", "c2", "c3")
	wantIn(t, "prune", w.docker("network", "prune", "-f"), "n1", "n2")
	want(t, "all gone", w.docker("network", "ls", "-q", "--filter", "type=custom"), "")
}

func TestNetworkKinds(t *testing.T) {
	w := newNetWorld(t)
	w.docker("network", "create", "--internal", "inside")
	w.docker("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "apart")
	w.docker("network", "create", "--ipv6", "dual")
	w.docker("network", "create", "--ipv6", "--ipv4=false", "six")
	for _, n := range []string{"inside", "apart", "dual", "six"} {
		for _, c := range []string{"1", "2"} {
			w.docker("run", "-d", "--name", n+c, "--network", n, "whoami")
		}
	}
	tool := func(network, script string) (string, bool) {
		r := w.Docker("run", "--rm", "--network", network, "toolbox", "sh", "-c", script)
		return r.Out + r.Err, r.Code == 0
	}
	for _, c := range []struct {
		what, network, script string
		ok                    bool
	}{
		{"internal, sibling", "inside", asks("http://inside1/"), true},
		{"internal, outside", "inside", "ping -c 1 -w 1 " + outsideIP, false},
		{"internal, host", "inside", "ip route | grep default", false},
		{"no icc, sibling", "apart", "wget -q -T 1 -O - http://apart1/", false},
		{"no icc, outside", "apart", "ping -c 1 -w 20 " + outsideIP, true},
		{"dual, IPv4 sibling", "dual", "ping -c 1 -w 20 -4 dual1", true},
		{"dual, IPv6 sibling", "dual", "ping -c 1 -w 20 -6 dual1", true},
		{"dual, IPv6 outside", "dual", "ping -c 1 -w 20 -6 " + outsideIP6, true},
		{"IPv6 only, sibling", "six", "ping -c 1 -w 20 -6 six1", true},
		{"IPv6 only, IPv4", "six", "ip -4 addr show eth0 | grep inet", false},
		{"none", "none", "ls /sys/class/net | grep -v '^lo$'", false},
		{"host", "host", "ip addr show up0 | grep " + hostIP, true},
		{"container", "container:dual1", asks("http://127.0.0.1/"), true},
	} {
		if out, ok := tool(c.network, c.script); ok != c.ok {
			t.Errorf("%s: success %v\n%s", c.what, ok, out)
		}
	}
}

func TestPublishedPorts(t *testing.T) {
	w := newNetWorld(t)
	w.docker("network", "create", "--ipv6", "dual")
	w.docker("run", "-d", "--name", "web", "--hostname", "web", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "9000-9002:80", "-p", "80", "whoami")
	w.docker("run", "-d", "--name", "web6", "--network", "dual", "-p", "8090:80", "whoami")
	w.reaches(t, "from outside", false, hostIP+":8080", outsideIP)
	w.reaches(t, "from the host's loopback", true, "127.0.0.1:8080", "web")
	w.reaches(t, "::1", true, "[::1]:8080", "GET")
	w.reaches(t, "IPv6 to a container without", false, "["+hostIP6+"]:8080", "GET")
	w.reaches(t, "IPv6 to one with", false, "["+hostIP6+"]:8090", outsideIP6)
	w.silent(t, "loopback port from outside", false, hostIP+":8081")
	w.reaches(t, "loopback port", true, "127.0.0.1:8081", "GET")
	bound := w.docker("port", "web", "80/tcp")
	wantIn(t, "port", bound, "0.0.0.0:8080", "127.0.0.1:8081", "[::]:8080")
	if r := w.Docker("run", "--rm", "-p", "8080:80", "whoami"); r.Code != 125 || !strings.Contains(r.Err, `"web"`) {
		t.Errorf("port in use: %d %s", r.Code, r.Err)
	}
	r := w.Docker("run", "--rm", "--network", "dual", "toolbox", "sh", "-c", asks("http://"+hostIP+":8080/"))
	wantIn(t, "from another network", r.Out+r.Err, "GET")
	// The daemon comes and goes: what is published stays reachable, and is still known.
	w.KillDaemon()
	w.reaches(t, "without the daemon", false, hostIP+":8080", outsideIP)
	w.StartDaemon()
	w.reaches(t, "after a restart", false, hostIP+":8080", outsideIP)
	want(t, "ports after a restart", w.docker("port", "web", "80/tcp"), bound)
	w.docker("restart", "-t", "0", "web")
	w.reaches(t, "after the container's restart", false, hostIP+":8080", outsideIP)
	w.docker("rm", "-f", "web")
	w.silent(t, "after removal", false, hostIP+":8080")
	w.docker("run", "-d", "--name", "again", "--hostname", "again", "-p", "8080:80", "whoami")
	w.reaches(t, "the port's next owner", false, hostIP+":8080", "again")
}

func TestPublishedUDP(t *testing.T) {
	w := newNetWorld(t)
	var c net.Conn
	err := kernel.In(w.outside, func() (err error) {
		c, err = net.Dial("udp", hostIP+":5353")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, name := range []string{"one", "two"} {
		w.docker("run", "-d", "--name", name, "-p", "5353:5353/udp", "toolbox", "sleep", "1000")
		ns, err := os.Open("/proc/" + w.docker("inspect", "-f", "{{.State.Pid}}", name) + "/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		var server net.PacketConn
		err = kernel.In(ns, func() (err error) {
			server, err = net.ListenPacket("udp4", ":5353")
			return err
		})
		ns.Close()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			buf := make([]byte, 100)
			for {
				_, from, err := server.ReadFrom(buf)
				if err != nil {
					return
				}
				server.WriteTo([]byte(name+"\n"), from)
			}
		}()
		got := ""
		world.Await(func() bool {
			c.Write([]byte("x\n"))
			c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			buf := make([]byte, 100)
			if n, err := c.Read(buf); err == nil {
				got = string(buf[:n])
			}
			return got == name+"\n"
		})
		want(t, "answer", got, name+"\n")
		server.Close()
		w.docker("rm", "-f", name)
	}
}

func defaultRoute() *netlink.Route {
	return &netlink.Route{Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}}
}

// What others take from the kernel comes back at once, and an event tells of it.
func TestNetworkRepairs(t *testing.T) {
	w := newNetWorld(t)
	w.docker("run", "-d", "--name", "web", "-p", "8080:80", "whoami")
	w.reaches(t, "before", false, hostIP+":8080", outsideIP)
	nft := func(args ...string) func() {
		return func() {
			w.InNet(func() {
				if out, err := w.Command("/usr/sbin/nft", args...).CombinedOutput(); err != nil {
					t.Errorf("nft: %v %s", err, out)
				}
			})
		}
	}
	link := func(f func(netlink.Link) error, name string) func() {
		return func() {
			w.InNet(func() {
				links, _ := netlink.LinkList()
				for _, l := range links {
					if strings.HasPrefix(l.Attrs().Name, name) {
						if err := f(l); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
	}
	inside := func(name string, f func(netlink.Link) error) func() {
		return func() {
			ns, err := os.Open("/proc/" + w.docker("inspect", "-f", "{{.State.Pid}}", "web") + "/ns/net")
			if err == nil {
				err = kernel.In(ns, func() error {
					l, err := netlink.LinkByName(name)
					if err == nil {
						err = f(l)
					}
					return err
				})
				ns.Close()
			}
			if err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := os.Stat("/usr/sbin/nft"); err != nil {
		t.Skip("no nft on this machine")
	}
	for what, harm := range map[string]func(){
		"flush of the ruleset":   nft("flush", "ruleset"),
		"table deleted":          nft("delete", "table", "inet", "shoal"),
		"a chain flushed":        nft("flush", "chain", "inet", "shoal", "publish"),
		"a set flushed":          nft("flush", "map", "inet", "shoal", "any4"),
		"bridge deleted":         link(netlink.LinkDel, "shoal0"),
		"bridge down":            link(netlink.LinkSetDown, "shoal0"),
		"container's link gone":  link(netlink.LinkDel, "sv"),
		"container's link down":  link(netlink.LinkSetDown, "sv"),
		"container's link loose": link(netlink.LinkSetNoMaster, "sv"),
		"bridge's route gone": func() {
			w.InNet(func() {
				l, _ := netlink.LinkByName("shoal0")
				routes, _ := netlink.RouteList(l, netlink.FAMILY_V4)
				for _, r := range routes {
					if err := netlink.RouteDel(&r); err != nil {
						t.Error(err)
					}
				}
			})
		},
		"forwarding off":                      func() { w.InNet(func() { os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0) }) },
		"element replaced":                    nft("delete", "element", "inet", "shoal", "own", "{ shoal0 . shoal0 }"),
		"interface deleted in the container":  inside("eth0", netlink.LinkDel),
		"default route gone in the container": inside("eth0", func(netlink.Link) error { return netlink.RouteDel(defaultRoute()) }),
		"address gone in the container": inside("eth0", func(l netlink.Link) error {
			as, err := netlink.AddrList(l, netlink.FAMILY_V4)
			if err == nil {
				err = netlink.AddrDel(l, &as[0])
			}
			return err
		}),
		"bridge's addresses gone": link(func(l netlink.Link) error { as, _ := netlink.AddrList(l, 2); return netlink.AddrDel(l, &as[0]) }, "shoal0"),
	} {
		harm()
		start := time.Now()
		eventually(t, what+" is repaired", func() bool { // that it is at once is held by the room's own tests
			got, err := w.getFor(false, hostIP+":8080", "/", 250*time.Millisecond)
			return err == nil && strings.Contains(got, outsideIP)
		})
		t.Log(what, "repaired after", time.Since(start))
	}
	// What may change its network itself is left alone, also when that is another container which shares it.
	w.docker("run", "-d", "--name", "vpn", "--network", "container:web", "--cap-add", "NET_ADMIN", "toolbox", "sleep", "1000")
	gateway := w.docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.Gateway}}", "web")
	w.docker("exec", "vpn", "ip", "route", "del", "default", "via", gateway)
	if got, err := w.getFor(false, hostIP+":8080", "/", 300*time.Millisecond); err == nil {
		t.Errorf("without a way out: answered %q", got)
	}
	w.docker("exec", "vpn", "ip", "route", "add", "default", "via", gateway)
	w.docker("rm", "-f", "vpn")
	since := fmt.Sprint(time.Now().Add(-time.Minute).Unix())
	wantIn(t, "events", w.docker("events", "--since", since, "--until", fmt.Sprint(time.Now().Unix()+1), "--filter", "type=daemon", "--format", "{{json .}}"), "repair", "nft")
	wantIn(t, "doctor", w.Shoal("doctor").Out, "network-repaired", "bridge shoal0", "forwarding of the host", "nft (pid ")
	// What the operator wrote into his chain is never touched.
	nft("add", "rule", "inet", "shoal", "operator", "ip", "saddr", outsideIP, "drop")()
	w.silent(t, "operator's rule", false, hostIP+":8080")
	w.docker("run", "-d", "--name", "other", "-p", "8081:80", "whoami")
	w.StopDaemon()
	w.StartDaemon()
	w.silent(t, "operator's rule after a restart", false, hostIP+":8080")
	w.silent(t, "operator's rule for another", false, hostIP+":8081")
}
