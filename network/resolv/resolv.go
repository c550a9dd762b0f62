// Package resolv makes the content of a container's /etc/hosts and /etc/resolv.conf. It is pure: the host's own files
// are given to it.
package resolv

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
)

// Embedded is where the engine's own DNS server answers inside a container.
var Embedded = netip.MustParseAddr("127.0.0.11")

// Conf is what a resolv.conf says. Other lines are dropped.
type Conf struct {
	Nameservers []netip.Addr
	Search      []string
	Options     []string
}

// Parse reads a resolv.conf. Zones of link-local name servers are kept.
func Parse(data []byte) Conf {
	var c Conf
	for line := range strings.Lines(string(data)) {
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil {
				c.Nameservers = append(c.Nameservers, a)
			}
		case "search", "domain":
			c.Search = f[1:]
		case "options":
			c.Options = append(c.Options, f[1:]...)
		}
	}
	return c
}

// OnlyLoopback says that the host's name servers can be reached from the host alone.
func (c Conf) OnlyLoopback() bool {
	return !slices.ContainsFunc(c.Nameservers, func(a netip.Addr) bool { return !a.IsLoopback() })
}

// Settings are a user's choices for one container; nil means the host's.
type Settings struct {
	Servers []string
	Options []string
	Search  []string
}

// Merge gives what a container's resolver uses: the user's choices before the host's, without name servers that only
// the host can reach. A search of "." means none.
func Merge(host Conf, s Settings) (Conf, error) {
	c := Conf{Search: host.Search, Options: host.Options}
	for _, a := range host.Nameservers {
		if !a.IsLoopback() {
			c.Nameservers = append(c.Nameservers, a)
		}
	}
	if len(s.Servers) > 0 {
		c.Nameservers = nil
		for _, t := range s.Servers {
			a, err := netip.ParseAddr(t)
			if err != nil {
				return c, errs.New(errs.Invalid, "DNS server %q is not an IP address", t)
			}
			c.Nameservers = append(c.Nameservers, a)
		}
	}
	if len(s.Search) > 0 {
		c.Search = slices.DeleteFunc(slices.Clone(s.Search), func(d string) bool { return d == "." || d == "" })
	}
	if len(s.Options) > 0 {
		c.Options = s.Options
	}
	for _, w := range append(slices.Clone(c.Search), c.Options...) {
		if strings.ContainsAny(w, " \t\r\n#;") {
			return c, errs.New(errs.Invalid, "DNS search domain or option %q has a space, a line end or a comment sign in it", w)
		}
	}
	return c, nil
}

// Text writes a resolv.conf. With embedded, the engine's server is the only one, and names without a dot are asked for
// as they are first.
func (c Conf) Text(embedded bool) []byte {
	var b strings.Builder
	b.WriteString("# Written by Shoal for this container, anew at every start.\n")
	if embedded {
		fmt.Fprintf(&b, "nameserver %s\n", Embedded)
	} else {
		for _, a := range c.Nameservers {
			fmt.Fprintf(&b, "nameserver %s\n", a)
		}
	}
	if len(c.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.Search, " "))
	}
	opts := c.Options
	if embedded && !slices.ContainsFunc(opts, func(o string) bool { return strings.HasPrefix(o, "ndots:") }) {
		opts = append(slices.Clone(opts), "ndots:0")
	}
	if len(opts) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(opts, " "))
	}
	return []byte(b.String())
}

// HostGateway is the word in an extra host that stands for the host's own address.
const HostGateway = "host-gateway"

// Entry is one line of /etc/hosts.
type Entry struct {
	Addr  netip.Addr
	Names []string
}

// ExtraHosts reads "name:address" and "name=address"; the address may be host-gateway, in brackets if IPv6, and stands
// for the given addresses of the host then.
func ExtraHosts(lines []string, gateways []netip.Addr) ([]Entry, error) {
	var out []Entry
	for _, l := range lines {
		i := strings.IndexAny(l, ":=")
		if i <= 0 || strings.ContainsAny(l, " \t\r\n#") {
			return nil, errs.New(errs.Invalid, "extra host %q: want NAME:ADDRESS", l)
		}
		name, text := l[:i], strings.TrimSuffix(strings.TrimPrefix(l[i+1:], "["), "]")
		if text == HostGateway {
			if len(gateways) == 0 {
				return nil, errs.New(errs.Invalid, "extra host %q: the container has no way to the host on which the host has an address", l)
			}
			for _, g := range gateways {
				out = append(out, Entry{g, []string{name}})
			}
			continue
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, errs.New(errs.Invalid, "extra host %q: %q is not an IP address", l, text)
		}
		out = append(out, Entry{a, []string{name}})
	}
	return out, nil
}

// Hosts writes an /etc/hosts: the loopback, the extra hosts, and the container's own addresses with its names.
func Hosts(ipv6 bool, extra, own []Entry) []byte {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n")
	if ipv6 {
		b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	}
	for _, e := range append(slices.Clone(extra), own...) {
		fmt.Fprintf(&b, "%s\t%s\n", e.Addr, strings.Join(e.Names, " "))
	}
	return []byte(b.String())
}
