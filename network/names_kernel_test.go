//go:build kernel

package network

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/shoalhq/shoal/network/kernel"
)

// lookup asks the name server inside a namespace for the IPv4 addresses of a name.
func lookup(t *testing.T, ns *os.File, name string) string {
	t.Helper()
	r := query(t, ns, "udp", name, dns.TypeA)
	if r == nil {
		return ""
	}
	var out []string
	for _, a := range r.Answer {
		if a, ok := a.(*dns.A); ok {
			out = append(out, a.A.String())
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func query(t *testing.T, ns *os.File, network, name string, typ uint16) (r *dns.Msg) {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), typ)
	c := dns.Client{Net: network, Timeout: patience}
	kernel.In(ns, func() (err error) {
		r, _, err = c.Exchange(q, "127.0.0.11:53")
		return err
	})
	return r
}
