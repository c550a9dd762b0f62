package model

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/shoalhq/shoal/lib/errs"
)

func TestParsePort(t *testing.T) {
	for in, want := range map[string]string{"80": "80/tcp", "53/UDP": "53/udp", "9/sctp": "9/sctp",
		"0": "", "65536": "", "x": "", "": "", "80/": "", "80/icmp": "", "-1": "", "000080": ""} {
		got, err := ParsePort(in)
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("ParsePort(%q) = %v, %v; want %q", in, got, err, want)
		}
	}
}

func TestParsePortRange(t *testing.T) {
	for in, want := range map[string][2]uint16{"": {}, "80": {80, 80}, "8000-8010": {8000, 8010}, "0": {}} {
		a, b, err := ParsePortRange(in)
		if err != nil || [2]uint16{a, b} != want {
			t.Errorf("%q: %d-%d, %v", in, a, b, err)
		}
	}
	for _, in := range []string{"9-8", "-", "1-", "1-70000", "a"} {
		if _, _, err := ParsePortRange(in); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestMAC(t *testing.T) {
	m, err := ParseMAC("02-42-AC.1100:02")
	if err != nil || m.String() != "02:42:ac:11:00:02" {
		t.Fatal(m, err)
	}
	for _, bad := range []string{"", "02:42", "01:00:00:00:00:00", "zz:42:ac:11:00:02"} {
		if _, err := ParseMAC(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func TestEndpointJSONRoundTrip(t *testing.T) {
	in := Endpoint{ID: "e", IPv4: netip.MustParsePrefix("172.17.0.2/16"), MAC: MAC{2, 1}, Spec: EndpointSpec{Aliases: []string{"a"}}}
	data, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out Endpoint
	if err := json.Unmarshal(data, &out); err != nil || out.IPv4 != in.IPv4 || out.MAC != in.MAC || out.IPv6.IsValid() {
		t.Fatal(string(data), out, err)
	}
}

func TestNetworkSpecValidate(t *testing.T) {
	pool := func(s string) IPPool { return IPPool{Subnet: netip.MustParsePrefix(s)} }
	ok := NetworkSpec{Name: "a_b", Driver: DriverBridge, IPv4: true, IPAM: IPAM{Pools: []IPPool{pool("10.0.0.0/24"), pool("10.0.1.0/24")}}}
	if err := ok.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*NetworkSpec){
		"name":     func(s *NetworkSpec) { s.Name = "a b" },
		"family":   func(s *NetworkSpec) { s.IPv4 = false },
		"overlap":  func(s *NetworkSpec) { s.IPAM.Pools = []IPPool{pool("10.0.0.0/16"), pool("10.0.1.0/24")} },
		"hostbits": func(s *NetworkSpec) { s.IPAM.Pools = []IPPool{pool("10.0.0.1/24")} },
		"v6 off":   func(s *NetworkSpec) { s.IPAM.Pools = []IPPool{pool("fd00::/64")} },
		"gateway": func(s *NetworkSpec) {
			p := pool("10.0.0.0/24")
			p.Gateway = netip.MustParseAddr("10.1.0.1")
			s.IPAM.Pools = []IPPool{p}
		},
		"no subnet": func(s *NetworkSpec) { s.IPAM.Pools = []IPPool{{Gateway: netip.MustParseAddr("10.1.0.1")}} },
	} {
		s := ok
		change(&s)
		if err := s.Validate(); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
