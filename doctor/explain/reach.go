package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoalhq/shoal/doctor"
	"github.com/shoalhq/shoal/lib/plural"
	"github.com/shoalhq/shoal/model"
)

// reach says who cannot reach a running container, and why.
func reach(f Facts, c *Container) (out []Finding) {
	v := &c.View
	mode := v.Spec.Network.Mode
	switch {
	case mode == "none" || v.Spec.Network.Disabled:
		return []Finding{find("no-network", "it has no network but its own loopback", "connect it: shoal network connect NETWORK "+v.Name)}
	case mode == "host" || strings.HasPrefix(mode, "container:"):
		return nil // its sockets are the host's, or another container's
	}
	for _, p := range c.Published {
		out = append(out, published(f, c, p)...)
	}
	for _, port := range unpublished(c) {
		out = append(out, find("port-not-published", "port "+port+" is reached from the container's networks only: it is not published",
			fmt.Sprintf("shoal update --publish-add %s:%s %s", strings.TrimSuffix(strings.TrimSuffix(port, "/tcp"), "/udp"), port, v.Name)))
	}
	inside := len(c.Networks) > 0
	for _, n := range c.Networks {
		inside = inside && n.Internal
	}
	if inside {
		names := make([]string, len(c.Networks))
		for i := range c.Networks {
			names[i] = c.Networks[i].Name
		}
		out = append(out, find("network-internal", "all its networks are internal: nothing outside reaches it and it reaches nothing outside ("+strings.Join(names, ", ")+")",
			"connect it to another network as well: shoal network connect bridge "+v.Name))
	}
	return out
}

// unpublished lists ports that it offers, by its image or by listening, and that are not published.
func unpublished(c *Container) (ports []string) {
	add := func(p string) {
		for _, b := range c.Published {
			if b.Port.String() == p {
				return
			}
		}
		if !slices.Contains(ports, p) {
			ports = append(ports, p)
		}
	}
	for _, p := range c.View.Spec.Network.Exposed {
		add(p.String())
	}
	for _, l := range c.Listening {
		if !l.Addr.IsLoopback() && l.Proto == "tcp" {
			add(fmt.Sprintf("%d/%s", l.Port, l.Proto))
		}
	}
	return ports
}

func published(f Facts, c *Container, p Published) (out []Finding) {
	v := &c.View
	name := "port " + p.Port.String()
	if p.Problem != "" {
		return []Finding{find("port-unreachable", name+" is asked for but not published: "+p.Problem, "connect the container to a network that is not internal")}
	}
	at := fmt.Sprintf("published at %s port %d", hostAddress(p.PortBinding), p.HostPort)
	if p.HostIP.IsValid() && p.HostIP.IsLoopback() {
		out = append(out, find("published-on-loopback", name+" is published on "+p.HostIP.String()+": only this machine reaches it",
			fmt.Sprintf("publish it on all addresses if others shall: shoal update --publish-rm %s --publish-add %d:%s %s", p.Port, p.HostPort, p.Port, v.Name)))
	}
	if len(p.Sources) > 0 {
		from := make([]string, len(p.Sources))
		for i := range p.Sources {
			from[i] = p.Sources[i].String()
		}
		out = append(out, find("port-sources", name+" is open to some only: "+strings.Join(from, ", "), ""))
	}
	if c.Listened && p.Proto != "sctp" {
		out = append(out, listening(c, p, name, at)...)
	}
	if p.Daemon {
		out = append(out, find("port-through-daemon", "port "+p.PortBinding.String()+" is carried by the daemon: the container sees the host's address as the client's, and it rests while the daemon is down", ""))
		return out
	}
	if p.HostIP.IsValid() && p.HostIP.IsLoopback() {
		return out
	}
	for _, w := range f.Firewall {
		if w.Code == "firewall-drops-forward" {
			out = append(out, Finding{Code: w.Code, Severity: doctor.Warning, Cause: w.Cause, Fix: w.Fix, Evidence: []string{name + " is " + at}})
		}
	}
	return out
}

