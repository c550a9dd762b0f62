package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
)

// The states of a health check.
const (
	healthStarting  = "starting"
	healthHealthy   = "healthy"
	healthUnhealthy = "unhealthy"
)

// Docker's defaults.
const (
	healthInterval      = 30 * time.Second
	healthTimeout       = 30 * time.Second
	healthStartInterval = 5 * time.Second
	healthRetries       = 3
	healthKept          = 5
	healthOutput        = 4096 // bytes of output kept
)

// healthMonitor probes one run of a container. Between probes nothing runs but one timer.
type healthMonitor struct {
	e     *Engine
	en    *entry
	task  Task
	check model.Healthcheck
	began time.Time

	mu      sync.Mutex
	timer   func() bool
	paused  bool
	stopped bool
	cancel  context.CancelFunc // of the probe under way
}

// checked says whether there is a health check, and not one that is switched off.
func checked(h *model.Healthcheck) bool {
	return h != nil && len(h.Test) > 0 && h.Test[0] != "NONE" && h.Test[0] != ""
}

func initialHealth(h *model.Healthcheck) *model.HealthState {
	if !checked(h) {
		return nil
	}
	return &model.HealthState{Status: healthStarting}
}

// startHealth begins to probe a run.
func (e *Engine) startHealth(en *entry, t Task, run uint64) {
	c := en.get()
	if !checked(c.Spec.Health) {
		return
	}
	h := *c.Spec.Health
	h.Interval = cmp.Or(h.Interval, healthInterval)
	h.Timeout = cmp.Or(h.Timeout, healthTimeout)
	h.StartInterval = cmp.Or(h.StartInterval, healthStartInterval)
	h.Retries = cmp.Or(h.Retries, healthRetries)
	m := &healthMonitor{e: e, en: en, task: t, check: h, began: c.State.StartedAt}
	en.mu.Lock()
	old := en.health
	if en.runs == run {
		en.health = m
	}
	en.mu.Unlock()
	if old != nil {
		old.stop()
	}
	m.schedule()
}

// pauseHealth keeps probes off a container that is frozen.
func (e *Engine) pauseHealth(en *entry, paused bool) {
	en.mu.Lock()
	m := en.health
	en.mu.Unlock()
	if m == nil {
		return
	}
	m.mu.Lock()
	m.paused = paused
	stop := m.timer
	m.timer = nil
	m.mu.Unlock()
	if stop != nil {
		stop()
	}
	if !paused {
		m.schedule()
	}
}

// schedule sets the timer for the next probe: within the start period, and until the first success, they come faster.
func (m *healthMonitor) schedule() {
	wait := m.check.Interval
	if h := m.en.get().State.Health; h != nil && h.Status == healthStarting && m.inStartPeriod() {
		wait = m.check.StartInterval
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped || m.paused {
		return
	}
	m.timer = m.e.cfg.Clock.AfterFunc(wait, func() { m.e.goBackground(m.probe) })
}

func (m *healthMonitor) inStartPeriod() bool {
	return m.e.now().Sub(m.began) < m.check.StartPeriod
}

// stop ends the monitor and the probe under way.
func (m *healthMonitor) stop() {
	m.mu.Lock()
	m.stopped = true
	timer, cancel := m.timer, m.cancel
	m.mu.Unlock()
	if timer != nil {
		timer()
	}
	if cancel != nil {
		cancel()
	}
}

// probe runs the check once.
func (m *healthMonitor) probe(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	skip := m.stopped || m.paused
	m.cancel = cancel
	m.mu.Unlock()
	if skip {
		return
	}
	result := model.HealthResult{Start: m.e.now()}
	output := &bounded{limit: healthOutput}
	result.ExitCode = m.run(ctx, output)
	result.End, result.Output = m.e.now(), output.String()
	m.mu.Lock()
	m.cancel = nil
	stopped := m.stopped
	m.mu.Unlock()
	if stopped {
		return
	}
	m.record(result)
	m.schedule()
}

// run runs the check's command in the container and gives its exit code; -1 when it could not be run or took too long.
func (m *healthMonitor) run(ctx context.Context, output *bounded) int {
	c := m.en.get()
	cmd := m.check.Test[1:]
	if m.check.Test[0] == "CMD-SHELL" {
		shell := c.Spec.Process.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		cmd = append(append([]string(nil), shell...), cmd[0])
	}
	process, err := m.e.execProcess(ctx, c, model.ExecSpec{Cmd: cmd, AttachStdout: true, AttachStderr: true})
	if err != nil {
		io.WriteString(output, err.Error())
		return -1
	}
	id := ids.New()
	m.e.publish(c, "exec_create: "+joinArgs(cmd), map[string]string{"execID": id})
	m.e.publish(c, "exec_start: "+joinArgs(cmd), map[string]string{"execID": id})
	p, err := m.task.Streams().Exec(ctx, TaskExec{ID: id, Process: process, Stdout: true, Stderr: true})
	if err != nil {
		io.WriteString(output, err.Error())
		var failure *StartFailure
		if errors.As(err, &failure) {
			return failure.Code
		}
		return -1
	}
	defer p.Conn.Close()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		demultiplex(p.Conn, output, output)
	}()
	expired := make(chan struct{})
	stopTimer := m.e.cfg.Clock.AfterFunc(m.check.Timeout, func() { close(expired) })
	defer stopTimer()
	select {
	case <-p.Done:
		p.Conn.CloseWrite()
		select {
		case <-drained: // the supervisor closes when all output was sent
		case <-expired: // something that the check left behind holds the output open
		}
		m.e.publish(c, "exec_die", map[string]string{"execID": id, "exitCode": strconv.Itoa(p.Exit().Code)})
		return p.Exit().Code
	case <-expired:
	case <-ctx.Done():
	}
	m.task.Streams().SignalExec(context.WithoutCancel(ctx), id, sigKill)
	output.begin("Health check exceeded timeout (" + m.check.Timeout.String() + ")")
	return -1
}

func joinArgs(args []string) string {
	var b bytes.Buffer
	for i, a := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(a)
	}
	return b.String()
}

// record puts a result in and moves the state: one success makes healthy, so many failures in a row unhealthy, those of
// the start period not counted.
func (m *healthMonitor) record(r model.HealthResult) {
	var before, after string
	c := m.en.edit(func(c *model.Container) {
		old := c.State.Health
		if old == nil || !c.State.Alive() {
			return
		}
		next := &model.HealthState{Status: old.Status, FailingStreak: old.FailingStreak}
		next.Log = append(append(next.Log, old.Log[max(0, len(old.Log)-healthKept+1):]...), r)
		before = old.Status
		switch {
		case r.ExitCode == 0:
			next.Status, next.FailingStreak = healthHealthy, 0
		case old.Status == healthStarting && m.inStartPeriod():
		default:
			next.FailingStreak++
			if next.FailingStreak >= m.check.Retries {
				next.Status = healthUnhealthy
			}
		}
		after = next.Status
		c.State.Health = next
	})
	if before != after {
		m.e.publish(c, "health_status: "+after, nil)
		m.e.saveLater(m.en)
	}
}

// bounded keeps the first bytes that are written to it and takes the rest for nothing.
type bounded struct {
	mu    sync.Mutex
	buf   []byte
	limit int
}

func (b *bounded) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = append(b.buf, p[:min(len(p), b.limit-len(b.buf))]...)
	return len(p), nil
}

func (b *bounded) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.buf)
}

// begin puts text before what was written.
func (b *bounded) begin(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.buf) > 0 {
		text += ": "
	}
	b.buf = append([]byte(text), b.buf...)
}
