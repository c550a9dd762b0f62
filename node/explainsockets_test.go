package node

import (
	"strings"
	"testing"
)

func TestParseSockets(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	v4 := head + "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1\n" +
		"   1: 0100007F:1F91 0100007F:0050 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1\n" // connected
	v6 := head + "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1\n" +
		"   0: 0000000000000000FFFF00000100007F:0051 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 2 1\n"
	got := parseSockets(strings.NewReader(v4), "tcp")
	if len(got) != 1 || got[0].Addr.String() != "127.0.0.1" || got[0].Port != 8080 || got[0].inode != "4711" {
		t.Error(got)
	}
	got = parseSockets(strings.NewReader(v6), "tcp")
	if len(got) != 2 || !got[0].Addr.IsUnspecified() || got[0].Port != 80 || got[1].Addr.String() != "127.0.0.1" {
		t.Error(got)
	}
}

func FuzzParseSockets(f *testing.F) {
	f.Add("head\n 0: 0100007F:1F90 0:0 0A 0 0 0 0 0 4711 1\n")
	f.Fuzz(func(_ *testing.T, s string) { parseSockets(strings.NewReader(s), "udp") })
}
