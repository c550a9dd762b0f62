package node

import (
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/node/config"
)

// A registry that cannot be served says what is missing.
func TestRegistryListenerRefuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		o    config.RegistryServer
		says string
	}{
		{config.RegistryServer{Listen: taken.Addr().String()}, "another program has this address"},
		{config.RegistryServer{Listen: "here"}, "want HOST:PORT"},
		{config.RegistryServer{Listen: "127.0.0.1:0", Cert: "/etc/hostname"}, "a certificate needs its key"},
		{config.RegistryServer{Listen: "127.0.0.1:0", Cert: "/does/not/exist", Key: "/does/not/exist"}, "/does/not/exist"},
		{config.RegistryServer{Listen: "0.0.0.0:0"}, "everybody who reaches this address"},
	} {
		l, err := registryListener(c.o, slog.New(slog.DiscardHandler))
		if err == nil {
			l.Close()
			t.Errorf("%+v was accepted", c.o)
		} else if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c.o, err)
		}
	}
}
