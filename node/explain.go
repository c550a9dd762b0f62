package node

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/registry"

	"github.com/shoalhq/shoal/api/server"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/doctor"
	"github.com/shoalhq/shoal/doctor/explain"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/observe/audit"
)

// serveExplain answers POST /shoal/explain, a types.Explain, with an explain.Report. Without a type the name is looked for
// among ports (a number), containers, images and networks, in this order. For an image that is not here the registry is asked.
func (n *Node) serveExplain(w http.ResponseWriter, r *http.Request) error {
	var ask types.Explain
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	d.DisallowUnknownFields()
	if err := d.Decode(&ask); err != nil {
		return errs.New(errs.Invalid, "invalid JSON: %w", err)
	}
	if ask.Name == "" {
		return errs.New(errs.Invalid, "say in Name what to explain")
	}
	if ask.Type != "" && !slices.Contains([]string{"container", "image", "network", "port"}, ask.Type) {
		return errs.New(errs.Invalid, "type %q: want container, image, network or port", ask.Type)
	}
	f, err := n.explainFacts(r.Context(), ask.Name, ask.Type, registryAuth(ask.RegistryAuth))
	if err != nil {
		return err
	}
	return answer(w, explain.Explain(f))
}

func registryAuth(text string) *registry.AuthConfig {
	var a registry.AuthConfig
	data, err := base64.URLEncoding.DecodeString(text)
	if err != nil || json.Unmarshal(data, &a) != nil || a == (registry.AuthConfig{}) {
		return nil
	}
	return &a
}

func (n *Node) explainFacts(ctx context.Context, name, kind string, auth *registry.AuthConfig) (explain.Facts, error) {
	f := explain.Facts{Now: time.Now()}
	is := func(k string) bool { return kind == "" || kind == k }
	if is("port") {
		p, err := model.ParsePort(name)
		if err == nil && p.Number != 0 {
			f.Port, f.Firewall = n.portFacts(ctx, p), firewallFindings()
			return f, nil
		}
		if kind == "port" {
			return f, errs.New(errs.Invalid, "%q is no port; write 8080 or 53/udp", name)
		}
	}
	if is("container") {
		v, err := n.engine.Inspect(ctx, name, false)
		if err == nil {
			f.Container, f.Firewall = n.containerFacts(ctx, v), firewallFindings()
			return f, nil
		}
		if kind != "" || !errs.Is(err, errs.NotFound) {
			return f, err
		}
	}
	if is("image") {
		img, err := n.front.backends.Images.Inspect(ctx, name, "")
		if err == nil {
			f.Image = &explain.Image{Ref: name, Local: &img, HostArch: goruntime.GOARCH, Users: n.imageUsers(ctx, img.ID)}
			return f, nil
		}
		if !errs.Is(err, errs.NotFound) && kind != "" {
			return f, err
		}
	}
	if is("network") {
		v, err := n.front.backends.Networks.Inspect(ctx, name)
		if err == nil {
			f.Network = networkFacts(v)
			return f, nil
		}
		if kind != "" || !errs.Is(err, errs.NotFound) {
			return f, err
		}
	}
	if _, err := model.ParseReference(name); err != nil {
		return f, errs.New(errs.NotFound, "there is no container, image or network %q, and it cannot be an image's name: %w", name, err)
	}
	f.Image = n.missingImage(ctx, name, auth)
	f.Image.Guess = kind == ""
	return f, nil
}

const registryPatience = 10 * time.Second

func (n *Node) missingImage(ctx context.Context, ref string, auth *registry.AuthConfig) *explain.Image {
	ctx, cancel := context.WithTimeout(ctx, registryPatience)
	defer cancel()
	_, err := n.front.backends.Registry.Distribution(ctx, ref, auth)
	return &explain.Image{Ref: ref, HostArch: goruntime.GOARCH, Remote: err, RemoteFound: err == nil}
}

func (n *Node) imageUsers(ctx context.Context, id string) (out []explain.ImageUser) {
	list, _ := n.engine.List(ctx, model.ListOptions{All: true})
	for i := range list {
		if list[i].Image.ID == id {
			out = append(out, explain.ImageUser{Name: list[i].Name, Running: list[i].State.Alive()})
		}
	}
	return out
}

