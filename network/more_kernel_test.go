//go:build kernel

package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/kernel"
)

func TestIPv6(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	for _, s := range []model.NetworkSpec{{Name: "dual", IPv4: true, IPv6: true}, {Name: "six", IPv6: true}} {
		n, err := w.m.Create(ctx, s)
		must(t, err)
		if s.Name == "six" && (len(n.IPAM.Pools) != 1 || n.IPAM.Pools[0].Subnet.Addr().As16()[0] != 0xfd) {
			t.Fatalf("%+v", n.IPAM)
		}
	}
	a := w.box(w.request("a", map[string]model.EndpointSpec{"dual": {}}, "8080:80"))
	b := w.box(w.request("b", map[string]model.EndpointSpec{"dual": {}}))
	six := w.box(w.request("s", map[string]model.EndpointSpec{"six": {}}, "8081:80"))
	for _, x := range []*box{a, six} {
		serve(t, x.ns, 80, x.r.Name)
	}
	serve(t, w.outside, 90, "outside")
	expect(t, "sibling", call(t, b.ns, "tcp", "["+a.ip6("dual").String()+"]:80"), "a "+b.ip6("dual").String())
	expect(t, "from outside", call(t, w.outside, "tcp", "[2001:db8:1::1]:8080"), "a 2001:db8:1::2")
	expect(t, "from outside, only IPv6", call(t, w.outside, "tcp", "[2001:db8:1::1]:8081"), "s 2001:db8:1::2")
	expect(t, "IPv4 of an IPv6 container", silent(t, w.outside, "tcp", "198.51.100.1:8081"), "")
	expect(t, "::1", call(t, nil, "tcp", "[::1]:8081"), "s "+six.at.Endpoints["six"].Gateway6.String())
	expect(t, "out", call(t, six.ns, "tcp", "[2001:db8:1::2]:90"), "outside 2001:db8:1::1")
	expect(t, "direct from outside", silent(t, w.outside, "tcp", "["+a.ip6("dual").String()+"]:80"), "")
	if r := query(t, b.ns, "udp", "a", dns.TypeAAAA); r == nil || len(r.Answer) != 1 {
		t.Errorf("AAAA: %v", r)
	}
	one := w.box(w.request("one", nil))
	must(t, kernel.In(one.ns, func() error {
		b, err := os.ReadFile("/proc/thread-self/net/if_inet6")
		if strings.Contains(string(b), "eth0") {
			t.Errorf("IPv6 on a network without: %s", b)
		}
		return err
	}))
}

// A UDP client that never stops sending reaches whoever has the port now.
func TestUDPFollowsThePort(t *testing.T) {
	w := newWorld(t, nil)
	var c net.Conn
	must(t, kernel.In(w.outside, func() (err error) {
		c, err = net.Dial("udp", "198.51.100.1:5000")
		return err
	}))
	defer c.Close()
	ask := func() string {
		buf := make([]byte, 100)
		for until := time.Now().Add(patience); time.Now().Before(until); {
			c.SetDeadline(time.Now().Add(100 * time.Millisecond))
			c.Write([]byte("x"))
			if n, err := c.Read(buf); err == nil {
				return strings.TrimSpace(string(buf[:n]))
			}
		}
		return ""
	}
	c.Write([]byte("nobody is there yet"))
	for _, name := range []string{"first", "second"} {
		b := w.box(w.request(name, nil, "5000:80/udp"))
		serve(t, b.ns, 80, name)
		expect(t, name, ask(), name+" 198.51.100.2")
		must(t, w.m.Detach(context.Background(), b.id, ""))
	}
}

func TestSources(t *testing.T) {
	w := newWorld(t, nil)
	r := w.request("web", nil, "8080:80", "8081:81")
	r.Ports[0].Sources = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	r.Ports[1].Sources = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	b := w.box(r)
	serve(t, b.ns, 80, "web")
	serve(t, b.ns, 81, "web")
	expect(t, "not allowed", silent(t, w.outside, "tcp", "198.51.100.1:8080"), "")
	expect(t, "not allowed, IPv6", silent(t, w.outside, "tcp", "[2001:db8:1::1]:8080"), "")
	expect(t, "allowed", call(t, w.outside, "tcp", "198.51.100.1:8081"), "web 198.51.100.2")
}

