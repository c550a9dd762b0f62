package engine

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/model"
)

// Restart back-off: the first restart comes after backoffFirst, each further one after twice as long, at most
// backoffMax; a run of backoffReset or longer starts anew.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMax   = time.Minute
	backoffReset = 10 * time.Second
)

// exited deals with the end of a run: what the run held is given back, then the state changes, then those who wait are
// told, so that whoever hears of the end finds ports and names free. How it ended is on disk before the supervisor's own
// record of it goes. A container that is removed at its end is removed first: the supervisor, which held nothing of it any
// more when it told of the end, removes the cgroup and ends meanwhile.
func (e *Engine) exited(en *entry, t Task, run uint64) {
	exit := t.Exit()
	en.endRun(run)
	c := en.get()
	e.execs.endAll(en.id)
	ctx := context.WithoutCancel(e.ctx)
	e.giveBack(ctx, c)
	at := e.now()
	if exit.At != 0 {
		at = time.Unix(0, exit.At).UTC()
	}
	delay, again := e.restartAfter(c, exit, at)
	change := func(c *model.Container) { markEnded(c, exit, at, again) }
	remove := c.Spec.Options.AutoRemove && en.kept.Load() == 0 && !e.closing.Load()
	var saved uint64
	var err error
	if !remove {
		saved, err = e.saveThat(en, func() *model.Container { next := *en.get(); change(&next); return &next }, false)
	}
	if err == nil {
		err = failpoint.Hit("engine/exit/recorded")
	}
	if err == nil && !remove { // else it goes behind the removal, for which nobody has to wait
		e.clearSupervisor(ctx, c.ID)
	} else if err != nil { // the supervisor's record stays: a daemon that starts before ours could be written learns the end from it
		e.cfg.Log.Warn("the end of a container could not be recorded", "container", en.id, "exitCode", exit.Code, "error", err)
	}
	late := false // the end overtook the news of what caused it
	c = en.edit(func(c *model.Container) {
		late = exit.OOMKilled && !c.State.OOMKilled
		change(c)
	})
	en.clearTask(run)
	if late {
		e.publish(c, "oom", nil)
	}
	if !remove && !en.isNewest(saved) {
		e.saveLater(en) // something else was written in between, perhaps with what was before
	}
	e.publish(c, "die", map[string]string{
		"exitCode":     strconv.Itoa(exit.Code),
		"execDuration": strconv.Itoa(int(max(0, at.Sub(c.State.StartedAt)).Seconds())),
	})
	en.tell(model.WaitNextExit, model.WaitResult{ExitCode: exit.Code})
	en.tell(model.WaitNotRunning, model.WaitResult{ExitCode: exit.Code})
	if again {
		e.scheduleRestart(en, delay)
	} else if remove {
		e.goBackground(func(ctx context.Context) {
			e.autoRemove(en)
			e.clearSupervisor(context.WithoutCancel(ctx), en.id)
		})
	}
}

// markEnded is what the end of a run changes of a container.
func markEnded(c *model.Container, exit TaskExit, at time.Time, again bool) {
	c.State.Status, c.State.Pid, c.State.ExitCode, c.State.FinishedAt = model.StatusExited, 0, exit.Code, at
	c.State.OOMKilled = c.State.OOMKilled || exit.OOMKilled
	c.State.Error = exit.Reason
	c.Network.SandboxKey, c.Network.Ports, c.Network.Endpoints = "", nil, nil
	if h := c.State.Health; h != nil && h.Status == healthStarting {
		c.State.Health = &model.HealthState{Status: healthUnhealthy, FailingStreak: h.FailingStreak, Log: h.Log}
	}
	if again {
		c.State.Status = model.StatusRestarting
		c.State.RestartCount++
	}
}

// endRun stops what watched the run.
func (en *entry) endRun(run uint64) {
	en.mu.Lock()
	var health *healthMonitor
	if en.runs == run {
		health, en.health = en.health, nil
	}
	en.mu.Unlock()
	if health != nil {
		health.stop()
	}
}

// clearTask forgets the task of a run.
func (en *entry) clearTask(run uint64) {
	en.mu.Lock()
	defer en.mu.Unlock()
	if en.runs == run {
		en.task = nil
	}
}

