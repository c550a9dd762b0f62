package engine

import (
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
)

// idMaps are the ids of a container's user namespace; nil when it has the host's.
func (e *Engine) idMaps(c *model.Container) *model.IDMaps {
	if c.Spec.Isolation.User == "host" {
		return nil
	}
	return e.cfg.IDMaps
}

// validateRemap refuses what cannot be in a user namespace of its own, in Docker's words.
func (e *Engine) validateRemap(s *model.ContainerSpec) error {
	if e.cfg.IDMaps == nil || s.Isolation.User == "host" {
		return nil
	}
	const remedy = "; use --userns=host for this container"
	switch {
	case s.Security.Privileged:
		return invalid("privileged mode is incompatible with user namespaces. You must run the container in the host namespace when running privileged mode" + remedy)
	case s.Network.Mode == model.NetworkHost:
		return invalid("cannot share the host's network namespace when user namespaces are enabled" + remedy)
	case s.Isolation.PID == "host":
		return invalid("cannot share the host PID namespace when user namespaces are enabled" + remedy)
	case s.Isolation.IPC == "host":
		return invalid("cannot share the host IPC namespace when user namespaces are enabled" + remedy)
	}
	for what, mode := range map[string]string{"IPC": s.Isolation.IPC, "PID": s.Isolation.PID} {
		if strings.HasPrefix(mode, "container:") && mode != s.Network.Mode {
			return invalid("the %s namespace of another container belongs to its user namespace, which only --network %s brings along when user namespaces are enabled", what, mode)
		}
	}
	for i := range s.Storage.Mounts {
		if s.Storage.Mounts[i].Type == "image" {
			return errs.New(errs.Unsupported, "image mounts are not supported when user namespaces are enabled (mount on %s)%s", s.Storage.Mounts[i].Target, remedy)
		}
	}
	return nil
}

// checkSharedUser makes sure that a container has the user namespace of the one whose network it shares.
func (e *Engine) checkSharedUser(c *model.Container) error {
	id := sharedNetwork(&c.Spec)
	if id == "" {
		return nil
	}
	other, err := e.find(id)
	if err != nil || (e.idMaps(other.get()) == nil) == (e.idMaps(c) == nil) {
		return err
	}
	return errs.New(errs.Conflict, "cannot join the network of container %s: only one of the two is in the host's user namespace; give both --userns=host, or none", ids.Short(id))
}