func TestUpdatePorts(t *testing.T) {
	w := newWorld(t, nil)
	b := w.box(w.request("web", nil, "8080:80", "8081:80"))
	serve(t, b.ns, 80, "web")
	at, err := w.m.UpdatePorts(b.id, []model.PortBinding{binding(t, "8082:80")}, []model.PortBinding{binding(t, "8080:80")})
	must(t, err)
	expect(t, "8080", silent(t, w.outside, "tcp", "198.51.100.1:8080"), "")
	for port, want := range map[int]string{8081: "web 198.51.100.2", 8082: "web 198.51.100.2"} {
		expect(t, fmt.Sprint(port), call(t, w.outside, "tcp", fmt.Sprintf("198.51.100.1:%d", port)), want)
	}
	if len(at.Ports) != 4 {
		t.Errorf("%v", at.Ports)
	}
}

func TestWithoutRules(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.NoRules = true })
	b := w.box(w.request("web", nil, "8080:80", "8053:80/udp"))
	serve(t, b.ns, 80, "web")
	gw := b.at.Endpoints["bridge"].Gateway4.String()
	expect(t, "tcp", call(t, w.outside, "tcp", "198.51.100.1:8080"), "web "+gw)
	expect(t, "udp", call(t, w.outside, "udp", "198.51.100.1:8053"), "web "+gw)
	if _, whole, err := w.m.k.Rules(); whole || err != nil {
		t.Error("there is a table", err)
	}
}

func TestNames(t *testing.T) {
	w := newWorld(t, nil)
	ctx := context.Background()
	for _, n := range []string{"a", "b"} {
		_, err := w.m.Create(ctx, model.NetworkSpec{Name: n, IPv4: true})
		must(t, err)
	}
	upstream(t, w.outside)
	on := func(name, net string, spec model.EndpointSpec) *box {
		r := w.request(name, map[string]model.EndpointSpec{net: spec})
		r.Names.DNS = []string{outsideAddr.String()}
		return w.box(r)
	}
	web1, web2 := on("web1", "a", model.EndpointSpec{Aliases: []string{"Web"}}), on("web2", "a", model.EndpointSpec{Aliases: []string{"web"}})
	c := on("client", "a", model.EndpointSpec{Links: []string{"web1:db"}})
	far := on("far", "b", model.EndpointSpec{})
	ip1, ip2 := web1.ip("a").String(), web2.ip("a").String()
	for name, want := range map[string]string{"web1": ip1, "WEB2": ip2, "web": ip1 + " " + ip2, "web1.a": ip1, "db": ip1, web1.id[:12]: ip1,
		"far": "", "far.b": "", "nobody": "", "example.org": "192.0.2.80"} {
		expect(t, name, lookup(t, c.ns, name), want)
	}
	expect(t, "other network", lookup(t, far.ns, "web1"), "")
	if r := query(t, c.ns, "udp", "web1", dns.TypeAAAA); r == nil || r.Rcode != dns.RcodeSuccess || len(r.Answer) != 0 {
		t.Errorf("no IPv6 address: %v", r)
	}
	rev, _ := dns.ReverseAddr(ip1)
	if r := query(t, c.ns, "udp", rev, dns.TypePTR); r == nil || len(r.Answer) != 1 || r.Answer[0].(*dns.PTR).Ptr != "web1.a." {
		t.Errorf("reverse: %v", r)
	}
	free := strings.Replace(ip1, ".2", ".200", 1)
	rev, _ = dns.ReverseAddr(free)
	if r := query(t, c.ns, "udp", rev, dns.TypePTR); r == nil || r.Rcode != dns.RcodeNameError {
		t.Errorf("reverse of a free address: %v", r)
	}
	if r := query(t, c.ns, "tcp", "big.example", dns.TypeTXT); r == nil || len(r.Answer) != 1 {
		t.Errorf("large answer: %v", r)
	}
	if r := query(t, c.ns, "udp", "big.example", dns.TypeTXT); r == nil || !r.Truncated {
		t.Errorf("large answer over UDP: %v", r)
	}
	must(t, w.m.Detach(ctx, web1.id, ""))
	expect(t, "after it is gone", lookup(t, c.ns, "web"), ip2)
	start, n := time.Now(), 0
	for ; time.Since(start) < 200*time.Millisecond; n++ {
		query(t, c.ns, "udp", "web2", dns.TypeA)
	}
	t.Logf("%d answers per second to one client that waits for each", 5*n)
}