func hostAddress(b model.PortBinding) string {
	if !b.HostIP.IsValid() || b.HostIP.IsUnspecified() {
		return "every address"
	}
	return b.HostIP.String()
}

func listening(c *Container, p Published, name, at string) []Finding {
	var here []string
	for _, l := range c.Listening {
		if l.Proto != p.Proto || l.Port != p.Number {
			continue
		}
		if !l.Addr.IsLoopback() {
			return nil
		}
		here = append(here, l.Addr.String())
	}
	if len(here) > 0 {
		return []Finding{find("listens-on-loopback", "the program listens for "+name+" on "+strings.Join(here, " and ")+" of the container only: connections from outside are refused",
			"make the program listen on 0.0.0.0 or [::]", name+" is "+at)}
	}
	var others []string
	for _, l := range c.Listening {
		if l.Proto == p.Proto {
			others = append(others, fmt.Sprintf("%s port %d", l.Addr, l.Port))
		}
	}
	evidence := "nothing in the container listens on any " + string(p.Proto) + " port"
	if len(others) > 0 {
		evidence = "in the container something listens on " + strings.Join(others, ", ")
	}
	return []Finding{find("nobody-listens", "no program in the container listens on "+name, "wait until the program is ready, or publish the port that it does listen on", evidence, name+" is "+at)}
}

func network(n *Network) Report {
	r := Report{Kind: "network", Name: n.Name, ID: n.ID, State: fmt.Sprintf("driver %s, %s", n.Driver, plural.Of(len(n.Members), "container"))}
	if n.Predefined() {
		r.Findings = append(r.Findings, find("network-predefined", "every engine has this network; it cannot be removed", ""))
	} else if len(n.Members) > 0 {
		r.Findings = append(r.Findings, find("network-in-use", "it cannot be removed while containers are connected: "+strings.Join(n.Members, ", "),
			"shoal network disconnect -f "+n.Name+" CONTAINER, or remove the containers"))
	}
	if n.Internal {
		r.Findings = append(r.Findings, find("network-internal", "it is internal: its containers reach each other and nothing else, and no port of them is published",
			"use a network without --internal for what needs the outside"))
	}
	subnets := make([]string, 0, len(n.Free))
	for s := range n.Free {
		subnets = append(subnets, s)
	}
	slices.Sort(subnets)
	for _, s := range subnets {
		if n.Free[s] == 0 {
			r.Findings = append(r.Findings, find("network-full", "no address is left in "+s, "disconnect containers, or make a network with a larger --subnet"))
		}
	}
	return r
}

func port(f Facts, p *Port) Report {
	r := Report{Kind: "port", Name: fmt.Sprintf("%d/%s", p.Number, p.Proto)}
	switch {
	case p.By != nil:
		r.State = "published by container " + p.By.View.Name
		for _, b := range p.By.Published {
			if b.HostPort == p.Number && b.Proto == p.Proto {
				r.Findings = append(r.Findings, published(f, p.By, b)...)
			}
		}
	case len(p.Holders) > 0:
		r.State = "taken by a process of this machine"
		for _, h := range p.Holders {
			who := "a process"
			if h.Pid != 0 {
				who = fmt.Sprintf("%s (pid %d)", h.Name, h.Pid)
			}
			r.Findings = append(r.Findings, find("port-of-host-process", fmt.Sprintf("%s listens on %s port %d: no container can publish it there", who, h.Addr, h.Port),
				"stop that program, or publish another port"))
		}
	case len(p.Stopped) > 0:
		r.State = "not published"
		r.Findings = append(r.Findings, find("port-of-stopped", "the container that publishes it does not run: "+strings.Join(p.Stopped, ", "), "see why: shoal explain "+p.Stopped[0]))
	default:
		r.State = "not published"
		r.Findings = append(r.Findings, find("port-of-nobody", "no container publishes it and no program of this machine listens on it", "publish it: shoal run -p "+fmt.Sprint(p.Number)+":PORT ..., or shoal update --publish-add"))
	}
	return r
}
