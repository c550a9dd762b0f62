package engine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalhq/shoal/engine/ocispec"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// links are the addresses of the containers that a container is linked with, on the default bridge.
func (e *Engine) links(c *model.Container) map[string][]string {
	out := map[string][]string{}
	e.eachLinked(c, func(alias, addr string, other *model.Container) {
		out[addr] = append(out[addr], alias, other.Spec.Network.Hostname, other.Name)
	})
	return out
}

// eachLinked goes through the containers that a container is linked with and that have an address on the default bridge.
func (e *Engine) eachLinked(c *model.Container, f func(alias, addr string, other *model.Container)) {
	for _, link := range c.Spec.Network.Links {
		name, alias := model.SplitLink(link)
		other, err := e.find(name)
		if err != nil {
			continue
		}
		oc := other.get()
		if ep, on := oc.Network.Endpoints[model.NetworkBridge]; on && ep.IPv4.IsValid() {
			f(alias, ep.IPv4.Addr().String(), oc)
		}
	}
}

// checkLinks refuses links with what is not there or does not run.
func (e *Engine) checkLinks(c *model.Container) error {
	for _, link := range c.Spec.Network.Links {
		other, err := e.linked(link)
		if err != nil {
			return err
		}
		if _, alias := model.SplitLink(link); other.running() == nil {
			return errs.New(errs.Conflict, "Cannot link to a non running container: /%s AS /%s/%s", other.get().Name, c.Name, alias)
		}
	}
	return nil
}

// linked finds the container that a link names.
func (e *Engine) linked(link string) (*entry, error) {
	name, alias := model.SplitLink(link)
	if name == "" || alias == "" {
		return nil, invalid("bad format for links: %s; want NAME[:ALIAS]", link)
	}
	other, err := e.find(name)
	return other, errs.As(errs.Invalid, errs.Wrap(err, "could not get container for %s", name))
}

// withLinks adds the variables of the containers that a container is linked with to an environment, whose own win. As with
// Docker up to 28; it knows them for links on the default bridge only.
func (e *Engine) withLinks(c *model.Container, env []string) []string {
	var vars []string
	e.eachLinked(c, func(alias, addr string, other *model.Container) {
		vars = append(vars, linkVariables(c.Name, alias, addr, other)...)
	})
	if len(vars) == 0 {
		return env
	}
	return ocispec.MergeEnv(vars, env)
}

// linkVariables are ALIAS_PORT, ALIAS_PORT_80_TCP and its parts, ALIAS_NAME and ALIAS_ENV_... of one link.
func linkVariables(own, alias, addr string, other *model.Container) []string {
	prefix := strings.ToUpper(strings.ReplaceAll(alias, "-", "_"))
	var ports []model.Port
	for _, p := range publishAll(&other.Spec.Network) {
		ports = append(ports, p.Port)
	}
	slices.SortFunc(ports, func(a, b model.Port) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Proto, b.Proto)) // TCP before UDP
	})
	ports = slices.Compact(ports)
	var out []string
	url := func(p model.Port) string { return fmt.Sprintf("%s://%s:%d", p.Proto, addr, p.Number) }
	if len(ports) > 0 {
		out = append(out, prefix+"_PORT="+url(ports[0]))
	}
	for _, p := range ports {
		name := fmt.Sprintf("%s_PORT_%d_%s", prefix, p.Number, strings.ToUpper(string(p.Proto)))
		out = append(out, name+"="+url(p), name+"_ADDR="+addr, fmt.Sprintf("%s_PORT=%d", name, p.Number), name+"_PROTO="+string(p.Proto))
	}
	out = append(out, prefix+"_NAME=/"+own+"/"+alias)
	for _, v := range other.Spec.Process.Env {
		name, value, set := strings.Cut(v, "=")
		if set && name != "HOME" && name != "PATH" {
			out = append(out, prefix+"_ENV_"+name+"="+value)
		}
	}
	return out
}

// tellLinked puts the address that a container has now into the hosts files of those that run and are linked with it.
func (e *Engine) tellLinked(id string) {
	for _, en := range e.index.all() {
		c := en.get()
		if len(c.Spec.Network.Links) == 0 || c.ID == id || en.running() == nil {
			continue
		}
		for _, link := range c.Spec.Network.Links {
			if other, err := e.linked(link); err != nil || other.get().ID != id {
				continue
			}
			if err := e.writeNameFiles(c, c.Network); err != nil {
				e.cfg.Log.Warn("a container does not learn the new address of one that it is linked with", "container", c.Name, "link", link, "error", err)
			}
			break
		}
	}
}

// followRename lets the containers that are linked with one that has a new name stay so.
func (e *Engine) followRename(old, name string) {
	for _, en := range e.index.all() {
		links := renamedLinks(en.get().Spec.Network.Links, old, name)
		if links == nil {
			continue
		}
		next := en.edit(func(c *model.Container) { c.Spec.Network.Links = links })
		if err := e.records.SaveSpec(next, !next.Spec.Options.AutoRemove); err != nil {
			e.cfg.Log.Warn("a link to a renamed container is not recorded: after a restart of the daemon it leads to the old name",
				"container", next.Name, "old", old, "new", name, "error", err)
		}
	}
}

// renamedLinks gives the links with the new name, or nil when none has the old one.
func renamedLinks(links []string, old, name string) (changed []string) {
	for i, link := range links {
		if target, alias := model.SplitLink(link); target == old {
			if changed == nil {
				changed = slices.Clone(links)
			}
			changed[i] = name + ":" + alias
		}
	}
	return changed
}
