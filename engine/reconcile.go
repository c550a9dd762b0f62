package engine

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/shoalhq/shoal/engine/record"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
)

// openNetns opens a running container's network namespace.
func openNetns(t Task) (*os.File, error) {
	f, err := os.Open(nsPath(t.Info().Pid, "net"))
	if err != nil {
		return nil, errs.Wrap(err, "network namespace of the container")
	}
	if ended(t) {
		f.Close()
		return nil, errs.New(errs.Conflict, "the container ended meanwhile")
	}
	return f, nil
}

// found is what a restart of the daemon found of one container.
type found struct {
	en   *entry
	task Task
	exit *TaskExit
	err  error // not known: the supervisor is there and does not answer
}

// How long a supervisor may take to answer a new daemon, and how often one that does not is asked again. The daemon serves
// everybody else meanwhile.
const (
	reattachPatience = 5 * time.Second
	reattachPause    = 2 * time.Second
	reattachPauseMax = time.Minute
)

// reattach asks for one container.
func (e *Engine) reattach(ctx context.Context, en *entry) found {
	ctx, cancel := context.WithTimeout(ctx, reattachPatience)
	defer cancel()
	t, exit, err := e.ports.Tasks.Reattach(ctx, en.id)
	return found{en, t, exit, err}
}

// reconcile makes records and kernel agree after a start of the daemon: containers that run are taken up again, ends
// that were missed are dealt with, half-made things go, and policies decide what is started.
func (e *Engine) reconcile(ctx context.Context, damaged []record.Damage) error {
	if err := e.makeBase(); err != nil {
		return err
	}
	all := e.index.all()
	e.holdAll(ctx, all)
	states := e.reattachAll(ctx, all)
	e.clearOrphans(ctx, damaged)
	if err := failpoint.Hit("engine/reconcile/reattached"); err != nil {
		return err
	}
	var live []NetworkLive
	for _, f := range states {
		if f.task == nil && f.err == nil {
			continue
		}
		e.holdMounts(ctx, f.en.get())
		if f.task != nil {
			e.takeUp(f)
		}
		// The number of one that does not answer holds too: who has not told of its end has not taken it from the kernel.
		if c := f.en.get(); attachesNetwork(c) && c.State.Pid != 0 {
			live = append(live, NetworkLive{Attach: e.networkAttach(c, nil), Path: nsPath(c.State.Pid, "net"), State: c.Network})
		}
	}
	if err := e.ports.Networks.Restore(ctx, live); err != nil {
		e.cfg.Log.Error("the networks of running containers could not be restored", "error", err)
	}
	for _, f := range states {
		if f.task != nil {
			f.en.mu.Lock()
			run := f.en.runs
			f.en.mu.Unlock()
			e.watch(f.en, f.task, run)
			continue
		}
		if f.err != nil {
			e.goBackground(func(ctx context.Context) { e.reattachLater(ctx, f.en) })
			continue
		}
		e.settleEnded(f)
	}
	return nil
}

// reattachLater asks again for a container whose supervisor did not answer, until it is known how it stands.
func (e *Engine) reattachLater(ctx context.Context, en *entry) {
	for pause := reattachPause; ; pause = min(2*pause, reattachPauseMax) {
		wake := make(chan struct{})
		stop := e.cfg.Clock.AfterFunc(pause, func() { close(wake) })
		select {
		case <-wake:
		case <-ctx.Done():
			stop()
			return
		}
		f := e.reattach(ctx, en)
		if f.err != nil {
			continue
		}
		e.cfg.Log.Info("a container's supervisor answers again", "container", en.id, "name", en.get().Name)
		if f.task == nil {
			e.settleEnded(f)
			return
		}
		e.takeUp(f)
		en.mu.Lock()
		run := en.runs
		en.mu.Unlock()
		e.watch(en, f.task, run)
		return
	}
}

