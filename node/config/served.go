package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
)

// checkServed completes addresses and TLS files as dockerd does, and refuses what cannot be served.
func (a *API) checkServed() error {
	if len(a.Hosts) == 0 {
		a.Hosts = []string{DefaultHost}
	}
	a.TLS = a.TLS || a.TLSVerify
	for i, h := range a.Hosts {
		a.Hosts[i] = wholeHost(h, a.TLS)
	}
	if !a.TLS {
		return nil
	}
	dir := os.Getenv("DOCKER_CERT_PATH")
	if home, err := os.UserHomeDir(); dir == "" && err == nil {
		dir = filepath.Join(home, ".docker")
	}
	for _, f := range []struct {
		to         *string
		name, flag string
		wanted     bool
	}{{&a.CACert, "ca.pem", "--tlscacert", a.TLSVerify}, {&a.Cert, "cert.pem", "--tlscert", true}, {&a.Key, "key.pem", "--tlskey", true}} {
		if *f.to != "" || !f.wanted {
			continue
		}
		*f.to = filepath.Join(dir, f.name)
		if _, err := os.Stat(*f.to); errors.Is(err, fs.ErrNotExist) {
			return errs.New(errs.Invalid, "TLS is asked for without %s, and there is no %s, the place where it is looked for otherwise; name the file", f.flag, *f.to)
		}
	}
	return nil
}

// wholeHost adds to an address what dockerd lets people leave out: "unix://" is the default socket, an address without "://" is
// tcp, a missing port is 2375, with TLS 2376.
func wholeHost(h string, tls bool) string {
	proto, addr, ok := strings.Cut(h, "://")
	switch {
	case strings.HasPrefix(h, "/"):
		return "unix://" + h
	case !ok:
		proto, addr = "tcp", h
	case h == "unix://":
		return DefaultHost
	}
	if proto != "tcp" {
		return h
	}
	addr = strings.TrimRight(addr, "/")
	port := map[bool]string{false: "2375", true: "2376"}[tls]
	switch end := strings.LastIndexByte(addr, ':'); {
	case addr == "":
		addr = "127.0.0.1:" + port
	case end < 0, strings.HasSuffix(addr, "]"):
		addr += ":" + port
	case end == len(addr)-1:
		addr += port
	}
	return "tcp://" + addr
}
