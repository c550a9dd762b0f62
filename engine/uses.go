package engine

import (
	"context"
	"maps"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
)

// RemoveImage takes away an image's name, or the image. What a container uses stays, and the message names the
// container: a running one always, a stopped one unless forced. Of single platforms the image room itself knows who uses them.
func (e *Engine) RemoveImage(ctx context.Context, ref string, o model.ImageRemoveOptions) ([]model.ImageDeletion, error) {
	if len(o.Platforms) > 0 {
		return e.ports.Images.Remove(ctx, ref, o)
	}
	img, err := e.ports.Images.Resolve(ctx, ref, "")
	if err != nil {
		return nil, err
	}
	byID := strings.HasPrefix(strings.TrimPrefix(img.ID, "sha256:"), strings.TrimPrefix(ref, "sha256:"))
	if byID || len(img.RepoTags)+len(img.RepoDigests) <= 1 { // the content would go with the name
		if err := e.imageFree(img, ref, o.Force); err != nil {
			return nil, err
		}
	}
	return e.ports.Images.Remove(ctx, ref, o)
}

// imageFree says which container is in the way of an image's removal.
func (e *Engine) imageFree(img model.Image, ref string, force bool) error {
	for _, en := range e.index.sorted() {
		c := en.get()
		if c.Image.ID != img.ID {
			continue
		}
		alive := c.State.Alive() || c.State.Status == model.StatusRestarting
		switch {
		case alive:
			return errs.New(errs.Conflict, "conflict: unable to delete %s (cannot be forced) - image is being used by running container %s (%s); stop it first",
				ref, ids.Short(c.ID), c.Name)
		case !force:
			return errs.New(errs.Conflict, "conflict: unable to delete %s (must be forced) - image is being used by stopped container %s (%s); remove it first, or force",
				ref, ids.Short(c.ID), c.Name)
		}
	}
	return nil
}

// ImageUsers counts the containers made from each image, by image ID.
func (e *Engine) ImageUsers() map[string]int {
	out := map[string]int{}
	for _, en := range e.index.all() {
		out[en.get().Image.ID]++
	}
	return out
}

// RemoveVolume takes a volume away that no container refers to.
func (e *Engine) RemoveVolume(ctx context.Context, name string, force bool) error {
	for _, en := range e.index.sorted() {
		c := en.get()
		for _, mp := range c.Mounts {
			if mp.Type == "volume" && mp.Name == name {
				return errs.New(errs.Conflict, "remove %s: volume is in use - [%s] (container %s); remove the container first", name, c.ID, c.Name)
			}
		}
	}
	return e.ports.Volumes.Remove(ctx, name, force)
}

// VolumeUsers counts the containers that refer to each volume, by name.
func (e *Engine) VolumeUsers() map[string]int {
	out := map[string]int{}
	for _, en := range e.index.all() {
		seen := map[string]bool{}
		for _, mp := range en.get().Mounts {
			if mp.Type == "volume" && !seen[mp.Name] {
				seen[mp.Name] = true
				out[mp.Name]++
			}
		}
	}
	return out
}

// NetworkUsers lists the endpoints of the containers that run, by network ID.
func (e *Engine) NetworkUsers() map[string][]model.Endpoint {
	out := map[string][]model.Endpoint{}
	for _, en := range e.index.all() {
		for _, ep := range en.get().Network.Endpoints {
			out[ep.NetworkID] = append(out[ep.NetworkID], ep)
		}
	}
	return out
}

// RemoveNetwork takes a network away that no running container is attached to.
func (e *Engine) RemoveNetwork(ctx context.Context, ref string) error {
	nw, err := e.ports.Networks.Resolve(ctx, ref)
	if err != nil {
		return err
	}
	if nw.Predefined() {
		return errs.New(errs.Forbidden, "%s is a pre-defined network and cannot be removed", nw.Name)
	}
	var users []string
	for _, en := range e.index.sorted() {
		c := en.get()
		if _, attached := c.Network.Endpoints[nw.Name]; attached && c.State.Alive() {
			users = append(users, c.Name)
		}
	}
	if users != nil {
		return errs.New(errs.Forbidden, "error while removing network: network %s has active endpoints (containers: %s); disconnect or stop them first",
			nw.Name, strings.Join(users, ", "))
	}
	return e.ports.Networks.Remove(ctx, ref)
}

