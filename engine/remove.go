package engine

import (
	"context"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/model"
)

// Remove takes a container away: with Force also one that runs, with Volumes also its anonymous volumes.
func (e *Engine) Remove(ctx context.Context, ref string, opts model.RemoveOptions) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	if opts.Link {
		return e.removeLink(en, ref)
	}
	if err := e.makeRemovable(ctx, en, opts.Force); err != nil {
		return err
	}
	if err := en.enter(ctx); err != nil {
		return err
	}
	defer en.leave()
	if en.isGone() {
		if opts.Force {
			return nil // the kill made it end, and it was to be removed at its end
		}
		return errs.New(errs.NotFound, "No such container: %s", ref)
	}
	// Half a removal helps nobody: from here on it runs to its end.
	return e.removeLocked(context.WithoutCancel(ctx), en, opts)
}

// removeLink takes a legacy link away: the reference is "container/alias".
func (e *Engine) removeLink(en *entry, ref string) error {
	return invalid("cannot remove link %s: links are part of container %s; make it again without --link", ref, en.get().Name)
}

// makeRemovable kills a running container when told to, or says why it cannot be removed.
func (e *Engine) makeRemovable(ctx context.Context, en *entry, force bool) error {
	for range 3 { // a restart policy may bring it back in between
		c := en.get()
		alive := c.State.Alive() || c.State.Status == model.StatusRestarting
		if !alive {
			return nil
		}
		if !force {
			hint := "stop the container before removing or force remove"
			if c.State.Status == model.StatusPaused {
				hint = "unpause and " + hint
			}
			return errs.New(errs.Conflict, "cannot remove container \"/%s\": container is %s: %s", c.Name, c.State.Status, hint)
		}
		if e.cancelRestart(ctx, en) {
			continue
		}
		t := en.running()
		if t == nil {
			continue
		}
		en.edit(func(c *model.Container) { c.State.UserStopped = true })
		w := en.register(model.WaitNotRunning)
		err := e.kill(ctx, en, t, w)
		en.unregister(w)
		if err != nil {
			return errs.Wrap(err, "Could not kill running container %s, cannot remove", c.Name)
		}
		if err := ctx.Err(); err != nil {
			return errs.As(errs.KindOf(err), err)
		}
	}
	return nil
}

// removeLocked removes a container that does not run; the caller holds the gate. The record goes last, so that a crash
// leaves a container whose removal can be finished, and never something that nobody knows of.
func (e *Engine) removeLocked(ctx context.Context, en *entry, opts model.RemoveOptions) error {
	c := en.get()
	if c.State.Alive() && en.running() == nil {
		return unreachable(c)
	}
	if c.State.Alive() {
		return errs.New(errs.Conflict, "cannot remove container \"/%s\": it was started again", c.Name)
	}
	en.quiet()
	before := c.State.Status
	c = en.edit(func(c *model.Container) { c.State.Status = model.StatusRemoving })
	if opts.Volumes && len(c.Mounts) > 0 && !c.Spec.Options.AutoRemove {
		// Its volumes go first: were the daemon to die then, the next one must go on and not offer the container.
		if err := e.saveState(en, false); err != nil {
			return err
		}
	}
	en.stopSaving()
	e.execs.dropAll(en.id)
	dispose, err := e.takeAway(ctx, c, opts.Volumes)
	if err != nil {
		en.resumeSaving()
		en.edit(func(c *model.Container) { c.State.Status, c.State.Error = model.StatusDead, err.Error() })
		e.saveLater(en)
		return errs.Wrap(err, "remove container %s (it was %s)", c.Name, before)
	}
	e.index.drop(en)
	e.publish(c, "destroy", nil)
	result := model.WaitResult{ExitCode: c.State.ExitCode}
	en.failAttaches(errs.New(errs.NotFound, "container %s was removed", c.Name))
	en.tell(model.WaitRemoved, result)
	en.tell(model.WaitNextExit, result)
	if err := dispose(); err != nil {
		e.cfg.Log.Warn("files of a removed container are left until the daemon starts again", "container", c.ID, "error", err)
	}
	return nil
}

// takeAway gives back what the container holds and removes its record; what it gives removes the files.
func (e *Engine) takeAway(ctx context.Context, c *model.Container, volumes bool) (dispose func() error, err error) {
	if err := failpoint.Hit("engine/remove/begin"); err != nil {
		return nil, err
	}
	e.releaseAll(ctx, c, volumes)
	if err := failpoint.Hit("engine/remove/released"); err != nil {
		return nil, err
	}
	if err := releaseLayer(c, e.records.Dir(c.ID)); err != nil {
		e.cfg.Log.Warn("the limit of a removed container's layer stays with the filesystem", "container", c.ID, "error", err)
	}
	return e.records.Remove(c.ID)
}

func (en *entry) resumeSaving() {
	en.save.mu.Lock()
	en.save.gone = false
	en.save.mu.Unlock()
}

// releaseAll gives back what a container holds from create to remove.
func (e *Engine) releaseAll(ctx context.Context, c *model.Container, volumes bool) {
	warn := func(what string, err error) {
		if err != nil && !errs.Is(err, errs.NotFound) {
			e.cfg.Log.Warn("something of a removed container could not be given back", "container", c.ID, "what", what, "error", err)
		}
	}
	warn("image", e.ports.Images.Release(ctx, c.ID))
	e.releaseLabel(c)
	for _, mp := range c.Mounts {
		switch mp.Type {
		case "image":
			warn("image "+mp.Source, e.ports.Images.Release(ctx, imageMountHolder(c.ID, mp.Destination)))
		case "volume":
			warn("volume "+mp.Name, e.ports.Volumes.Release(ctx, mp.Name, c.ID))
			if !volumes {
				continue
			}
			if v, err := e.ports.Volumes.Inspect(ctx, mp.Name); err == nil && v.Anonymous {
				if err := e.ports.Volumes.Remove(ctx, mp.Name, true); err != nil && !errs.Is(err, errs.Conflict) {
					warn("volume "+mp.Name, err)
				}
			}
		}
	}
}
