package model

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
)

// TestPortBindingKeepsAllInJSON: the embedded Port has a text form, which must not stand for the whole binding.
func TestPortBindingKeepsAllInJSON(t *testing.T) {
	in := PortBinding{Port: Port{80, TCP}, HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8080, HostPortEnd: 8090,
		Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	data, err := json.Marshal([]PortBinding{in})
	if err != nil {
		t.Fatal(err)
	}
	var out []PortBinding
	if err := json.Unmarshal(data, &out); err != nil || len(out) != 1 || !reflect.DeepEqual(out[0], in) {
		t.Fatalf("%s → %+v, %v", data, out, err)
	}
}
