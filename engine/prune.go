package engine

import (
	"context"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Prune removes the containers that do not run and match, and says what that freed. One that cannot be removed is left
// and does not stop the rest.
func (e *Engine) Prune(ctx context.Context, filters model.Filters) (model.PruneResult, error) {
	var out model.PruneResult
	f, err := e.pruneFilter(filters)
	if err != nil {
		return out, err
	}
	for _, en := range e.index.sorted() {
		if err := ctx.Err(); err != nil {
			return out, errs.As(errs.KindOf(err), err)
		}
		c := en.get()
		if c.State.Alive() || c.State.Status == model.StatusRestarting || !f.match(c) {
			continue
		}
		var size model.ContainerSize
		if dirs, err := e.overlay(ctx, c); err == nil {
			size, _ = e.ports.RootFS.Size(ctx, dirs, false)
		}
		if err := e.Remove(ctx, c.ID, model.RemoveOptions{}); err != nil {
			e.cfg.Log.Warn("a container could not be pruned", "container", c.ID, "error", err)
			continue
		}
		out.Deleted = append(out.Deleted, c.ID)
		out.Reclaimed += uint64(max(0, size.Writable))
	}
	e.ports.Events.Publish(model.Event{Type: "container", Action: "prune", Attrs: map[string]string{"reclaimed": itoa(out.Reclaimed)}})
	return out, nil
}
