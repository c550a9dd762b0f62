package container

import (
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/initproc"
	"github.com/shoalhq/shoal/runtime/namespaces"
	"github.com/shoalhq/shoal/runtime/privilege"
	"github.com/shoalhq/shoal/runtime/spec"
)

// ExecProcess is the container's own process without its arguments and terminal: what an exec starts from.
func (r *Runtime) ExecProcess(id string) (*specs.Process, error) {
	h, err := r.peek(id)
	if err != nil {
		return nil, err
	}
	defer h.close()
	cfg, err := h.config()
	if err != nil {
		return nil, err
	}
	if cfg.Process == nil {
		cfg.Process = &specs.Process{Cwd: "/"}
	}
	p := *cfg.Process
	p.Args, p.Terminal, p.ConsoleSize = nil, false, nil
	return &p, nil
}

// Exec runs a further process in a running container. It returns when its program runs.
func (r *Runtime) Exec(id string, o ExecOptions) (*Process, error) {
	if o.Process == nil {
		return nil, errs.New(errs.Invalid, "exec in container %q: no process is given", id)
	}
	if err := spec.Process("process", o.Process); err != nil {
		return nil, err
	}
	h, err := r.peek(id)
	if err != nil {
		return nil, err
	}
	defer h.close()
	switch status := h.status(); {
	case status == Paused && !o.Force:
		return nil, errs.New(errs.Conflict, "cannot exec in container %q: it is paused; resume it first", id)
	case status != specs.StateRunning && status != specs.StateCreated && status != Paused:
		return nil, errs.New(errs.Conflict, "cannot exec in container %q: it is not running but %s", id, status)
	}
	e := &execution{held: h, opts: &o}
	return e.run()
}

// execution is one exec on its way.
type execution struct {
	*held
	opts  *ExecOptions
	spec  *specs.Spec
	child *namespaces.Process
	proc  *Process
}

func (e *execution) run() (*Process, error) {
	var err error
	if e.spec, err = e.config(); err != nil {
		return nil, err
	}
	if e.spec.Process == nil {
		e.spec.Process = &specs.Process{}
	}
	if err := checkLabels(e.opts.Process, ""); err != nil {
		return nil, err
	}
	filter := compileSeccomp(e.spec.Linux.Seccomp)
	if err := e.start(); err != nil {
		return nil, err
	}
	e.proc = &Process{ID: e.id, Pid: e.child.Pid, PidFD: e.child.PidFD}
	if err := e.configure(<-filter); err != nil {
		if e.proc.Console != nil {
			e.proc.Console.Close()
		}
		if e.proc.reaped {
			e.child.Pid = 0
		}
		e.child.Abort()
		return nil, err
	}
	e.child.Sync.Close()
	return e.proc, nil
}

func (e *execution) start() error {
	pidfd, err := e.pidfd()
	if err != nil {
		return err
	}
	defer pidfd.Close()
	flags, err := namespaces.OfProcess(e.record.Pid)
	if err != nil {
		return err
	}
	if flags, err = e.own(flags); err != nil {
		return err
	}
	groups, err := e.groups()
	if err != nil {
		return err
	}
	exe, err := openSelf()
	if err != nil {
		return err
	}
	defer letGo(exe)
	child := &namespaces.Child{Exe: exe, Args: []string{initproc.Name, namespaces.SyncPlaceholder}, Env: initEnv(),
		Stdio: e.opts.Stdio, Keep: preserved(e.opts.PreserveFDs), Identity: namespaces.Identity{BecomeRoot: flags&unix.CLONE_NEWUSER != 0, DenySetgroups: denySetgroups(e.spec)}}
	if e.opts.Process.Terminal {
		child.Stdio = [3]*os.File{}
	}
	if flags != 0 {
		child.Joins = []namespaces.Join{{File: pidfd, Flag: flags}}
	}
	if a := e.opts.Process.ExecCPUAffinity; a != nil && a.Initial != "" {
		if child.Affinity, err = privilege.ParseList(a.Initial); err != nil {
			return errs.Wrap(err, "process.execCPUAffinity.initial")
		}
	}
	return groups.Spawn(func(fd int) (err error) {
		child.Cgroup = fd
		e.child, err = namespaces.Start(child)
		return err
	})
}

// own checks that a process which lost all its namespaces to its end is not taken for a container that shares ours.
func (e *execution) own(flags uintptr) (uintptr, error) {
	if flags&unix.CLONE_NEWNS == 0 {
		return 0, errs.New(errs.Conflict, "exec in container %q: its init shares this process's mount namespace; it may have just ended", e.id)
	}
	return flags, nil
}

func (e *execution) configure(filter compiled) error {
	process := *e.opts.Process
	if process.OOMScoreAdj == nil {
		process.OOMScoreAdj = e.spec.Process.OOMScoreAdj
	}
	if err := setOOMScore(e.child.Pid, process.OOMScoreAdj, e.record.Rootless); err != nil {
		return err
	}
	if spec.Namespace(e.spec, specs.UserNamespace) != nil {
		privilege.RaiseHard(e.child.Pid, process.Rlimits)
	}
	if err := e.opts.tellPid(e.proc); err != nil {
		return err
	}
	cfg := &initproc.Config{ID: e.id, Exec: true, Process: &process, NoNewKeyring: true, PreserveFDs: e.opts.PreserveFDs,
		DenySetgroups: denySetgroups(e.spec), Personality: e.spec.Linux.Personality, Memory: e.spec.Linux.MemoryPolicy}
	m, err := encodeConfig(cfg, filter)
	if err := sendConfig(e.child, encoded{m, err}); err != nil {
		return err
	}
	f := &follower{sync: e.child.Sync, proc: e.proc, launch: &e.opts.Launch}
	f.listener = func(fd uint32) error {
		return sendListener(e.spec.Linux.Seccomp, int(fd), e.proc.PidFD, e.ociState(specs.StateRunning))
	}
	return f.follow(false)
}
