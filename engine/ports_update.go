package engine

import (
	"context"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/model"
)

// PortPublisher is what the network room offers beyond Networks: changing the published ports of a running container,
// all or nothing.
type PortPublisher interface {
	UpdatePorts(ctx context.Context, containerID string, add, remove []model.PortBinding) (NetworkAttachment, error)
}

// UpdatePorts publishes and unpublishes ports of a container, at once and for later starts. Ports to take back are named by
// container port, and by host port and address where given.
func (e *Engine) UpdatePorts(ctx context.Context, ref string, add, remove []model.PortBinding) ([]model.PortBinding, error) {
	en, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	for _, b := range add {
		if err := b.Validate(); err != nil {
			return nil, err
		}
	}
	if err := en.enter(ctx); err != nil {
		return nil, err
	}
	defer en.leave()
	c := en.get()
	if !attachesNetwork(c) {
		return nil, errs.New(errs.Conflict, "cannot change the ports of container %s: it has no network of its own (%s), so nothing can be published", c.Name, c.Spec.Network.Mode)
	}
	next := *c
	var missing []model.PortBinding
	next.Spec.Network.Publish, missing = model.WithPorts(c.Spec.Network.Publish, add, remove)
	_, unbound := model.WithPorts(c.Network.Ports, nil, missing) // --publish-all publishes what the spec does not name
	if len(unbound) > 0 {
		return nil, errs.New(errs.NotFound, "container %s does not publish %s; `port %s` lists what it does", c.Name, unbound[0], c.Name)
	}
	if en.running() != nil {
		p, ok := e.ports.Networks.(PortPublisher)
		if !ok {
			return nil, errs.New(errs.Unsupported, "the ports of a running container cannot be changed here; stop container %s first", c.Name)
		}
		att, err := p.UpdatePorts(ctx, c.ID, add, remove)
		if err != nil {
			return nil, errs.Wrap(err, "cannot change the ports of container %s", c.Name)
		}
		c = en.edit(func(c *model.Container) { c.Network.Ports = att.Ports })
		if err := e.records.SaveNetwork(c); err != nil {
			return nil, err
		}
	}
	if err := failpoint.Hit("engine/ports/applied"); err != nil {
		return nil, err
	}
	if err := e.records.SaveSpec(&next, !c.Spec.Options.AutoRemove); err != nil {
		return nil, err
	}
	c = en.edit(func(c *model.Container) { c.Spec.Network.Publish = next.Spec.Network.Publish })
	e.publish(c, "update", nil)
	return c.Network.Ports, nil
}
