package dns

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

type fakeSource struct{ upstreams []Upstream }

func (f fakeSource) Lookup(name string) (v4, v6 []netip.Addr, known bool) {
	switch name {
	case "web":
		return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, []netip.Addr{netip.MustParseAddr("fd00::1")}, true
	case "many":
		for i := range 200 {
			v4 = append(v4, netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}))
		}
		return v4, nil, true
	}
	return nil, nil, false
}

func (f fakeSource) Reverse(a netip.Addr) (string, bool) {
	switch a.String() {
	case "10.0.0.1", "fd00::1":
		return "web.net", true
	case "10.0.0.2":
		return "", true
	}
	return "", false
}

func (f fakeSource) Upstreams() []Upstream { return f.upstreams }

func (f fakeSource) Dial(ctx context.Context, network string, u Upstream) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, u.Addr.String())
}

func start(t testing.TB, src Source) string {
	t.Helper()
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: u.LocalAddr().(*net.UDPAddr).Port})
	if err != nil {
		t.Fatal(err)
	}
	s := Serve(u, l, src, slog.New(slog.DiscardHandler), func(error) {})
	t.Cleanup(s.Close)
	return u.LocalAddr().String()
}

func ask(t testing.TB, network, addr, name string, typ uint16) *dns.Msg {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(name, typ)
	c := dns.Client{Net: network, Timeout: 2 * time.Second}
	r, _, err := c.Exchange(q, addr)
	if err != nil {
		t.Fatalf("%s %s: %v", network, name, err)
	}
	return r
}

func TestAnswers(t *testing.T) {
	addr := start(t, fakeSource{})
	for _, network := range []string{"udp", "tcp"} {
		for _, c := range []struct {
			name  string
			typ   uint16
			rcode int
			n     int
		}{
			{"web.", dns.TypeA, dns.RcodeSuccess, 1}, {"WeB.", dns.TypeAAAA, dns.RcodeSuccess, 1}, {"web.", dns.TypeMX, dns.RcodeSuccess, 0},
			{"1.0.0.10.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, 1}, {"2.0.0.10.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, 0},
			{"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, dns.RcodeSuccess, 1},
			{"elsewhere.", dns.TypeA, dns.RcodeServerFailure, 0}, // no upstream
		} {
			r := ask(t, network, addr, c.name, c.typ)
			if r.Rcode != c.rcode || len(r.Answer) != c.n || !r.RecursionAvailable {
				t.Errorf("%s %s: %v", network, c.name, r)
			}
		}
	}
	if r := ask(t, "udp", addr, "many.", dns.TypeA); !r.Truncated || len(r.Answer) < 20 {
		t.Errorf("truncated %v, %d answers", r.Truncated, len(r.Answer))
	}
	if r := ask(t, "tcp", addr, "many.", dns.TypeA); len(r.Answer) != 200 {
		t.Errorf("%d answers", len(r.Answer))
	}
}

func TestSecondUpstreamAnswers(t *testing.T) {
	first, err := net.ListenPacket("udp", "127.0.0.1:0") // answers with a failure
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := first.ReadFrom(b)
			if err != nil {
				return
			}
			b[2], b[3] = b[2]|0x80, dns.RcodeServerFailure
			first.WriteTo(b[:n], from)
		}
	}()
	second := start(t, fakeSource{})
	addr := start(t, noNames{fakeSource{[]Upstream{{Addr: netip.MustParseAddrPort(first.LocalAddr().String())}, {Addr: netip.MustParseAddrPort(second)}}}})
	if r := ask(t, "udp", addr, "web.", dns.TypeA); len(r.Answer) != 1 {
		t.Fatal(r)
	}
}

// noNames knows nothing itself.
type noNames struct{ fakeSource }

func (noNames) Lookup(string) (v4, v6 []netip.Addr, known bool) { return nil, nil, false }

func FuzzAnswer(f *testing.F) {
	q := new(dns.Msg)
	q.SetQuestion("web.", dns.TypeA)
	b, _ := q.Pack()
	f.Add(b)
	s := &Server{src: fakeSource{}}
	f.Fuzz(func(t *testing.T, b []byte) {
		var q dns.Msg
		if q.Unpack(b) == nil {
			if a := s.answer(&q); a != nil {
				a.Truncate(udpSize(&q))
				a.Pack()
			}
		}
	})
}

func BenchmarkUDP(b *testing.B) {
	addr := start(b, fakeSource{})
	q := new(dns.Msg)
	q.SetQuestion("web.", dns.TypeA)
	raw, _ := q.Pack()
	c, err := net.Dial("udp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 512)
	for b.Loop() {
		c.Write(raw)
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}