// giveBack frees what a run held: endpoints and ports, volumes, shared memory.
func (e *Engine) giveBack(ctx context.Context, c *model.Container) {
	var wg sync.WaitGroup
	if attachesNetwork(c) {
		wg.Go(func() {
			if err := e.ports.Networks.Detach(ctx, c.ID, ""); err != nil {
				e.cfg.Log.Warn("a container's network could not be taken back", "container", c.ID, "error", err)
			}
			for _, ep := range c.Network.Endpoints {
				e.publishNetwork("disconnect", c.ID, ep, e.driverOf(ep))
			}
		})
	}
	for _, mp := range c.Mounts {
		if mp.Type == "volume" {
			if err := e.ports.Volumes.Unmount(ctx, mp.Name, c.ID); err != nil {
				e.cfg.Log.Warn("a container's volume could not be given back", "container", c.ID, "volume", mp.Name, "error", err)
			}
			e.publishVolume("unmount", c.ID, mp)
		}
	}
	if c.Spec.Isolation.IPC == "shareable" {
		e.dropShm(c.ID)
	}
	wg.Wait()
}

// clearSupervisor removes what the supervisor left, its record of the exit status included.
func (e *Engine) clearSupervisor(ctx context.Context, id string) {
	if err := e.ports.Tasks.Clear(ctx, id); err != nil {
		e.cfg.Log.Warn("what is left of a container's supervisor could not be removed", "container", id, "error", err)
	}
}

// restartAfter decides whether a container that ended is started again, and when.
func (e *Engine) restartAfter(c *model.Container, exit TaskExit, at time.Time) (time.Duration, bool) {
	if c.State.UserStopped || e.closing.Load() || !wantsRestart(c.Spec.Restart, c.State.RestartCount, exit.Code) {
		return 0, false
	}
	if at.Sub(c.State.StartedAt) >= backoffReset {
		return backoffFirst, true
	}
	return backoff(c.State.RestartCount), true
}

// wantsRestart is the restart policy.
func wantsRestart(p model.RestartPolicy, restarts, exitCode int) bool {
	switch p.Name {
	case "always", "unless-stopped":
		return true
	case "on-failure":
		return exitCode != 0 && (p.MaxRetries == 0 || restarts < p.MaxRetries)
	}
	return false
}

// backoff is how long to wait before restart number n, counted from 0.
func backoff(n int) time.Duration {
	if n > 20 {
		return backoffMax
	}
	return min(backoffFirst<<n, backoffMax)
}

// scheduleRestart starts the container again after the delay, unless something else comes first.
func (e *Engine) scheduleRestart(en *entry, delay time.Duration) {
	stop := e.cfg.Clock.AfterFunc(delay, func() {
		e.goBackground(func(ctx context.Context) { e.restartDue(ctx, en) })
	})
	en.mu.Lock()
	en.timer = stop
	en.mu.Unlock()
}

// restartDue is the restart itself. A failure to start counts as an exit.
func (e *Engine) restartDue(ctx context.Context, en *entry) {
	if err := en.enter(ctx); err != nil {
		return
	}
	defer en.leave()
	c := en.get()
	if c.State.Status != model.StatusRestarting {
		return // stopped, started or removed meanwhile
	}
	if c.State.UserStopped {
		c = en.edit(func(c *model.Container) { c.State.Status = model.StatusExited })
		e.saveLater(en)
		en.tell(model.WaitNotRunning, model.WaitResult{ExitCode: c.State.ExitCode})
		return
	}
	if err := e.start(ctx, en); err != nil {
		e.cfg.Log.Warn("a container could not be restarted", "container", c.ID, "name", c.Name, "error", err)
		e.restartFailed(en)
	}
}

// restartFailed tries again later where the policy says so.
func (e *Engine) restartFailed(en *entry) {
	c := en.get()
	if c.State.UserStopped || !wantsRestart(c.Spec.Restart, c.State.RestartCount, c.State.ExitCode) {
		en.tell(model.WaitNextExit, model.WaitResult{ExitCode: c.State.ExitCode}) // this was the last: no other end will come
		en.tell(model.WaitNotRunning, model.WaitResult{ExitCode: c.State.ExitCode})
		return
	}
	c = en.edit(func(c *model.Container) {
		c.State.Status = model.StatusRestarting
		c.State.RestartCount++
	})
	e.scheduleRestart(en, backoff(c.State.RestartCount))
}

// autoRemove removes a container that ended and was to be removed at its end.
func (e *Engine) autoRemove(en *entry) {
	ctx := context.WithoutCancel(e.ctx)
	if err := en.enter(ctx); err != nil {
		return
	}
	defer en.leave()
	if en.get().State.Status != model.StatusExited {
		return // somebody started it again, or removed it
	}
	if err := e.removeLocked(ctx, en, model.RemoveOptions{Volumes: true}); err != nil && !errs.Is(err, errs.NotFound) {
		e.cfg.Log.Warn("a container could not be removed at its end", "container", en.id, "error", err)
		en.tell(model.WaitRemoved, model.WaitResult{ExitCode: en.get().State.ExitCode, Err: err}) // else they wait for ever
	}
}
