package engine

import (
	"cmp"
	"context"
	"strconv"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
)

const (
	defaultStopTimeout = 10 * time.Second
	// killPatience is how long a killed container may take to be gone before the caller is told; processes in
	// uninterruptible sleep end when the kernel lets them.
	killPatience = 10 * time.Second
	sigKill      = 9
)

// stopReason says who stops a container, which decides what the restart policy does.
type stopReason int

const (
	stopByUser     stopReason = iota // it stays down
	stopForRestart                   // it is started again by the caller
	stopForShutdown
)

// Stop asks a container to end, and kills it when it takes too long. NotModified when it does not run.
func (e *Engine) Stop(ctx context.Context, ref string, opts model.StopOptions) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	return e.stop(ctx, en, opts, stopByUser)
}

// stop does not take the gate: a container that hangs must not keep others from killing it.
func (e *Engine) stop(ctx context.Context, en *entry, opts model.StopOptions, why stopReason) error {
	c := en.get()
	signal, err := stopSignal(c, opts.Signal)
	if err != nil {
		return err
	}
	if why == stopByUser && e.cancelRestart(ctx, en) {
		return nil
	}
	t := en.running()
	if t == nil && en.get().State.Alive() {
		return unreachable(c)
	}
	if t == nil {
		return errs.New(errs.NotModified, "container %s is not running", c.Name)
	}
	if why != stopForShutdown {
		e.markStopped(en)
	}
	w := en.register(model.WaitNotRunning)
	defer en.unregister(w)
	if err := e.signal(ctx, en, t, signal); err != nil && !ended(t) {
		e.cfg.Log.Debug("the stop signal could not be sent", "container", en.id, "error", err)
	}
	timeout := stopTimeout(c, opts.Timeout)
	if !e.await(ctx, w, timeout) && ctx.Err() == nil {
		if err := e.kill(ctx, en, t, w); err != nil {
			return err
		}
	}
	if why == stopByUser {
		e.cancelRestart(ctx, en) // the container ended by itself just before, and its policy wants it back
	}
	if err := ctx.Err(); err != nil && !ended(t) {
		return errs.As(errs.KindOf(err), errs.Wrap(err, "stop container %s", c.Name))
	}
	e.publish(en.get(), "stop", nil)
	return nil
}

// markStopped remembers that a user wants the container down; for unless-stopped that must survive a power cut.
func (e *Engine) markStopped(en *entry) {
	c := en.edit(func(c *model.Container) { c.State.UserStopped = true })
	if c.Spec.Restart.Name == "unless-stopped" {
		if err := e.saveState(en, true); err != nil {
			e.cfg.Log.Warn("it could not be recorded that a container was stopped by a user", "container", en.id, "error", err)
		}
	}
}

// cancelRestart stops a container that is between two runs. It says no when there is nothing to cancel, also because the
// restart came first.
func (e *Engine) cancelRestart(ctx context.Context, en *entry) bool {
	if en.get().State.Status != model.StatusRestarting || en.enter(ctx) != nil {
		return false
	}
	defer en.leave()
	if en.get().State.Status != model.StatusRestarting {
		return false
	}
	en.quiet()
	c := en.edit(func(c *model.Container) { c.State.Status, c.State.UserStopped = model.StatusExited, true })
	e.saveLater(en)
	en.tell(model.WaitNotRunning, model.WaitResult{ExitCode: c.State.ExitCode})
	e.publish(c, "stop", nil)
	return true
}

func stopSignal(c *model.Container, asked string) (int, error) {
	return parseSignal(cmp.Or(asked, c.Spec.Stop.Signal, "SIGTERM"))
}

// stopTimeout is how long to wait before the kill; negative is for ever.
func stopTimeout(c *model.Container, asked *int) time.Duration {
	for _, seconds := range []*int{asked, c.Spec.Stop.Timeout} {
		if seconds != nil {
			return time.Duration(*seconds) * time.Second
		}
	}
	return defaultStopTimeout
}

// await waits for the waiter's answer, at most so long; negative is for ever.
func (e *Engine) await(ctx context.Context, w *waiter, timeout time.Duration) bool {
	expired := make(chan struct{})
	if timeout >= 0 {
		stop := e.cfg.Clock.AfterFunc(timeout, func() { close(expired) })
		defer stop()
	}
	select {
	case <-w.out:
		return true
	case <-expired:
		return false
	case <-ctx.Done():
		return false
	}
}

// kill sends SIGKILL to everything in the container and waits for its end.
func (e *Engine) kill(ctx context.Context, en *entry, t Task, w *waiter) error {
	// Conflict: it ended by itself a moment ago, and its exit is on its way.
	if err := e.signal(ctx, en, t, sigKill); err != nil && !errs.Is(err, errs.Conflict) && !ended(t) {
		return errs.Wrap(err, "kill container %s", en.get().Name)
	}
	if e.await(ctx, w, killPatience) || ctx.Err() != nil {
		return nil
	}
	return errs.New(errs.Unavailable, "tried to kill container %s, but did not receive an exit event within %s: a process of it "+
		"(pid %d) may be stuck in the kernel; see /proc/%d/stack", en.get().Name, killPatience, t.Info().Pid, t.Info().Pid)
}

