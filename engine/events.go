package engine

import (
	"maps"

	"github.com/shoalhq/shoal/model"
)

// publish tells of something that happened to a container, with the attributes that Docker's events have: image, name,
// every label, and more.
func (e *Engine) publish(c *model.Container, action string, more map[string]string) {
	attrs := make(map[string]string, len(c.Spec.Labels)+len(more)+2)
	maps.Copy(attrs, c.Spec.Labels)
	attrs["image"] = c.Image.Ref
	attrs["name"] = c.Name
	maps.Copy(attrs, more)
	e.ports.Events.Publish(model.Event{Type: "container", Action: action, ID: c.ID, Attrs: attrs})
}

// publishNetwork tells that a container joined or left a network.
func (e *Engine) publishNetwork(action, containerID string, ep model.Endpoint, driver string) {
	e.ports.Events.Publish(model.Event{Type: "network", Action: action, ID: ep.NetworkID,
		Attrs: map[string]string{"container": containerID, "name": ep.Network, "type": driver}})
}

// publishVolume tells that a container's volume was mounted or given back.
func (e *Engine) publishVolume(action, containerID string, mp model.MountPoint) {
	attrs := map[string]string{"container": containerID, "driver": mp.Driver}
	if action == "mount" {
		attrs["destination"] = mp.Destination
		attrs["propagation"] = mp.Propagation
		attrs["read/write"] = "true"
		if !mp.RW {
			attrs["read/write"] = "false"
		}
	}
	e.ports.Events.Publish(model.Event{Type: "volume", Action: action, ID: mp.Name, Attrs: attrs})
}