func networkFacts(v server.NetworkView) *explain.Network {
	f := &explain.Network{Network: v.Network, Free: map[string]uint64{}}
	for subnet, use := range v.Subnets {
		if !v.Chosen { // else a further subnet is taken when they are full
			f.Free[subnet.String()] = use.Free
		}
	}
	for id, m := range v.Endpoints {
		name := m.ContainerName
		if name == "" {
			name = id
		}
		f.Members = append(f.Members, name)
	}
	slices.Sort(f.Members)
	return f
}

// firewallFindings is what doctor says about packets that this host forwards.
func firewallFindings() []doctor.Finding {
	return slices.DeleteFunc(doctor.Evaluate(doctor.Facts{Network: doctor.Network{Chains: doctor.Chains()}}), func(f doctor.Finding) bool { return f.Code != "firewall-drops-forward" })
}

func (n *Node) containerFacts(ctx context.Context, v model.ContainerView) *explain.Container {
	c := &explain.Container{View: v, Events: n.eventsOf(v.ID), Published: n.published(v)}
	if n.front.audit != nil {
		all, _ := n.front.audit.Tail(1000, v.State.StartedAt)
		c.Calls = slices.DeleteFunc(all, func(r audit.Record) bool {
			return r.Object == "" || r.Object != v.Name && !strings.HasPrefix(v.ID, r.Object)
		})
	}
	if !v.State.Alive() {
		c.LogTail = n.lastLines(ctx, v.ID)
	} else if v.State.Pid > 0 {
		c.Listening, c.Listened = listeners("/proc/" + strconv.Itoa(v.State.Pid) + "/net")
	}
	list, _ := n.engine.List(ctx, model.ListOptions{All: true})
	for i := range list {
		for _, mode := range []string{list[i].Spec.Network.Mode, list[i].Spec.Isolation.PID, list[i].Spec.Isolation.IPC} {
			ref, ok := strings.CutPrefix(mode, "container:")
			if ok && (ref == v.Name || len(ref) >= 12 && strings.HasPrefix(v.ID, ref)) && !slices.Contains(c.Dependents, list[i].Name) {
				c.Dependents = append(c.Dependents, list[i].Name)
			}
		}
	}
	for name := range v.Network.Endpoints {
		if nw, err := n.front.backends.Networks.Inspect(ctx, name); err == nil {
			c.Networks = append(c.Networks, nw.Network)
		}
	}
	return c
}

func (n *Node) eventsOf(id string) (out []model.Event) {
	past, sub := n.bus.Subscribe(time.Unix(1, 0))
	sub.Close()
	for _, e := range past {
		if e.Type == "container" && e.ID == id {
			out = append(out, e)
		}
	}
	return out
}

func (n *Node) published(v model.ContainerView) (out []explain.Published) {
	for _, r := range n.networks.Reachable() {
		if r.ContainerID == v.ID && r.Number != 0 {
			out = append(out, explain.Published{PortBinding: r.PortBinding, Daemon: r.Daemon, Problem: r.Problem})
		}
	}
	return out
}

// lastLines is what a container printed in the end, not longer than people read.
func (n *Node) lastLines(ctx context.Context, id string) (lines []string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var b strings.Builder
	n.engine.Logs(ctx, id, model.LogOptions{Stdout: true, Stderr: true, Tail: 3}, func(e model.LogEntry) error {
		if b.Len() < 4096 {
			b.Write(e.Data[:min(len(e.Data), 4096)])
		}
		return nil
	})
	for s := bufio.NewScanner(strings.NewReader(b.String())); s.Scan(); {
		if l := strings.TrimSpace(s.Text()); l != "" {
			lines = append(lines, l)
		}
	}
	return lines
}

func (n *Node) portFacts(ctx context.Context, port model.Port) *explain.Port {
	p := &explain.Port{Number: port.Number, Proto: port.Proto}
	if p.Proto == "" {
		p.Proto = "tcp"
	}
	for _, r := range n.networks.Reachable() {
		if r.HostPort == p.Number && r.Proto == p.Proto {
			if v, err := n.engine.Inspect(ctx, r.ContainerID, false); err == nil {
				p.By = n.containerFacts(ctx, v)
				return p
			}
		}
	}
	list, _ := n.engine.List(ctx, model.ListOptions{All: true})
	for i := range list {
		for _, b := range list[i].Spec.Network.Publish {
			if b.Proto == p.Proto && b.HostPort <= p.Number && p.Number <= max(b.HostPort, b.HostPortEnd) && !list[i].State.Alive() {
				p.Stopped = append(p.Stopped, list[i].Name)
				break
			}
		}
	}
	p.Holders, p.HolderLed = holders(p.Number, p.Proto)
	return p
}
