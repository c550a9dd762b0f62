package resolv

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/lib/errs"
)

func TestMerge(t *testing.T) {
	host := Parse([]byte("# c\nnameserver 127.0.0.53\nnameserver 192.0.2.1 # x\nsearch a.example b.example\noptions edns0 trust-ad\nsortlist x\n"))
	for name, c := range map[string]struct {
		s        Settings
		embedded bool
		want     string
	}{
		"host's":   {Settings{}, false, "nameserver 192.0.2.1\nsearch a.example b.example\noptions edns0 trust-ad\n"},
		"embedded": {Settings{}, true, "nameserver 127.0.0.11\nsearch a.example b.example\noptions edns0 trust-ad ndots:0\n"},
		"user's":   {Settings{[]string{"8.8.8.8", "127.0.0.1"}, []string{"ndots:2"}, []string{"."}}, false, "nameserver 8.8.8.8\nnameserver 127.0.0.1\noptions ndots:2\n"},
	} {
		m, err := Merge(host, c.s)
		if err != nil {
			t.Fatal(err)
		}
		if _, got, _ := strings.Cut(string(m.Text(c.embedded)), "\n"); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if !Parse([]byte("nameserver ::1")).OnlyLoopback() || host.OnlyLoopback() {
		t.Error("OnlyLoopback")
	}
	for _, s := range []Settings{{Servers: []string{"x"}}, {Search: []string{"a\nnameserver 1.1.1.1"}}, {Options: []string{"a b"}}} {
		if _, err := Merge(host, s); !errs.Is(err, errs.Invalid) {
			t.Errorf("%v: %v", s, err)
		}
	}
}

func TestHosts(t *testing.T) {
	gw := netip.MustParseAddr("172.17.0.1")
	extra, err := ExtraHosts([]string{"a:10.0.0.1", "b:host-gateway", "c:[fd00::1]", "d=::2"}, []netip.Addr{gw})
	if err != nil {
		t.Fatal(err)
	}
	got := string(Hosts(false, extra, []Entry{{netip.MustParseAddr("172.17.0.2"), []string{"web.example", "web"}}}))
	want := "127.0.0.1\tlocalhost\n10.0.0.1\ta\n172.17.0.1\tb\nfd00::1\tc\n::2\td\n172.17.0.2\tweb.example web\n"
	if got != want {
		t.Fatalf("%q, want %q", got, want)
	}
	for _, bad := range []string{"a", ":1", "a:b", "a:1.1.1.1\n2.2.2.2 x"} {
		if _, err := ExtraHosts([]string{bad}, nil); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := ExtraHosts([]string{"a:host-gateway"}, nil); err == nil {
		t.Error("no gateway")
	}
	if !slices.Contains(strings.Split(string(Hosts(true, nil, nil)), "\n"), "ff02::1\tip6-allnodes") {
		t.Error("no IPv6 names")
	}
}
