package node

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/engine"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// UpdatePorts is engine.PortPublisher.
func (n engineNetworks) UpdatePorts(_ context.Context, id string, add, remove []model.PortBinding) (engine.NetworkAttachment, error) {
	a, err := n.Manager.UpdatePorts(id, add, remove)
	for _, w := range a.Warnings {
		n.log.Warn(w, "container", id)
	}
	return engine.NetworkAttachment{Endpoints: a.Endpoints, Ports: a.Ports}, err
}

// servePorts answers GET /shoal/ports with a list of types.PublishedPort.
func (n *Node) servePorts(w http.ResponseWriter, _ *http.Request) error {
	list := []types.PublishedPort{}
	for _, r := range n.networks.Reachable() {
		p := types.PublishedPort{ContainerID: r.ContainerID, Container: r.Container, HostPort: r.HostPort, From: r.From, Problem: r.Problem, Through: "kernel"}
		if r.Number != 0 {
			p.Port = r.Port.String()
		}
		if r.HostIP.IsValid() {
			p.HostIP = r.HostIP.String()
		}
		switch {
		case r.Target.Addr().IsValid() && r.Number == 0:
			p.Target = r.Target.Addr().String()
		case r.Target.IsValid():
			p.Target = r.Target.String()
		}
		switch {
		case r.Problem != "":
			p.Through = ""
		case r.Daemon && r.Number != 0:
			p.Through = "daemon"
		}
		list = append(list, p)
	}
	return answer(w, list)
}

// serveUpdatePorts answers POST /shoal/containers/{name}/ports, a types.PortChange, with the bindings there are then.
func (n *Node) serveUpdatePorts(w http.ResponseWriter, r *http.Request) error {
	var in types.PortChange
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<20))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return errs.New(errs.Invalid, "invalid JSON: %w", err)
	}
	add, err := bindings(in.Add)
	if err != nil {
		return err
	}
	remove, err := bindings(in.Remove)
	if err != nil {
		return err
	}
	if len(add)+len(remove) == 0 {
		return errs.New(errs.Invalid, "nothing to publish or take back: name ports in Add or Remove")
	}
	ports, err := n.engine.UpdatePorts(r.Context(), r.PathValue("name"), add, remove)
	if err != nil {
		return err
	}
	if ports == nil {
		ports = []model.PortBinding{}
	}
	return answer(w, ports)
}

func answer(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

func bindings(specs []types.PortSpec) (out []model.PortBinding, err error) {
	for _, s := range specs {
		var b model.PortBinding
		if b.Port, err = model.ParsePort(s.Port); err != nil {
			return nil, err
		}
		if b.HostPort, b.HostPortEnd, err = model.ParsePortRange(s.HostPort); err != nil {
			return nil, err
		}
		if s.HostIP != "" {
			if b.HostIP, err = netip.ParseAddr(s.HostIP); err != nil {
				return nil, errs.New(errs.Invalid, "port %s: host address %q is not an IP address", s.Port, s.HostIP)
			}
		}
		for _, f := range s.From {
			p, err := netip.ParsePrefix(f)
			if a, aerr := netip.ParseAddr(f); aerr == nil {
				p, err = netip.PrefixFrom(a, a.BitLen()), nil
			}
			if err != nil {
				return nil, errs.New(errs.Invalid, "port %s: %q is neither an address nor a range such as 192.0.2.0/24", s.Port, f)
			}
			b.Sources = append(b.Sources, p.Masked())
		}
		out = append(out, b)
	}
	return out, nil
}