// holdAll tells the images and volumes again who uses them.
func (e *Engine) holdAll(ctx context.Context, all []*entry) {
	warn := func(c *model.Container, what string, err error) {
		if err != nil {
			e.cfg.Log.Warn("a container refers to something that is not there; it cannot be started until it is back",
				"container", c.ID, "name", c.Name, "what", what, "error", err)
		}
	}
	for _, en := range all {
		c := en.get()
		warn(c, "image "+c.Image.Ref, e.ports.Images.Use(ctx, c.ID, c.Image.ID))
		for _, mp := range c.Mounts {
			switch mp.Type {
			case "volume":
				warn(c, "volume "+mp.Name, e.ports.Volumes.Use(ctx, mp.Name, c.ID, false))
			case "image":
				warn(c, "image "+mp.Source, e.ports.Images.Use(ctx, imageMountHolder(c.ID, mp.Destination), mp.Name))
			}
		}
	}
}

// holdMounts tells the volumes again who runs with them. One that does not answer may.
func (e *Engine) holdMounts(ctx context.Context, c *model.Container) {
	for _, mp := range c.Mounts {
		if mp.Type == "volume" {
			e.ports.Volumes.Use(ctx, mp.Name, c.ID, true) // a volume that is missing was told of before
		}
	}
}

// reattachAll asks for every container whether something of it runs, in parallel.
func (e *Engine) reattachAll(ctx context.Context, all []*entry) []found {
	known := map[string]bool{}
	if list, err := e.ports.Tasks.Known(); err == nil {
		for _, id := range list {
			known[id] = true
		}
	} else {
		e.cfg.Log.Error("the supervisors of running containers cannot be listed", "error", err)
	}
	out := make([]found, len(all))
	slots := make(chan struct{}, 8*runtime.NumCPU())
	var wg sync.WaitGroup
	for i, en := range all {
		out[i].en = en
		if !known[en.id] {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if out[i] = e.reattach(ctx, en); out[i].err != nil {
				e.cfg.Log.Error("a container's supervisor does not answer; the container is left as it is, and asked for again later: "+
					"see what holds the process up, it is shoal-runtime supervise with the container's ID", "container", en.id, "error", out[i].err)
			}
		})
	}
	wg.Wait()
	return out
}

// clearOrphans removes what is left of containers that have no record: their create was cut off, or their removal. Those
// whose record is damaged are left alone.
func (e *Engine) clearOrphans(ctx context.Context, damaged []record.Damage) {
	spare := map[string]bool{}
	for _, d := range damaged {
		spare[d.ID] = true
	}
	list, err := e.ports.Tasks.Known()
	if err != nil {
		return
	}
	for _, id := range list {
		if _, err := e.index.find(id); err == nil {
			continue
		}
		if spare[id] {
			e.cfg.Log.Warn("a container whose record is damaged may still run; it is left alone", "container", id)
			continue
		}
		patient, cancel := context.WithTimeout(ctx, reattachPatience)
		t, _, err := e.ports.Tasks.Reattach(patient, id)
		cancel()
		if err == nil && t != nil {
			t.Signal(ctx, sigKill, true)
			e.goBackground(func(ctx context.Context) {
				select {
				case <-t.Done():
					e.ports.Tasks.Clear(ctx, id)
				case <-ctx.Done():
				}
			})
			continue
		}
		if err := e.ports.Tasks.Clear(ctx, id); err != nil {
			e.cfg.Log.Warn("what is left of a removed container could not be cleared", "container", id, "error", err)
		}
	}
	e.clearShm()
}

// clearShm unmounts shared memory of containers that are gone.
func (e *Engine) clearShm() {
	entries, err := os.ReadDir(filepath.Join(e.cfg.ExecRoot, "shm"))
	if err != nil {
		return
	}
	for _, entry := range entries {
		if _, err := e.index.find(entry.Name()); err != nil && ids.Valid(entry.Name()) {
			e.dropShm(entry.Name())
		}
	}
}

// takeUp makes a container that runs known as running, also when the daemon died before it could record the start.
func (e *Engine) takeUp(f found) {
	info := f.task.Info()
	f.en.begin(f.task)
	f.en.edit(func(c *model.Container) {
		if !c.State.Alive() {
			c.State.Status, c.State.Error, c.State.ExitCode = model.StatusRunning, "", 0
			c.State.Health = initialHealth(c.Spec.Health)
		}
		if c.State.Status == model.StatusPaused && !info.Paused {
			c.State.Status = model.StatusRunning
		}
		c.State.Pid = info.Pid
		if info.StartedAt != 0 {
			c.State.StartedAt = time.Unix(0, info.StartedAt).UTC()
		}
		if attachesNetwork(c) {
			c.Network.SandboxID, c.Network.SandboxKey = c.ID, nsPath(info.Pid, "net")
		}
	})
	e.saveLater(f.en)
	if info.Paused && f.en.get().State.Status != model.StatusPaused {
		// A pause is recorded before it is confirmed: this one was the daemon's own, for a commit that its death cut off.
		if err := f.task.Freeze(e.ctx, false); err != nil {
			e.cfg.Log.Error("a container that was paused for a commit cannot be resumed; kill and start it", "container", f.en.id, "error", err)
		}
	}
}