// upstream is a name server outside.
func upstream(t *testing.T, ns *os.File) {
	var u net.PacketConn
	var l net.Listener
	must(t, kernel.In(ns, func() (err error) {
		if u, err = net.ListenPacket("udp", ":53"); err == nil {
			l, err = net.Listen("tcp", ":53")
		}
		return err
	}))
	h := dns.HandlerFunc(func(rw dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg)
		a.SetReply(q)
		switch name := q.Question[0].Name; {
		case name == "example.org." && q.Question[0].Qtype == dns.TypeA:
			rr, _ := dns.NewRR("example.org. 60 IN A 192.0.2.80")
			a.Answer = append(a.Answer, rr)
		case name == "big.example.":
			a.Answer = append(a.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{strings.Repeat("x", 250), strings.Repeat("y", 250), strings.Repeat("z", 250)}})
			if rw.LocalAddr().Network() == "udp" {
				a.Truncate(dns.MinMsgSize)
			}
		default:
			a.Rcode = dns.RcodeNameError
		}
		rw.WriteMsg(a)
	})
	us, ts := &dns.Server{PacketConn: u, Handler: h}, &dns.Server{Listener: l, Handler: h}
	go us.ActivateAndServe()
	go ts.ActivateAndServe()
	t.Cleanup(func() { us.Shutdown(); ts.Shutdown() })
}

// A container that is a name server itself has port 53 for itself, and names all the same.
func TestNameServerInContainer(t *testing.T) {
	w := newWorld(t, nil)
	_, err := w.m.Create(context.Background(), model.NetworkSpec{Name: "a", IPv4: true})
	must(t, err)
	r := w.request("dns", map[string]model.EndpointSpec{"a": {}}, "5353:53/udp")
	b := w.box(r)
	serve(t, b.ns, 53, "mine")
	expect(t, "its own server", call(t, w.outside, "udp", "198.51.100.1:5353"), "mine 198.51.100.2")
	expect(t, "names", lookup(t, b.ns, "dns"), b.ip("a").String())
	if q := query(t, b.ns, "tcp", "dns", dns.TypeA); q == nil || len(q.Answer) != 1 {
		t.Errorf("over TCP: %v", q)
	}
}

func TestTwoDaemons(t *testing.T) {
	w := newWorld(t, nil)
	cfg := w.cfg
	cfg.Root += "2"
	cfg.Exec += "2"
	m, err := Open(cfg)
	must(t, err)
	if err := m.Restore(context.Background(), nil); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "another Shoal daemon") {
		t.Fatal(err)
	}
	m.Close()
	cfg.Root += "3"
	cfg.Bridge.Name = "shoal1"
	m, err = Open(cfg)
	must(t, err)
	must(t, m.Restore(context.Background(), nil))
	defer func() { m.k.RemoveRules(); m.Close() }()
	b := w.box(w.request("web", nil, "8080:80"))
	serve(t, b.ns, 80, "web")
	must(t, m.Audit(context.Background()))
	expect(t, "the first daemon's container", call(t, w.outside, "tcp", "198.51.100.1:8080"), "web 198.51.100.2")
	w2 := *w
	w2.m = m
	c := w2.box(w.request("web2", nil, "8081:80"))
	serve(t, c.ns, 80, "web2")
	expect(t, "the second daemon's container", call(t, w.outside, "tcp", "198.51.100.1:8081"), "web2 198.51.100.2")
	expect(t, "between daemons", silent(t, c.ns, "tcp", b.ip("bridge").String()+":80"), "")
}

