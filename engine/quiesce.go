package engine

import (
	"context"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/undo"
	"github.com/shoalhq/shoal/model"
)

// WithVolumePaused does something while the containers that run with the volume stand still, so that its files match each
// other. They can be killed and stopped meanwhile. Were the daemon to die, the next one resumes them: this pause is not
// recorded, as a commit's is not.
func (e *Engine) WithVolumePaused(ctx context.Context, volume string, do func() error) error {
	var u undo.Stack
	defer u.Run()
	for _, en := range e.index.sorted() { // always in the same order, so that two of these cannot wait for each other
		if !mountsVolume(en.get(), volume) {
			continue
		}
		if err := en.enter(ctx); err != nil {
			return err
		}
		u.Add(en.leave)
		c, t := en.get(), en.running()
		if t == nil || c.State.Status != model.StatusRunning {
			continue
		}
		if err := t.Freeze(ctx, true); err != nil {
			return errs.Wrap(err, "pause container %s, which uses volume %s", c.Name, volume)
		}
		u.Add(func() {
			if err := t.Freeze(context.WithoutCancel(ctx), false); err != nil && !ended(t) {
				e.cfg.Log.Error("a container that was paused for its volume cannot be resumed; kill and start it", "container", c.ID, "error", err)
			}
		})
	}
	return do()
}

func mountsVolume(c *model.Container, name string) bool {
	for _, mp := range c.Mounts {
		if mp.Type == "volume" && mp.Name == name {
			return true
		}
	}
	return false
}
