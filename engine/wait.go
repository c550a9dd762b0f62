package engine

import (
	"context"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// waiter is somebody who waits for a change of a container.
type waiter struct {
	cond model.WaitCondition
	out  chan model.WaitResult // room for one
}

// Wait registers for a container's end; when it returns, nothing that happens from now on is missed. The channel gets
// one result, or the context's error.
func (e *Engine) Wait(ctx context.Context, ref string, cond model.WaitCondition) (<-chan model.WaitResult, error) {
	switch cond {
	case "":
		cond = model.WaitNotRunning
	case model.WaitNotRunning, model.WaitNextExit, model.WaitRemoved:
	default:
		return nil, invalid("invalid condition: %q; known are not-running, next-exit, removed", cond)
	}
	en, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	w := en.register(cond)
	if cond == model.WaitRemoved && en.isGone() {
		w.out <- model.WaitResult{ExitCode: en.get().State.ExitCode}
	}
	stop := context.AfterFunc(ctx, func() {
		if en.unregister(w) {
			w.out <- model.WaitResult{ExitCode: -1, Err: errs.As(errs.KindOf(ctx.Err()), ctx.Err())}
		}
	})
	if cap(w.out) == len(w.out) {
		stop()
	}
	return w.out, nil
}

// register adds a waiter, and answers at once what is true already.
func (en *entry) register(cond model.WaitCondition) *waiter {
	w := &waiter{cond: cond, out: make(chan model.WaitResult, 1)}
	en.mu.Lock()
	defer en.mu.Unlock()
	s := en.cur.Load().State
	if cond == model.WaitNotRunning && !s.Alive() && s.Status != model.StatusRestarting {
		w.out <- model.WaitResult{ExitCode: s.ExitCode}
		return w
	}
	en.waiters[w] = struct{}{}
	return w
}

func (en *entry) unregister(w *waiter) bool {
	en.mu.Lock()
	defer en.mu.Unlock()
	_, there := en.waiters[w]
	delete(en.waiters, w)
	return there
}

// tell answers all who wait for the condition.
func (en *entry) tell(cond model.WaitCondition, r model.WaitResult) {
	en.mu.Lock()
	defer en.mu.Unlock()
	for w := range en.waiters {
		if w.cond == cond {
			delete(en.waiters, w)
			w.out <- r
		}
	}
}

// isGone says whether the container was removed; nothing is told about it any more.
func (en *entry) isGone() bool {
	en.save.mu.Lock()
	defer en.save.mu.Unlock()
	return en.save.gone
}