// ConnectNetwork adds a network to a container, at once when it runs.
func (e *Engine) ConnectNetwork(ctx context.Context, network, ref string, spec model.EndpointSpec) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	nw, err := e.ports.Networks.Resolve(ctx, network)
	if err != nil {
		return err
	}
	if err := en.enter(ctx); err != nil {
		return err
	}
	defer en.leave()
	c := en.get()
	mode := c.Spec.Network.Mode
	if mode == model.NetworkHost || strings.HasPrefix(mode, "container:") {
		return invalid("container %s shares another network (%s) and cannot be attached to %s", c.Name, mode, nw.Name)
	}
	if nw.Name == model.NetworkHost || nw.Name == model.NetworkNone {
		return invalid("container cannot be connected to network %s while it has others; make it again with --network %s", nw.Name, nw.Name)
	}
	if _, there := c.Spec.Network.Endpoints[nw.Name]; there && (c.State.Alive() || mode != model.NetworkNone) {
		return errs.New(errs.Forbidden, "endpoint with name %s already exists in network %s", c.Name, nw.Name)
	}
	next := *c
	next.Spec.Network.Endpoints = maps.Clone(c.Spec.Network.Endpoints)
	if next.Spec.Network.Endpoints == nil {
		next.Spec.Network.Endpoints = map[string]model.EndpointSpec{}
	}
	next.Spec.Network.Endpoints[nw.Name] = spec
	if mode == model.NetworkNone {
		delete(next.Spec.Network.Endpoints, model.NetworkNone)
		next.Spec.Network.Mode = nw.Name
	}
	if t := en.running(); t != nil {
		if err := e.connectNow(ctx, en, &next, nw.Name, spec, t); err != nil {
			return err
		}
	}
	return e.saveNetworks(en, &next)
}

// connectNow adds a network to a running container.
func (e *Engine) connectNow(ctx context.Context, en *entry, next *model.Container, name string, spec model.EndpointSpec, t Task) error {
	ns, err := openNetns(t)
	if err != nil {
		return err
	}
	defer ns.Close()
	r := e.networkAttach(next, ns)
	r.Endpoints = map[string]model.EndpointSpec{name: spec}
	att, err := e.ports.Networks.Connect(ctx, r)
	if err != nil {
		return errs.Wrap(err, "connect container %s to network %s", next.Name, name)
	}
	c := en.edit(func(c *model.Container) {
		eps := maps.Clone(c.Network.Endpoints)
		if eps == nil {
			eps = map[string]model.Endpoint{}
		}
		delete(eps, model.NetworkNone)
		maps.Copy(eps, att.Endpoints)
		c.Network.Endpoints = eps
		if att.Ports != nil {
			c.Network.Ports = att.Ports
		}
	})
	if err := e.records.SaveNetwork(c); err != nil {
		return err
	}
	for _, ep := range att.Endpoints {
		e.publishNetwork("connect", c.ID, ep, e.driverOf(ep))
	}
	return e.writeNameFiles(c, c.Network)
}

// DisconnectNetwork takes a network off a container, at once when it runs.
func (e *Engine) DisconnectNetwork(ctx context.Context, network, ref string, force bool) error {
	en, err := e.find(ref)
	if err != nil {
		if force && errs.Is(err, errs.NotFound) {
			return e.ports.Networks.Detach(ctx, ref, network) // an endpoint without its container
		}
		return err
	}
	name := network
	if nw, err := e.ports.Networks.Resolve(ctx, network); err == nil {
		name = nw.Name
	} else if !force {
		return err
	}
	if err := en.enter(ctx); err != nil {
		return err
	}
	defer en.leave()
	c := en.get()
	if name == model.NetworkHost {
		return invalid("container cannot be disconnected from host network or connected to host network")
	}
	if _, there := c.Spec.Network.Endpoints[name]; !there {
		return errs.New(errs.Forbidden, "container %s is not connected to network %s", c.Name, name)
	}
	next := *c
	next.Spec.Network.Endpoints = maps.Clone(c.Spec.Network.Endpoints)
	delete(next.Spec.Network.Endpoints, name)
	if next.Spec.Network.Mode == name {
		next.Spec.Network.Mode = anyNetwork(next.Spec.Network.Endpoints)
	}
	if ep, attached := c.Network.Endpoints[name]; attached && en.running() != nil {
		if err := e.ports.Networks.Detach(ctx, c.ID, name); err != nil {
			return errs.Wrap(err, "disconnect container %s from network %s", c.Name, name)
		}
		c = en.edit(func(c *model.Container) {
			c.Network.Endpoints = maps.Clone(c.Network.Endpoints)
			delete(c.Network.Endpoints, name)
		})
		if err := e.records.SaveNetwork(c); err != nil {
			return err
		}
		e.publishNetwork("disconnect", c.ID, ep, e.driverOf(ep))
		if err := e.writeNameFiles(c, c.Network); err != nil {
			return err
		}
	}
	return e.saveNetworks(en, &next)
}

// anyNetwork is the network that takes the place of the mode's: the first by name, or none.
func anyNetwork(eps map[string]model.EndpointSpec) string {
	best := ""
	for name := range eps {
		if best == "" || name < best {
			best = name
		}
	}
	if best == "" {
		return model.NetworkNone
	}
	return best
}

// saveNetworks records which networks a container is to be on.
func (e *Engine) saveNetworks(en *entry, next *model.Container) error {
	if err := e.records.SaveSpec(next, !next.Spec.Options.AutoRemove); err != nil {
		return err
	}
	en.edit(func(c *model.Container) {
		c.Spec.Network.Endpoints, c.Spec.Network.Mode = next.Spec.Network.Endpoints, next.Spec.Network.Mode
	})
	return nil
}