// settleEnded deals with a container that does not run: an end that nobody saw is recorded, and the policy decides.
func (e *Engine) settleEnded(f found) {
	c := f.en.get()
	was := c.State.Status
	missed := c.State.Alive() || f.exit != nil
	if missed {
		exit := f.exit
		if exit == nil { // the machine was restarted, or the supervisor's files are gone
			exit = &TaskExit{Code: errs.ExitUnknownRestart, Reason: "the container ended while the daemon did not run, for example by a restart of the machine; its exit code is not known"}
		}
		e.endMissed(f.en, *exit)
		c = f.en.get()
	} else if was == model.StatusRestarting {
		c = f.en.edit(func(c *model.Container) { c.State.Status = model.StatusExited })
	}
	if c.Network.SandboxKey != "" || c.Network.Endpoints != nil { // a start was cut off
		c = f.en.edit(func(c *model.Container) { c.Network = model.NetworkState{} })
	}
	switch {
	case was == model.StatusRemoving || c.Spec.Options.AutoRemove && (missed || was == model.StatusExited):
		e.goBackground(func(ctx context.Context) { e.finishRemoval(ctx, f.en) })
	case e.wantedAtStart(c, missed || was == model.StatusRestarting, f.exit):
		f.en.edit(func(c *model.Container) { c.State.Status, c.State.UserStopped = model.StatusRestarting, false })
		e.goBackground(func(ctx context.Context) { e.restartDue(ctx, f.en) })
	}
}

// endMissed is exited for an end that happened while no daemon ran.
func (e *Engine) endMissed(en *entry, exit TaskExit) {
	ctx := context.WithoutCancel(e.ctx)
	e.giveBack(ctx, en.get())
	at := e.now()
	if exit.At != 0 {
		at = time.Unix(0, exit.At).UTC()
	}
	c := en.edit(func(c *model.Container) { markEnded(c, exit, at, false) })
	if err := e.saveState(en, false); err != nil {
		e.cfg.Log.Warn("the end of a container could not be recorded", "container", en.id, "error", err)
	} else {
		e.clearSupervisor(ctx, en.id)
	}
	e.publish(c, "die", map[string]string{"exitCode": itoa(uint64(max(0, exit.Code)))})
	en.tell(model.WaitNextExit, model.WaitResult{ExitCode: exit.Code})
	en.tell(model.WaitNotRunning, model.WaitResult{ExitCode: exit.Code})
}

// wantedAtStart is the restart policy at the daemon's start.
func (e *Engine) wantedAtStart(c *model.Container, ranBefore bool, exit *TaskExit) bool {
	if e.cfg.AtClose == StopOnly {
		return false
	}
	switch c.Spec.Restart.Name {
	case "always":
		return !c.State.StartedAt.IsZero() || c.State.UserStopped || ranBefore
	case "unless-stopped":
		return !c.State.UserStopped && (ranBefore || !c.State.StartedAt.IsZero())
	case "on-failure":
		if c.State.UserStopped || !ranBefore {
			return false
		}
		code := errs.ExitUnknownRestart
		if exit != nil {
			code = exit.Code
		}
		return wantsRestart(c.Spec.Restart, c.State.RestartCount, code)
	}
	return false
}

// finishRemoval removes what was being removed when the daemon died.
func (e *Engine) finishRemoval(ctx context.Context, en *entry) {
	if err := en.enter(ctx); err != nil {
		return
	}
	defer en.leave()
	if err := e.removeLocked(context.WithoutCancel(ctx), en, model.RemoveOptions{Volumes: true}); err != nil {
		e.cfg.Log.Warn("a container whose removal was cut off could not be removed", "container", en.id, "error", err)
	}
}
