package plan

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoalhq/shoal/model"
)

func TestElems(t *testing.T) {
	ip := netip.MustParseAddr
	for name, c := range map[string]struct {
		got  []Elem
		want []Elem
	}{
		"all addresses": {Forward{Proto: model.TCP, HostIP: ip("0.0.0.0"), HostPort: 0x1f90, Target: ip("172.17.0.2"), ContainerPort: 80}.Elems(),
			[]Elem{{Set: MapAny4, Key: "\x06\x00\x00\x00\x1f\x90\x00\x00", Val: "\xac\x11\x00\x02\x00\x50\x00\x00"}}},
		"one address": {Forward{Proto: model.UDP, HostIP: ip("127.0.0.1"), HostPort: 53, Target: ip("172.17.0.2"), ContainerPort: 53}.Elems(),
			[]Elem{{Set: MapPub4, Key: "\x11\x00\x00\x00\x7f\x00\x00\x01\x00\x35\x00\x00", Val: "\xac\x11\x00\x02\x00\x35\x00\x00"}}},
		"internal": {Access{Bridge: "b", Internal: true, V4: FamilyAccess{Masq: true}, ICC: true}.Elems(),
			[]Elem{{Set: SetOwn, Key: Name("b") + Name("b")}, {Set: SetBridges, Key: Name("b")}, {Set: SetSame, Key: Name("b") + Name("b")}, {Set: SetInternal, Key: Name("b")}}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %q, want %q", name, c.got, c.want)
		}
	}
	limited := Forward{Proto: model.TCP, HostIP: ip("0.0.0.0"), HostPort: 1, Target: ip("10.0.0.2"), ContainerPort: 2,
		Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.77/24"), netip.MustParsePrefix("fd00::/8")}}.Elems()
	if len(limited) != 3 || limited[2].Key[:4] != "\xc0\x00\x02\x00" || limited[2].KeyEnd[:4] != "\xc0\x00\x02\xff" {
		t.Errorf("%q", limited)
	}
}

func TestNames(t *testing.T) {
	id := "0123456789abcdef0123456789abcdef"
	if n := HostLink("fedcba", id); n != "svfedc-01234567" || len(n) != 15 {
		t.Error(n)
	}
	if m := MACFor(netip.MustParseAddr("172.17.0.2")); m.String() != "02:42:ac:11:00:02" {
		t.Error(m)
	}
}

// Applying a difference to what is there gives what should be, and applying it twice changes nothing.
func TestDiffProperties(t *testing.T) {
	rules := rapid.Custom(func(t *rapid.T) Rules {
		r := Rules{}
		for range rapid.IntRange(0, 12).Draw(t, "n") {
			r.Add(Elem{Set: rapid.SampledFrom([]Set{MapAny4, SetBridges}).Draw(t, "set"),
				Key: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key"), Val: rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "val")})
		}
		return r
	})
	rapid.Check(t, func(t *rapid.T) {
		have, want := rules.Draw(t, "have"), rules.Draw(t, "want")
		del, add := Diff(have, want)
		have.Remove(del...)
		have.Add(add...)
		if !slices.Equal(have.All(), want.All()) {
			t.Fatalf("%q, want %q", have.All(), want.All())
		}
		if del, add = Diff(have, want); len(del)+len(add) != 0 {
			t.Fatal("still a difference")
		}
	})
}
