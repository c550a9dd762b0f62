package server

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
)

// refuseWebPages keeps web pages, which the user's browser lets talk to every address of the user's machine, from using an
// API that listens on TCP. A page sends where it comes from, with every request but plain reads, and opens WebSockets; only
// one whose name was bound to this address (DNS rebinding) need not: then the request bears a name that is not ours. On a
// unix socket no browser can be.
func refuseWebPages(r *http.Request) error {
	local, tcp := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !tcp {
		return nil
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
			return errs.New(errs.Forbidden, "the request comes from a web page of %q: pages of others cannot use this API; leave the Origin header out if it was no browser", origin)
		}
	}
	if known := r.TLS != nil && len(r.TLS.PeerCertificates) > 0; known || !local.IP.IsLoopback() || ownName(r.Host) {
		return nil
	}
	return errs.New(errs.Forbidden, "the request is for host %q, which is not a name of this machine's loopback address: "+
		"use localhost, an IP address or the machine's own name", r.Host)
}

// ownName says whether a Host header may name this machine: an address, localhost, the machine's name, or a name without
// dots, which nobody can register.
func ownName(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	if _, err := netip.ParseAddr(name); err == nil || !strings.Contains(name, ".") || strings.HasSuffix(name, ".localhost") {
		return true
	}
	own, err := os.Hostname()
	return err == nil && name == strings.ToLower(own)
}
