package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoalhq/shoal/model"
)

// TestInternalNetworksAskNobodyThroughTheHost: CVE-2024-29018, names of an internal network's containers sent out by the host.
func TestInternalNetworksAskNobodyThroughTheHost(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	ok(t, os.WriteFile(file, []byte("nameserver 127.0.0.53\nnameserver 192.0.2.1\n"), 0o644))
	in, out := &endpoint{net: &state{}}, &endpoint{net: &state{}}
	in.net.NetworkSpec = model.NetworkSpec{Internal: true}
	for _, k := range []struct {
		eps  []*endpoint
		own  []netip.Addr
		want int
	}{
		{[]*endpoint{in}, nil, 1},
		{[]*endpoint{in, out}, nil, 2},
		{[]*endpoint{in}, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, 1}, // the container's own loopback
		{[]*endpoint{out}, []netip.Addr{netip.MustParseAddr("127.0.0.11"), netip.MustParseAddr("192.0.2.1")}, 1}, // never this server itself
	} {
		r := &resolver{own: k.own, host: &hostConf{path: file}}
		r.endpoints.Store(&k.eps)
		got := r.Upstreams()
		if len(got) != k.want {
			t.Errorf("%d networks, own %v: %v", len(k.eps), k.own, got)
		}
		for _, u := range got {
			if u.Host && len(k.eps) == 1 {
				t.Errorf("%v is asked from the host", u)
			}
		}
	}
}
