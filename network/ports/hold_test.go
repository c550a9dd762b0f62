package ports

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

var loop = []netip.Addr{netip.MustParseAddr("127.0.0.1")}

func newHolder() *Holder { return New(slog.New(slog.DiscardHandler)) }

func TestConflictNamesTheOwner(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h := newHolder()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	_, err = h.Hold(model.TCP, loop, port, 0, make([]Target, 1))
	if !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "pid ") {
		t.Fatal(err)
	}
	got, err := h.Hold(model.UDP, loop, 0, 0, []Target{{Owner: `container "a"`}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = h.Hold(model.UDP, loop, got, 0, make([]Target, 1)); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), `container "a"`) {
		t.Fatal(err)
	}
	h.Release(Key{model.UDP, netip.AddrPortFrom(loop[0], got)})
	if _, err = h.Hold(model.UDP, loop, got, 0, make([]Target, 1)); err != nil || h.Len() != 1 {
		t.Fatal(err)
	}
}

func TestRangeTakesTheNextFree(t *testing.T) {
	h := newHolder()
	first, err := h.Hold(model.TCP, loop, 0, 0, make([]Target, 1))
	if err != nil {
		t.Fatal(err)
	}
	next, err := h.Hold(model.TCP, loop, first, first+20, make([]Target, 1))
	if err != nil || next <= first {
		t.Fatal(next, err)
	}
}

func TestAddressOfAnotherHost(t *testing.T) {
	_, err := newHolder().Hold(model.TCP, []netip.Addr{loop[0], netip.MustParseAddr("192.0.2.250")}, 0, 0, make([]Target, 2))
	if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "192.0.2.250") {
		t.Fatal(err)
	}
}

func TestRelay(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	go func() {
		c, err := tcp.Accept()
		if err == nil {
			b, _ := io.ReadAll(c)
			c.Write(append([]byte("got "), b...))
			c.Close()
		}
	}()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			udp.WriteTo(append([]byte("got "), b[:n]...), from)
		}
	}()
	h := newHolder()
	for network, addr := range map[string]net.Addr{"tcp": tcp.Addr(), "udp": udp.LocalAddr()} {
		p, err := h.Hold(model.Proto(network), loop, 0, 0, []Target{{To: netip.MustParseAddrPort(addr.String())}})
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial(network, netip.AddrPortFrom(loop[0], p).String())
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("hello"))
		if t, ok := c.(*net.TCPConn); ok {
			t.CloseWrite()
		}
		b := make([]byte, 100)
		n, err := c.Read(b)
		if err != nil || string(b[:n]) != "got hello" {
			t.Fatalf("%s: %q %v", network, b[:n], err)
		}
		c.Close()
		h.Release(Key{model.Proto(network), netip.AddrPortFrom(loop[0], p)})
	}
	if h.Len() != 0 {
		t.Fatal(h.Len())
	}
}