// signal sends a signal, lets a paused container go on when it is to end, and tells of it.
func (e *Engine) signal(ctx context.Context, en *entry, t Task, number int) error {
	c := en.get()
	if err := t.Signal(ctx, number, false); err != nil {
		return err
	}
	if c.State.Status == model.StatusPaused && ends(c, number) {
		if err := t.Freeze(ctx, false); err == nil {
			en.edit(func(c *model.Container) {
				if c.State.Status == model.StatusPaused {
					c.State.Status = model.StatusRunning
				}
			})
		}
	}
	e.publish(c, "kill", map[string]string{"signal": strconv.Itoa(number)})
	return nil
}

// ends says whether a signal is meant to end the container.
func ends(c *model.Container, number int) bool {
	own, err := stopSignal(c, "")
	return number == sigKill || err == nil && number == own
}

func ended(t Task) bool {
	select {
	case <-t.Done():
		return true
	default:
		return false
	}
}

// Kill sends a signal; "" is SIGKILL, for which it waits until the container is gone.
func (e *Engine) Kill(ctx context.Context, ref, name string) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	number, err := parseSignal(cmp.Or(name, "SIGKILL"))
	if err != nil {
		return err
	}
	c := en.get()
	if number == sigKill && e.cancelRestart(ctx, en) {
		return nil
	}
	t := en.running()
	if t == nil && en.get().State.Alive() {
		return unreachable(c)
	}
	if t == nil {
		return errs.New(errs.Conflict, "cannot kill container: %s: container %s is not running", ref, ids.Short(c.ID))
	}
	if ends(c, number) {
		e.markStopped(en)
	}
	if number != sigKill {
		if err := e.signal(ctx, en, t, number); err != nil && !ended(t) {
			return errs.Wrap(err, "cannot kill container %s", ref)
		}
		return nil
	}
	w := en.register(model.WaitNotRunning)
	defer en.unregister(w)
	return e.kill(ctx, en, t, w)
}

// Restart stops a container if it runs, and starts it.
func (e *Engine) Restart(ctx context.Context, ref string, opts model.StopOptions) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	// The container's own removal at its end must not come between.
	en.kept.Add(1)
	defer en.kept.Add(-1)
	if err := e.stop(ctx, en, opts, stopForRestart); err != nil && !errs.Is(err, errs.NotModified) {
		return err
	}
	if err := en.enter(ctx); err != nil {
		return err
	}
	defer en.leave()
	if err := e.startByUser(ctx, en); err != nil && !errs.Is(err, errs.NotModified) {
		return err
	}
	e.publish(en.get(), "restart", nil)
	return nil
}

// Pause freezes a container's processes.
func (e *Engine) Pause(ctx context.Context, ref string) error {
	return e.freeze(ctx, ref, true)
}

// Unpause lets them go on.
func (e *Engine) Unpause(ctx context.Context, ref string) error {
	return e.freeze(ctx, ref, false)
}

func (e *Engine) freeze(ctx context.Context, ref string, frozen bool) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	if err := en.enter(ctx); err != nil {
		return err
	}
	defer en.leave()
	t, err := en.mustRun()
	if err != nil {
		return err
	}
	c := en.get()
	paused := c.State.Status == model.StatusPaused
	switch {
	case frozen && paused:
		return errs.New(errs.Conflict, "container %s is already paused", c.Name)
	case !frozen && !paused:
		return errs.New(errs.Conflict, "container %s is not paused", c.Name)
	}
	if err := t.Freeze(ctx, frozen); err != nil {
		return errs.Wrap(err, "container %s", c.Name)
	}
	status, action := model.StatusRunning, "unpause"
	if frozen {
		status, action = model.StatusPaused, "pause"
	}
	c = en.edit(func(c *model.Container) {
		if c.State.Alive() {
			c.State.Status = status
		}
	})
	e.pauseHealth(en, frozen)
	if err := e.saveState(en, false); err != nil { // before it is confirmed: what is not recorded as paused is resumed at the daemon's start
		e.cfg.Log.Warn("a container's state could not be recorded", "container", en.id, "action", action, "error", err)
	}
	e.publish(c, action, nil)
	return nil
}

// Rename gives a container another name.
func (e *Engine) Rename(ctx context.Context, ref, name string) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	if err := en.enter(ctx); err != nil {
		return err
	}
	defer en.leave()
	old, err := e.rename(en, name)
	if err != nil {
		return err
	}
	e.publish(en.get(), "rename", map[string]string{"oldName": "/" + old})
	return nil
}