// The kernel counts the packets that it had to send again.
func TestFirstPacketIsNotLost(t *testing.T) {
	w := newWorld(t, nil)
	serve(t, w.outside, 90, "outside")
	var lost []uint32
	for i := range 12 {
		b := w.box(w.request(fmt.Sprint("c", i), nil))
		must(t, kernel.In(b.ns, func() error {
			s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			must(t, err)
			defer unix.Close(s)
			if err := unix.Connect(s, &unix.SockaddrInet4{Addr: outsideAddr.As4(), Port: 90}); err != nil {
				return err
			}
			info, err := unix.GetsockoptTCPInfo(s, unix.IPPROTO_TCP, unix.TCP_INFO)
			if err == nil && info.Total_retrans > 0 {
				lost = append(lost, info.Total_retrans)
			}
			return err
		}))
	}
	if len(lost) > 1 { // one is forgiven to a machine that did not get to its packets for a second
		t.Errorf("first packets were lost: of %d connections %v", len(lost), lost)
	}
}

// A name server whose sockets were destroyed serves again, and is told; nothing spins meanwhile.
func TestNameServerIsRepaired(t *testing.T) {
	found := make(chan Finding, 8)
	w := newWorld(t, func(c *Config) { c.Report = func(f Finding) { found <- f } })
	_, err := w.m.Create(context.Background(), model.NetworkSpec{Name: "a", IPv4: true})
	must(t, err)
	b := w.box(w.request("web", map[string]model.EndpointSpec{"a": {}}))
	expect(t, "before", lookup(t, b.ns, "web"), b.ip("a").String())
	for range 2 {
		var out []byte
		err := kernel.In(b.ns, func() (err error) {
			out, err = exec.Command("ss", "-K", "-tul", "src", "127.0.0.11").CombinedOutput()
			return err
		})
		if err != nil || !strings.Contains(string(out), "127.0.0.11") {
			t.Skipf("sockets cannot be destroyed here: %v %s", err, out)
		}
		select {
		case f := <-found:
			if !strings.Contains(f.What, `name server of container "web"`) {
				t.Error(f)
			}
		case <-time.After(patience):
			t.Fatal("not noticed")
		}
		for until := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
			w.m.mu.Lock()
			serves := w.m.conts[b.id].dns != nil
			w.m.mu.Unlock()
			if serves {
				break
			}
			if time.Now().After(until) {
				t.Fatal("not served again")
			}
		}
		expect(t, "after", lookup(t, b.ns, "web"), b.ip("a").String())
	}
}

// What a container has directly on a link of the host comes back with that link.
func TestMacvlanIsRepaired(t *testing.T) {
	w := newWorld(t, nil)
	_, err := w.m.Create(context.Background(), model.NetworkSpec{Name: "m", Driver: model.DriverMacvlan, IPv4: true, Internal: true})
	must(t, err)
	b := w.box(w.request("web", map[string]model.EndpointSpec{"m": {}}))
	if got := w.m.conts[b.id].endpoints[0].Interface; got != "eth0" {
		t.Errorf("interface %q", got)
	}
	must(t, w.m.k.RemoveLink(w.m.nets[w.m.names["m"]].direct().Parent))
	for until := time.Now().Add(auditDelay); ; time.Sleep(20 * time.Millisecond) {
		there, err := w.m.k.HasInside(b.ns, "eth0")
		must(t, err)
		if there {
			break
		}
		if time.Now().After(until) {
			t.Fatal("not repaired")
		}
	}
}
