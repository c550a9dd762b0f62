package engine

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
)

// entry is one container in memory. Readers take the current snapshot and are never held up; whoever changes the
// container's life holds the gate, which is a token and not a lock: waiting for it ends with the caller's context.
type entry struct {
	id   string
	gate chan struct{}
	cur  atomic.Pointer[model.Container]
	save saver
	kept atomic.Int32 // not zero: the container is not removed at its end, because it is being restarted

	mu        sync.Mutex // guards what follows, never held across a call
	task      Task
	startGate *startGate // attaches that wait for the next start
	waiters   map[*waiter]struct{}
	timer     func() bool // stops the restart that is due
	health    *healthMonitor
	runs      uint64 // counts starts, so that late news of an earlier run is told apart
}

func newEntry(c *model.Container) *entry {
	en := &entry{id: c.ID, gate: make(chan struct{}, 1), waiters: map[*waiter]struct{}{}}
	en.cur.Store(c)
	return en
}

// get is the current snapshot; nobody writes to it.
func (en *entry) get() *model.Container { return en.cur.Load() }

// edit puts a changed copy in place. f must replace maps and slices, not write into them.
func (en *entry) edit(f func(c *model.Container)) *model.Container {
	en.mu.Lock()
	defer en.mu.Unlock()
	next := *en.cur.Load()
	f(&next)
	en.cur.Store(&next)
	return &next
}

// enter takes the gate; leave gives it back.
func (en *entry) enter(ctx context.Context) error {
	select {
	case en.gate <- struct{}{}:
		return nil
	default:
	}
	select {
	case en.gate <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errs.As(errs.KindOf(ctx.Err()), errs.Wrap(ctx.Err(), "container %s is busy with another operation", en.get().Name))
	}
}

func (en *entry) leave() { <-en.gate }

// running is the task, or nil.
func (en *entry) running() Task {
	en.mu.Lock()
	defer en.mu.Unlock()
	return en.task
}

// mustRun is the task, or the Conflict that Docker answers.
func (en *entry) mustRun() (Task, error) {
	if t := en.running(); t != nil {
		return t, nil
	}
	c := en.get()
	if c.State.Status == model.StatusRestarting {
		return nil, errs.New(errs.Conflict, "container %s is restarting, wait until the container is running", ids.Short(c.ID))
	}
	if c.State.Alive() {
		return nil, unreachable(c)
	}
	return nil, errs.New(errs.Conflict, "container %s is not running; start it with: start %s", ids.Short(c.ID), c.Name)
}

// unreachable is the answer for a container that runs, as far as is known, under a supervisor that has not answered since
// the daemon started.
func unreachable(c *model.Container) error {
	return errs.New(errs.Unavailable, "container %s cannot be reached: its supervisor (shoal-runtime supervise) has not answered since the daemon was started; "+
		"see the daemon's log and what holds that process up", c.Name)
}

// quiet stops the timers that would act on the container.
func (en *entry) quiet() {
	en.mu.Lock()
	stop, health := en.timer, en.health
	en.timer, en.health = nil, nil
	en.mu.Unlock()
	if stop != nil {
		stop()
	}
	if health != nil {
		health.stop()
	}
}

// saver writes a container's state so that the newest always gets to disk, with one write under way at a time.
type saver struct {
	mu      sync.Mutex
	wanted  uint64        // generation that somebody asked to be written
	written uint64        // generation on disk
	busy    chan struct{} // closed when the write under way is over; nil when there is none
	gone    bool          // the container was removed: nothing may be written any more
}

// saveState writes the current state and returns when it, or a newer one, is on disk.
func (e *Engine) saveState(en *entry, durable bool) error {
	_, err := e.saveThat(en, en.get, durable)
	return err
}

// saveThat writes the state that get gives, and returns its generation.
func (e *Engine) saveThat(en *entry, get func() *model.Container, durable bool) (uint64, error) {
	s := &en.save
	s.mu.Lock()
	s.wanted++
	mine := s.wanted
	for {
		if s.gone || s.written >= mine {
			s.mu.Unlock()
			return mine, nil
		}
		if s.busy == nil {
			break
		}
		wait := s.busy
		s.mu.Unlock()
		<-wait
		s.mu.Lock()
	}
	done := make(chan struct{})
	s.busy = done
	upTo := s.wanted
	s.mu.Unlock()

	err := e.records.SaveState(get(), durable)

	s.mu.Lock()
	s.busy = nil
	if err == nil {
		s.written = max(s.written, upTo)
	}
	s.mu.Unlock()
	close(done)
	return mine, err
}

// isNewest says whether a generation that saveThat gave is still the one on disk, with nothing asked for since.
func (en *entry) isNewest(generation uint64) bool {
	s := &en.save
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted == generation && s.written == generation
}

// saveLater writes the state in the background: for what the supervisor's own files could tell again.
func (e *Engine) saveLater(en *entry) {
	save := func(context.Context) {
		if err := e.saveState(en, false); err != nil {
			e.cfg.Log.Warn("a container's state could not be written; after a restart of the machine it may be out of date",
				"container", en.id, "error", err)
		}
	}
	if e.closing.Load() {
		save(e.ctx)
		return
	}
	e.goBackground(save)
}

// stopSaving makes sure that nothing is written any more; it waits for a write under way.
func (en *entry) stopSaving() {
	s := &en.save
	s.mu.Lock()
	s.gone = true
	wait := s.busy
	s.mu.Unlock()
	if wait != nil {
		<-wait
	}
}

// flush writes what is not on disk yet.
func (e *Engine) flush(en *entry) error {
	en.save.mu.Lock()
	dirty := en.save.wanted != en.save.written && !en.save.gone
	en.save.mu.Unlock()
	if !dirty {
		return nil
	}
	return e.saveState(en, false)
}
