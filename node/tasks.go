package node

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/engine"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/task"
	"github.com/shoalhq/shoal/task/logs"
)

// tasks shows the task room as the engine wants it.
type tasks struct {
	m          *task.Manager
	daemonName string
}

func (t tasks) Start(ctx context.Context, r engine.TaskStart) (engine.Task, error) {
	req, err := t.request(r)
	if err != nil {
		return nil, err
	}
	started, err := t.m.Start(ctx, req)
	if err != nil {
		return nil, startError(err)
	}
	return taskOf{started}, nil
}

func (t tasks) request(r engine.TaskStart) (task.StartRequest, error) {
	c := r.Container
	log := t.logTarget(c.ID, r.Log)
	log.Info.ContainerName = c.Name
	log.Info.ImageID, log.Info.ImageName = c.Image.ID, c.Image.Ref
	log.Info.Command = strings.Join(append([]string{c.Runtime.Path}, c.Runtime.Args...), " ")
	log.Info.Created = c.Created
	req := task.StartRequest{
		Config: spec.SupervisorConfig{ID: c.ID, Name: c.Name, Tty: c.Spec.Process.Tty, OpenStdin: c.Spec.Process.Stdin.Open,
			StdinOnce: c.Spec.Process.Stdin.Once, ConsoleSize: c.Spec.Process.ConsoleSz, Log: log},
		Runtime: r.Runtime, Spec: r.Spec, Namespace: r.Namespace,
	}
	if len(r.Root.Lower) > 0 {
		layers := spec.RootfsOverlay{Lower: r.Root.Lower, Upper: r.Root.Upper, Work: r.Root.Work}
		if c.Spec.Options.AutoRemove {
			// What it writes goes with it, after a power cut too: nothing needs to reach the disk. Without this the kernel
			// writes back the whole file system below at the container's end and flushes the disk's cache.
			layers.Options = []string{"volatile"}
		}
		overlay, err := json.Marshal(layers)
		if err != nil {
			return req, err
		}
		s := *r.Spec
		s.Annotations = map[string]string{spec.RootfsAnnotation: string(overlay)}
		for k, v := range r.Spec.Annotations {
			if k != spec.RootfsAnnotation { // a user's annotation must not choose directories of the host
				s.Annotations[k] = v
			}
		}
		req.Spec = &s
	}
	if r.Created != nil {
		req.Created = func(created *task.Task) error { return r.Created(taskOf{created}) }
	}
	return req, nil
}

func (t tasks) logTarget(id string, l engine.LogTarget) spec.LogTarget {
	return spec.LogTarget{Driver: l.Driver, Path: l.Path, Options: l.Options,
		Info: spec.LogInfo{ContainerID: id, Labels: l.Labels, Env: l.Env, DaemonName: t.daemonName}}
}

func startError(err error) error {
	var f *task.StartFailure
	if errors.As(err, &f) {
		return &engine.StartFailure{Code: f.Code, Err: err}
	}
	return err
}

func (t tasks) Reattach(ctx context.Context, id string) (engine.Task, *engine.TaskExit, error) {
	found, exit, err := t.m.Reattach(ctx, id)
	switch {
	case err != nil:
		return nil, nil, err
	case found != nil:
		return taskOf{found}, nil, nil
	case exit != nil:
		x := exitOf(*exit)
		return nil, &x, nil
	}
	return nil, nil, nil
}

func (t tasks) Known() ([]string, error)                   { return t.m.Known() }
func (t tasks) Clear(ctx context.Context, id string) error { return t.m.Clear(ctx, id) }
func (t tasks) ValidateLog(cfg model.LogConfig) error {
	return t.m.ValidateLog(cfg.Driver, cfg.Options)
}

func (t tasks) ReadLog(ctx context.Context, src engine.LogSource, opts model.LogOptions, emit func(model.LogEntry) error) error {
	return logs.Read(ctx, logs.Source{Driver: src.Target.Driver, Options: src.Target.Options, Path: src.Target.Path, Running: src.Running}, opts, emit)
}

// taskOf shows a running task as the engine wants it.
type taskOf struct{ t *task.Task }

func exitOf(e spec.ExitStatus) engine.TaskExit {
	return engine.TaskExit{Code: e.Code, OOMKilled: e.OOMKilled, At: e.At.UnixNano(), Reason: e.Reason}
}

func (t taskOf) Info() engine.TaskInfo {
	i := t.t.Info()
	return engine.TaskInfo{Pid: i.Pid, StartedAt: i.StartedAt.UnixNano(), Paused: i.Paused}
}

func (t taskOf) Done() <-chan struct{} { return t.t.Done() }
func (t taskOf) Exit() engine.TaskExit { return exitOf(t.t.Exit()) }

func (t taskOf) Signal(ctx context.Context, signal int, all bool) error {
	return t.t.Signal(ctx, signal, all)
}

func (t taskOf) Freeze(ctx context.Context, frozen bool) error { return t.t.Freeze(ctx, frozen) }

func (t taskOf) Update(ctx context.Context, r *specs.LinuxResources) error { return t.t.Update(ctx, r) }

func (t taskOf) Streams() engine.TaskStreams { return streamsOf{t.t} }
func (t taskOf) Figures() engine.TaskFigures { return figuresOf{t.t} }

type streamsOf struct{ t *task.Task }

func (s streamsOf) Attach(ctx context.Context, stdin, stdout, stderr bool) (engine.Conn, error) {
	return s.t.Attach(ctx, task.AttachOptions{Stdin: stdin, Stdout: stdout, Stderr: stderr})
}

func (s streamsOf) Resize(ctx context.Context, execID string, height, width uint) error {
	return s.t.Resize(ctx, execID, height, width)
}

func (s streamsOf) SignalExec(ctx context.Context, execID string, signal int) error {
	return s.t.SignalExec(ctx, execID, signal)
}

func (s streamsOf) Exec(ctx context.Context, x engine.TaskExec) (engine.ExecProcess, error) {
	p, err := s.t.Exec(ctx, task.ExecRequest{ID: x.ID, Process: x.Process, Stdin: x.Stdin, Stdout: x.Stdout, Stderr: x.Stderr,
		Tty: x.Tty, Detach: x.Detach, ConsoleSize: x.ConsoleSize})
	if err != nil {
		return engine.ExecProcess{}, startError(err)
	}
	out := engine.ExecProcess{Pid: p.Pid, Done: p.Done(), Exit: func() engine.TaskExit { return exitOf(p.Exit()) }}
	if p.Conn != nil { // a nil Conn must stay nil in the engine's interface
		out.Conn = p.Conn
	}
	return out, nil
}

type figuresOf struct{ t *task.Task }

func (f figuresOf) Stats(ctx context.Context) (model.Stats, error) { return f.t.Stats(ctx) }
func (f figuresOf) Pids(ctx context.Context) ([]int, error)        { return f.t.Pids(ctx) }
func (f figuresOf) OnOOM(fn func())                                { f.t.OnOOM(fn) }
