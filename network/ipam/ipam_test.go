package ipam

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"pgregory.net/rapid"
)

func pool(t testing.TB, subnet string) *Pool {
	t.Helper()
	p, err := New(model.IPPool{Subnet: netip.MustParsePrefix(subnet)}, true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFreshFirstThenLongestReleased(t *testing.T) {
	p := pool(t, "10.0.0.0/29") // gateway .1, hosts .2 to .6
	var got []string
	take := func() {
		a, err := p.Take("c")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, a.String())
	}
	take()
	take()
	p.Release(netip.MustParseAddr("10.0.0.3"))
	p.Release(netip.MustParseAddr("10.0.0.2"))
	for range 5 {
		take()
	}
	if want := "[10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6 10.0.0.3 10.0.0.2]"; fmt.Sprint(got) != want {
		t.Fatalf("%v, want %s", got, want)
	}
	if _, err := p.Take("c"); !errs.Is(err, errs.Exhausted) {
		t.Fatal(err)
	}
}

func TestTakeAddrSaysWho(t *testing.T) {
	p := pool(t, "10.0.0.0/24")
	if err := p.TakeAddr(netip.MustParseAddr("10.0.0.9"), "container web"); err != nil {
		t.Fatal(err)
	}
	for addr, kind := range map[string]errs.Kind{"10.0.0.9": errs.Conflict, "10.0.0.1": errs.Conflict, "10.0.0.255": errs.Conflict, "10.0.1.1": errs.Invalid} {
		if err := p.TakeAddr(netip.MustParseAddr(addr), "x"); !errs.Is(err, kind) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestSmallAndWideSubnets(t *testing.T) {
	for subnet, want := range map[string]string{"10.0.0.0/30": "10.0.0.2", "10.0.0.0/31": "10.0.0.1", "fd00::/64": "fd00::2", "0.0.0.0/1": "0.0.0.2"} {
		if a, err := pool(t, subnet).Take("c"); err != nil || a.String() != want {
			t.Errorf("%s: %v %v", subnet, a, err)
		}
	}
	if _, err := pool(t, "10.0.0.7/32").Take("c"); !errs.Is(err, errs.Exhausted) {
		t.Error(err)
	}
	p, err := New(model.IPPool{Subnet: netip.MustParsePrefix("255.255.255.252/30")}, true)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := p.Take("c"); err != nil || a.String() != "255.255.255.254" {
		t.Error(a, err)
	}
}

// The pool against a dumb model: any sequence of operations never hands out what is used, and never says it is full
// while an address of the range is free.
func TestPoolProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, err := New(model.IPPool{Subnet: netip.MustParsePrefix("10.0.0.0/27"), Range: netip.MustParsePrefix("10.0.0.8/29"),
			AuxAddresses: map[string]netip.Addr{"x": netip.MustParseAddr("10.0.0.9")}}, true)
		if err != nil {
			t.Fatal(err)
		}
		held := map[netip.Addr]bool{}
		any := rapid.Custom(func(t *rapid.T) netip.Addr {
			return netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(0, 33).Draw(t, "host"))})
		})
		free := func() (n int) {
			for i := 8; i < 16; i++ {
				if a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}); !held[a] && i != 9 {
					n++
				}
			}
			return n
		}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				had := free()
				a, err := p.Take("c")
				if (err == nil) != (had > 0) {
					t.Fatalf("free %d, err %v", had, err)
				}
				if err == nil {
					if held[a] || !netip.MustParsePrefix("10.0.0.8/29").Contains(a) || a.String() == "10.0.0.9" {
						t.Fatalf("handed out %s", a)
					}
					held[a] = true
				}
			},
			"take address": func(t *rapid.T) {
				a := any.Draw(t, "a")
				if p.TakeAddr(a, "c") == nil {
					if held[a] {
						t.Fatalf("%s twice", a)
					}
					held[a] = true
				} else if !held[a] && a.As4()[3] > 1 && a.As4()[3] < 31 && a.As4()[3] != 9 {
					t.Fatalf("%s refused", a)
				}
			},
			"release": func(t *rapid.T) {
				a := any.Draw(t, "a")
				if held[a] {
					p.Release(a)
					p.Release(a)
					delete(held, a)
				}
			},
		})
	})
}

func TestChoose(t *testing.T) {
	pfx := func(ss ...string) (out []netip.Prefix) {
		for _, s := range ss {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	for _, c := range []struct {
		taken []netip.Prefix
		want  string
	}{
		{nil, "172.17.0.0/16"},
		{pfx("0.0.0.0/0"), "172.17.0.0/16"}, // the default route is no clash
		{pfx("172.17.0.0/16"), "172.18.0.0/16"},
		{pfx("172.16.0.0/12"), "192.168.0.0/20"},
		{pfx("172.16.0.0/12", "192.168.1.0/24"), "192.168.16.0/20"},
		{pfx("172.17.200.1/32"), "172.18.0.0/16"},
	} {
		got, err := Choose(DefaultBases(), false, c.taken)
		if err != nil || got.String() != c.want {
			t.Errorf("%v: %v %v, want %s", c.taken, got, err, c.want)
		}
	}
	if _, err := Choose(DefaultBases(), false, pfx("172.16.0.0/12", "192.168.0.0/16")); !errs.Is(err, errs.Exhausted) {
		t.Error(err)
	}
	if got, err := Choose([]Base{{netip.MustParsePrefix("fd12::/48"), 64}}, true, pfx("fd12::/64")); err != nil || got.String() != "fd12:0:0:1::/64" {
		t.Error(got, err)
	}
}
