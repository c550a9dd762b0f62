package engine

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/engine/ocispec"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
)

// execKept is how long the record of an ended exec can be inspected, execWaits how long one that was made waits for its start.
const (
	execKept  = 5 * time.Minute
	execWaits = time.Hour
)

// execTable is the execs of all containers. Records go with their container, or some time after they ended, so that
// neither polls nor abandoned execs make the daemon grow.
type execTable struct {
	mu   sync.Mutex
	byID map[string]*execution
}

// execution is one exec.
type execution struct {
	id        string
	container string
	spec      model.ExecSpec

	// guarded by the table
	started, running bool
	pid              int
	exitCode         *int
	expire           func() bool
}

func (t *execTable) add(x *execution) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byID[x.id] = x
}

func (t *execTable) find(id string) (*execution, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if x := t.byID[id]; x != nil {
		return x, nil
	}
	var found *execution
	for full, x := range t.byID {
		if len(id) >= 12 && strings.HasPrefix(full, id) {
			found = x
		}
	}
	if found == nil {
		return nil, errs.New(errs.NotFound, "No such exec instance: %s", id)
	}
	return found, nil
}

// of lists a container's execs.
func (t *execTable) of(container string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for id, x := range t.byID {
		if x.container == container && (x.running || !x.started) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

func (t *execTable) change(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
}

// endAll notes that a container ended: its execs ended with it. Those not started yet can never be.
func (t *execTable) endAll(container string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, x := range t.byID {
		if x.container != container {
			continue
		}
		if !x.started {
			x.expire()
			delete(t.byID, id)
		} else if x.running {
			code := 137
			x.running, x.exitCode = false, &code
		}
	}
}

func (t *execTable) dropAll(container string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, x := range t.byID {
		if x.container == container {
			if x.expire != nil {
				x.expire()
			}
			delete(t.byID, id)
		}
	}
}

// ExecCreate notes a process to be run in a running container.
func (e *Engine) ExecCreate(ctx context.Context, ref string, spec model.ExecSpec) (string, error) {
	en, err := e.find(ref)
	if err != nil {
		return "", err
	}
	if _, err := en.mustRun(); err != nil {
		return "", err
	}
	c := en.get()
	if c.State.Status == model.StatusPaused {
		return "", errs.New(errs.Conflict, "container %s is paused, unpause the container before exec", c.Name)
	}
	if len(spec.Cmd) == 0 || spec.Cmd[0] == "" {
		return "", invalid("No exec command specified")
	}
	if _, err := parseDetachKeys(spec.DetachKeys); err != nil {
		return "", err
	}
	for _, env := range spec.Env {
		if env == "" || env[0] == '=' {
			return "", invalid("invalid environment variable: %s has no name; write NAME=value", env)
		}
	}
	if strings.Trim(spec.User, "0123456789:") != "" { // a client that attaches is not shown why a start was refused
		if _, err := e.lookupUser(ctx, e.usersOf(ctx, c), spec.User, nil); err != nil {
			return "", err
		}
	}
	x := &execution{id: ids.New(), container: en.id, spec: spec}
	x.expire = e.cfg.Clock.AfterFunc(execWaits, func() {
		e.execs.change(func() {
			if !x.started {
				delete(e.execs.byID, x.id)
			}
		})
	})
	e.execs.add(x)
	e.publish(c, "exec_create: "+strings.Join(spec.Cmd, " "), map[string]string{"execID": x.id})
	return x.id, nil
}

// ExecStart runs it: detached it returns when the process runs, otherwise when it and its output ended or the client
// detached.
func (e *Engine) ExecStart(ctx context.Context, id string, opts model.ExecStartOptions) error {
	x, err := e.execs.find(id)
	if err != nil {
		return err
	}
	en, err := e.find(x.container)
	if err != nil {
		return errs.New(errs.NotFound, "No such exec instance: %s (its container is gone)", id)
	}
	t, err := en.mustRun()
	if err != nil {
		return err
	}
	keys, err := parseDetachKeys(x.spec.DetachKeys)
	if err != nil {
		return err
	}
	again := false
	e.execs.change(func() {
		if again, x.started = x.started, true; !again {
			x.expire()
		}
	})
	if again {
		return errs.New(errs.Conflict, "exec command %s has already been run; create another", ids.Short(id))
	}
	process, err := e.execProcess(ctx, en.get(), x.spec)
	if err != nil {
		// As if the program could not be run, with its exit code: command lines show only what comes in the stream.
		e.execEnded(x, errs.ExitNotExecutable)
		return err
	}
	request := TaskExec{ID: x.id, Process: process, Tty: x.spec.Tty, Detach: opts.Detach, ConsoleSize: x.spec.ConsoleSize}
	if opts.ConsoleSize[0] > 0 {
		request.ConsoleSize = opts.ConsoleSize
	}
	if !opts.Detach {
		request.Stdin, request.Stdout, request.Stderr = x.spec.AttachStdin, x.spec.AttachStdout, x.spec.AttachStderr
	}
	return e.runExec(ctx, en, t, x, request, opts, keys)
}

func (e *Engine) runExec(ctx context.Context, en *entry, t Task, x *execution, request TaskExec, opts model.ExecStartOptions, keys []byte) error {
	e.publish(en.get(), "exec_start: "+strings.Join(x.spec.Cmd, " "), map[string]string{"execID": x.id})
	p, err := t.Streams().Exec(ctx, request)
	if err != nil {
		code := 126
		var failure *StartFailure
		if errors.As(err, &failure) {
			code = failure.Code
			err = errs.As(errs.Invalid, err)
		}
		e.execEnded(x, code)
		return errs.Wrap(err, "exec in container %s", en.get().Name)
	}
	e.execs.change(func() {
		if x.exitCode == nil {
			x.running, x.pid = true, p.Pid
		}
	})
	ended := make(chan struct{})
	go e.awaitExec(en, x, p, ended)
	if opts.Detach || p.Conn == nil {
		return nil
	}
	defer p.Conn.Close()
	streams, err := opts.Ready()
	if err != nil {
		return err
	}
	wait := e.awaitCode(ended)
	err = pump(ctx, p.Conn, execStreams(streams, wait), request.Stdin, x.spec.Tty, keys)
	if errors.Is(err, errDetached) {
		e.publish(en.get(), "exec_detach", map[string]string{"execID": x.id})
		return nil
	}
	if err == nil {
		wait()
	}
	return err
}

// execStreams makes the client learn of the end only when the exit code can be asked for.
func execStreams(s model.Streams, wait func()) model.Streams {
	if end := s.CloseRaw; end != nil {
		s.CloseRaw = func() error { wait(); return end() }
	}
	return s
}

// codeWait is how long an exec whose output has ended is waited for: it may run on without output.
const codeWait = 5 * time.Second

// awaitCode waits until an exec's exit code can be asked for, but not for ever.
func (e *Engine) awaitCode(ended <-chan struct{}) func() {
	return sync.OnceFunc(func() {
		expired := make(chan struct{})
		stop := e.cfg.Clock.AfterFunc(codeWait, func() { close(expired) })
		defer stop()
		select {
		case <-ended:
		case <-expired:
		}
	})
}

// awaitExec notes how an exec ended, and then closes ended.
func (e *Engine) awaitExec(en *entry, x *execution, p ExecProcess, ended chan<- struct{}) {
	defer close(ended)
	select {
	case <-p.Done:
	case <-e.ctx.Done():
		return
	}
	exit := p.Exit()
	e.execEnded(x, exit.Code)
	e.publish(en.get(), "exec_die", map[string]string{"execID": x.id, "exitCode": strconv.Itoa(exit.Code)})
}

// execEnded keeps the result for some time.
func (e *Engine) execEnded(x *execution, code int) {
	expire := e.cfg.Clock.AfterFunc(execKept, func() {
		e.execs.change(func() { delete(e.execs.byID, x.id) })
	})
	e.execs.change(func() { x.running, x.exitCode, x.expire = false, &code, expire })
}

// ExecResize sets the size of an exec's terminal.
func (e *Engine) ExecResize(ctx context.Context, id string, height, width uint) error {
	x, err := e.execs.find(id)
	if err != nil {
		return err
	}
	running := false
	e.execs.change(func() { running = x.running })
	en, err := e.find(x.container)
	if err != nil {
		return err
	}
	t := en.running()
	if t == nil || !running {
		return errs.New(errs.Conflict, "exec %s is not running", ids.Short(id))
	}
	return t.Streams().Resize(ctx, x.id, height, width)
}

// ExecInspect tells how an exec stands.
func (e *Engine) ExecInspect(_ context.Context, id string) (model.Exec, error) {
	x, err := e.execs.find(id)
	if err != nil {
		return model.Exec{}, err
	}
	var out model.Exec
	e.execs.change(func() {
		out = model.Exec{ID: x.id, ContainerID: x.container, Spec: x.spec, Running: x.running, Started: x.started, Pid: x.pid, ExitCode: x.exitCode}
	})
	return out, nil
}

// usersOf is where the users of a running container are looked up.
func (e *Engine) usersOf(ctx context.Context, c *model.Container) userDatabase {
	users := userDatabase{pid: c.State.Pid}
	var err error
	if users.dirs, err = e.overlay(ctx, c); err != nil {
		e.cfg.Log.Warn("the layers of a running container cannot be found; its users are read from its own view", "container", c.ID, "error", err)
		users.live = true
	}
	return users
}

// execProcess makes the OCI process of an exec: what the container's program has, but for what the exec says itself.
func (e *Engine) execProcess(ctx context.Context, c *model.Container, x model.ExecSpec) (*specs.Process, error) {
	users := e.usersOf(ctx, c)
	name := x.User
	var groupAdd []string
	if name == "" {
		name, groupAdd = c.Spec.Process.User, c.Spec.Security.GroupAdd
	}
	who, err := e.lookupUser(ctx, users, name, groupAdd)
	if err != nil {
		return nil, err
	}
	exec := *c
	exec.Spec.Process.Tty = x.Tty
	exec.Spec.Process.ConsoleSz = x.ConsoleSize
	exec.Spec.Process.Env = ocispec.MergeEnv(c.Spec.Process.Env, x.Env)
	if x.WorkingDir != "" {
		exec.Spec.Process.WorkingDir = x.WorkingDir
	}
	exec.Spec.Security.Privileged = c.Spec.Security.Privileged || x.Privileged
	exec.Spec.Resources.OomScoreAdj = 0 // that of the container's first process is inherited
	exec.Runtime.Path, exec.Runtime.Args = x.Cmd[0], x.Cmd[1:]
	hostname := c.Spec.Network.Hostname
	p, err := ocispec.Process(ocispec.Input{Container: &exec, Host: e.cfg.Host, User: who, Hostname: hostname, Limits: e.defaults.Load().Limits})
	if err != nil {
		return nil, err
	}
	p.Env = e.withLinks(c, p.Env)
	return p, nil
}
