//go:build kernel

package network

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/kernel"
)

// world is a host with an uplink to a machine outside.
type world struct {
	t       *testing.T
	m       *Manager
	cfg     Config
	outside *os.File
}

var (
	hostAddr    = netip.MustParseAddr("198.51.100.1")
	outsideAddr = netip.MustParseAddr("198.51.100.2")
)

// patience is for what comes by itself, on a machine that is busy with much else.
const patience = 20 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T, change func(*Config)) *world {
	dir := t.TempDir()
	w := &world{t: t, cfg: Config{Root: filepath.Join(dir, "root"), Exec: filepath.Join(dir, "exec"),
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}}
	if change != nil {
		change(&w.cfg)
	}
	w.uplink()
	w.open()
	t.Cleanup(func() {
		w.m.Close()
		links, _ := netlink.LinkList()
		for _, l := range links {
			if l.Attrs().Name != "lo" {
				netlink.LinkDel(l)
			}
		}
		w.m.k.RemoveRules()
		w.outside.Close()
	})
	return w
}

func (w *world) open(live ...Live) {
	w.t.Helper()
	m, err := Open(w.cfg)
	must(w.t, err)
	w.m = m
	must(w.t, m.Restore(context.Background(), live))
}

func (w *world) uplink() {
	t := w.t
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	k, err := kernel.Open("unused", "unused")
	must(t, err)
	defer k.Close()
	w.outside, err = k.Namespace(nil)
	must(t, err)
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "uplink0", MTU: 1400}, PeerName: "out0", PeerMTU: 1400, PeerNamespace: netlink.NsFd(int(w.outside.Fd()))}))
	setup := func(name string, addrs ...string) {
		l, err := netlink.LinkByName(name)
		must(t, err)
		for _, a := range addrs {
			addr, err := netlink.ParseAddr(a)
			must(t, err)
			if addr.IP.To4() == nil {
				addr.Flags = 0x02 // IFA_F_NODAD
			}
			must(t, netlink.AddrAdd(l, addr))
		}
		must(t, netlink.LinkSetUp(l))
		netlink.LinkByName(name) // lets the link carry packets at once, see kernel.Real.Plug
	}
	must(t, kernel.In(w.outside, func() error {
		os.WriteFile("/proc/sys/net/ipv6/conf/out0/disable_ipv6", []byte("0"), 0)
		setup("out0", "198.51.100.2/24", "2001:db8:1::2/64")
		return nil
	}))
	setup("uplink0", "198.51.100.1/24", "2001:db8:1::1/64")
	must(t, kernel.In(w.outside, func() error { _, err := netlink.LinkByName("out0"); return err }))
	must(t, netlink.RouteAdd(&netlink.Route{Gw: outsideAddr.AsSlice()}))
}

// box is a container without processes.
type box struct {
	w  *world
	id string
	ns *os.File
	at Attachment
	r  AttachRequest
}

func (w *world) request(name string, nets map[string]model.EndpointSpec, ports ...string) AttachRequest {
	if nets == nil {
		nets = map[string]model.EndpointSpec{"bridge": {}}
	}
	r := AttachRequest{ContainerID: ids.New(), Name: name, Hostname: name, Endpoints: nets}
	for _, p := range ports {
		r.Ports = append(r.Ports, binding(w.t, p))
	}
	return r
}

// binding reads "[host-ip|]host-port:container-port[/proto]".
func binding(t *testing.T, s string) model.PortBinding {
	ip, rest, ok := strings.Cut(s, "|")
	if !ok {
		ip, rest = "", s
	}
	hp, cp, _ := strings.Cut(rest, ":")
	port, err := model.ParsePort(cp)
	must(t, err)
	b := model.PortBinding{Port: port}
	b.HostPort, b.HostPortEnd, err = model.ParsePortRange(hp)
	must(t, err)
	if ip != "" {
		b.HostIP = netip.MustParseAddr(ip)
	}
	return b
}

func (w *world) box(r AttachRequest) *box {
	w.t.Helper()
	b, err := w.tryBox(r)
	must(w.t, err)
	return b
}

func (w *world) tryBox(r AttachRequest) (*box, error) {
	ns, err := w.m.Namespace(context.Background(), nil)
	must(w.t, err)
	r.Namespace = ns
	at, err := w.m.Attach(context.Background(), r)
	if err != nil {
		ns.Close()
		return nil, err
	}
	b := &box{w: w, id: r.ContainerID, ns: ns, at: at, r: r}
	w.t.Cleanup(func() { ns.Close() })
	return b, nil
}

func (b *box) ip(net string) netip.Addr  { return b.at.Endpoints[net].IPv4.Addr() }
func (b *box) ip6(net string) netip.Addr { return b.at.Endpoints[net].IPv6.Addr() }

// serve answers in a namespace with a greeting and the client's address, on TCP and UDP.
func serve(t *testing.T, ns *os.File, port uint16, greeting string) {
	t.Helper()
	var l net.Listener
	var u net.PacketConn
	must(t, kernel.In(ns, func() (err error) {
		if l, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			u, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		}
		return err
	}))
	t.Cleanup(func() { l.Close(); u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s %s\n", greeting, clientIP(c.RemoteAddr()))
			c.Close()
		}
	}()
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			u.WriteTo([]byte(greeting+" "+clientIP(from)+"\n"), from)
		}
	}()
}

func clientIP(a net.Addr) string {
	host, _, _ := net.SplitHostPort(a.String())
	return strings.TrimPrefix(host, "::ffff:")
}

// call asks a server from a namespace (nil: the host) and gives its answer, or "" when there is none. The time is for
// a busy machine; that the first packet is not lost has a test of its own.
func call(t *testing.T, ns *os.File, network, addr string) string {
	t.Helper()
	return callFor(t, ns, network, addr, patience)
}

// silent is call where no answer is expected.
func silent(t *testing.T, ns *os.File, network, addr string) string {
	t.Helper()
	return callFor(t, ns, network, addr, 400*time.Millisecond)
}

func callFor(t *testing.T, ns *os.File, network, addr string, limit time.Duration) string {
	t.Helper()
	var c net.Conn
	dial := func() (err error) {
		c, err = net.DialTimeout(network, addr, limit)
		return err
	}
	var err error
	if ns == nil {
		err = dial()
	} else {
		err = kernel.In(ns, dial)
	}
	if err != nil {
		return ""
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	c.Write([]byte("hello"))
	line, _ := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line)
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}
