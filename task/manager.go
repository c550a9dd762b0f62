package task

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/clock"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/undo"
	"github.com/shoalhq/shoal/lib/userns"
	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/runtime/spec/logopts"
	"github.com/shoalhq/shoal/task/logs"
)

// endTimeout is how long Clear waits for a supervisor whose container has ended to be gone.
const endTimeout = 10 * time.Second

// Manager starts and finds tasks. Make it with New. It may be used from many goroutines.
type Manager struct {
	cfg Config

	mu    sync.Mutex
	tasks map[string]*Task // those this process started or found again, until cleared

	spare spare
}

// New makes a manager and the directory for its supervisors.
func New(cfg Config) (*Manager, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	m := &Manager{cfg: cfg, tasks: map[string]*Task{}}
	if err := os.MkdirAll(m.root(), 0o711); err != nil {
		return nil, errs.Wrap(err, "make the directory for supervisors")
	}
	return m, nil
}

func (m *Manager) root() string         { return filepath.Join(m.cfg.ExecRoot, "tasks") }
func (m *Manager) dir(id string) string { return filepath.Join(m.root(), id) }

// SetRuntimes changes which foreign runtimes there are; containers that run keep theirs.
func (m *Manager) SetRuntimes(all map[string]spec.RuntimeRef) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cfg.Runtimes = all
}

// Known lists the IDs of which something is left in the exec root.
func (m *Manager) Known() ([]string, error) {
	entries, err := os.ReadDir(m.root())
	if err != nil {
		return nil, errs.Wrap(err, "list supervisors")
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Start runs a container. It returns when the container's program runs, or with the reason why it does not and nothing
// left behind: *StartFailure in the chain tells the exit code. When ctx ends before the program runs, the start is taken
// back.
func (m *Manager) Start(ctx context.Context, r StartRequest) (*Task, error) {
	id := r.Config.ID
	dir := m.dir(id)
	var u undo.Stack
	defer u.Run()
	if err := m.prepare(ctx, dir, &r); err != nil {
		return nil, err
	}
	u.Add(func() { os.RemoveAll(dir) })
	if err := failpoint.Hit("task/start/prepared"); err != nil {
		return nil, err
	}
	proc, hand, waits, err := m.spawn(dir, &r)
	if err != nil {
		return nil, err
	}
	t := newTask(m, id, dir)
	t.proc = proc
	u.Add(func() { // closing our end makes the supervisor take everything back; wait until it has
		hand.Close()
		if !waitOrKill(proc) { // it was killed: what it left is taken back for it
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
			defer cancel()
			m.reap(ctx, dir)
		}
	})
	if waits {
		if err := r.withSpaces(func(spaces []*os.File) error { return sendSpaces(hand, spaces) }); err != nil {
			return nil, err
		}
	}
	stop := context.AfterFunc(ctx, func() { hand.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	lines := bufio.NewReaderSize(hand, 1024)
	if err := m.handshake(ctx, t, r, hand, lines); err != nil {
		return nil, err
	}
	if !stop() {
		return nil, errs.Wrap(ctx.Err(), "start container %s", id)
	}
	u.Release()
	m.mu.Lock()
	m.tasks[id] = t
	m.mu.Unlock()
	go t.follow(hand, lines)
	m.spareSoon()
	return t, nil
}

// withSpaces calls f with the namespaces that the supervisor shall find from descriptor 4 on, once they are there.
func (r *StartRequest) withSpaces(f func([]*os.File) error) error {
	if r.Namespace == nil {
		return f(nil)
	}
	ns, err := r.Namespace()
	if err != nil {
		return err
	}
	if r.Spec.Linux == nil || len(r.Spec.Linux.UIDMappings) == 0 {
		return f([]*os.File{ns})
	}
	user, err := userns.Owner(ns)
	if err != nil {
		return err
	}
	defer user.Close()
	return f([]*os.File{ns, user})
}

// prepare writes the supervisor's directory.
func (m *Manager) prepare(ctx context.Context, dir string, r *StartRequest) error {
	cfg := r.Config
	if cfg.Runtime.Path == "" && r.Runtime != "" {
		m.mu.Lock()
		ref, ok := m.cfg.Runtimes[r.Runtime]
		m.mu.Unlock()
		if !ok {
			return errs.New(errs.Invalid, "unknown runtime %q: the daemon's configuration does not name it under \"runtimes\"", r.Runtime)
		}
		cfg.Runtime = ref
	}
	if cfg.Runtime.Path != "" && r.Spec.Linux != nil && len(r.Spec.Linux.UIDMappings) > 0 {
		return errs.New(errs.Unsupported, "runtime %q: user namespaces of the daemon (userns-remap) are for the built-in runtime; use --userns=host", r.Runtime)
	}
	if err := m.forwarder(&cfg.Log); err != nil {
		return err
	}
	oci := r.Spec
	if r.Namespace != nil {
		oci = withNetns(oci)
		cfg.Netns, cfg.Userns = true, namesUser(oci)
	}
	cfg.WaitForStart = true
	cfg.OwnPids = spec.IsNew(oci, specs.PIDNamespace)
	if err := os.Mkdir(dir, 0o700); err != nil {
		if !errors.Is(err, fs.ErrExist) {
			return errs.Wrap(err, "make the supervisor's directory")
		}
		if err := m.vacate(ctx, cfg.ID); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			return errs.Wrap(err, "make the supervisor's directory")
		}
	}
	err := writeJSON(filepath.Join(dir, spec.SupervisorFile), cfg)
	if err == nil {
		err = writeJSON(filepath.Join(dir, spec.ConfigFile), oci)
	}
	if err != nil {
		os.RemoveAll(dir)
		return errs.Wrap(err, "prepare the supervisor of container %s", cfg.ID)
	}
	return nil
}

// forwarder chooses the program for log drivers that need TLS.
func (m *Manager) forwarder(log *spec.LogTarget) error {
	o, err := logopts.Parse(log.Driver, log.Options)
	if err != nil || !o.NeedsTLS() {
		return err
	}
	if len(m.cfg.TLSForwarder) == 0 {
		return errs.New(errs.Unsupported, "log driver %s: this daemon has no forwarder for TLS: use an address without it", log.Driver)
	}
	log.Forwarder = m.cfg.TLSForwarder
	return nil
}

// ValidateLog says why a log driver or its options cannot work here.
func (m *Manager) ValidateLog(driver string, opts map[string]string) error {
	if err := logs.Validate(driver, opts); err != nil {
		return err
	}
	return m.forwarder(&spec.LogTarget{Driver: driver, Options: opts})
}

// vacate clears what an earlier run of the container left, unless it still runs.
func (m *Manager) vacate(ctx context.Context, id string) error {
	t, _, err := m.Reattach(ctx, id)
	if err != nil {
		return err
	}
	if t != nil {
		return errs.New(errs.Conflict, "container %s already runs (pid %d)", id, t.Info().Pid)
	}
	return m.Clear(ctx, id)
}

// writeJSON writes a file that nobody reads before the supervisor is started, so no temporary name is needed.
func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// withNetns copies as much of the spec as is needed to name the inherited network namespace.
func withNetns(s *specs.Spec) *specs.Spec {
	out := *s
	linux := specs.Linux{}
	if s.Linux != nil {
		linux = *s.Linux
	}
	spaces := make([]specs.LinuxNamespace, 0, len(linux.Namespaces)+1)
	for _, n := range linux.Namespaces {
		if n.Type != specs.NetworkNamespace {
			spaces = append(spaces, n)
		}
	}
	for i := range spaces {
		if n := &spaces[i]; n.Type == specs.UserNamespace && n.Path == "" {
			n.Path = spec.UsernsPath // the one that owns the network namespace
		}
	}
	linux.Namespaces = append(spaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: spec.NetnsPath})
	out.Linux = &linux
	return &out
}

// namesUser says whether the container's user namespace is handed over as well.
func namesUser(s *specs.Spec) bool {
	return slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Path == spec.UsernsPath })
}

// execSupervisor starts a supervisor in its own session, without our standard streams, with one end of a socket pair as
// fd 3. what is its directory, or waitFlag. Garbage collection is off in it until it holds 24 MiB: it normally never gets
// there.
func (m *Manager) execSupervisor(what string, spaces []*os.File) (*os.Process, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, errs.Wrap(err, "make the handshake of a supervisor")
	}
	unix.SetNonblock(fds[0], true)
	ours, theirs := os.NewFile(uintptr(fds[0]), "handshake"), os.NewFile(uintptr(fds[1]), "handshake")
	defer theirs.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		ours.Close()
		return nil, nil, err
	}
	defer null.Close()
	// The numbers of the namespaces are always taken, so that those that come later find them free of anything else.
	files := []*os.File{null, null, null, theirs, null, null}
	copy(files[4:], spaces)
	// Where huge pages are for everybody (Debian), each supervisor's heap would otherwise take 2 MiB more.
	env := []string{"PATH=" + os.Getenv("PATH"), "GOGC=off", "GOMEMLIMIT=24MiB", "GOMAXPROCS=2", "GODEBUG=disablethp=1"}
	if v := os.Getenv(failpoint.EnvName); v != "" {
		env = append(env, failpoint.EnvName+"="+v)
	}
	p, err := m.startApart([]string{"shoal-runtime", "supervise", what}, &os.ProcAttr{
		Dir: "/", Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		ours.Close()
		return nil, nil, errs.Wrap(err, "start the supervisor %s: is shoal-runtime installed?", m.cfg.RuntimePath)
	}
	return p, ours, nil
}

// startApart starts the runtime's program in the group of supervisors: whoever manages the daemon's group (systemd that of a
// service) then finds only the daemon in it, and what it limits, counts and kills there is the daemon alone. Where the
// kernel refuses the group, they share the daemon's.
func (m *Manager) startApart(args []string, attr *os.ProcAttr) (*os.Process, error) {
	if group := m.openGroup(); group >= 0 {
		defer unix.Close(group)
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, group
		if p, err := os.StartProcess(m.cfg.RuntimePath, args, attr); err == nil {
			return p, nil
		}
		attr.Sys.UseCgroupFD = false
	}
	return os.StartProcess(m.cfg.RuntimePath, args, attr)
}

// openGroup gives -1 when there is no group of supervisors.
func (m *Manager) openGroup() int {
	if m.cfg.Group == "" {
		return -1
	}
	fd, err := unix.Open(m.cfg.Group, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) && os.MkdirAll(m.cfg.Group, 0o755) == nil {
		fd, err = unix.Open(m.cfg.Group, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1
	}
	return fd
}

// handshake leads the start to "running".
func (m *Manager) handshake(ctx context.Context, t *Task, r StartRequest, hand *os.File, lines *bufio.Reader) error {
	report, err := nextReport(ctx, lines, "created")
	if err != nil {
		return err
	}
	t.setPid(report.Pid, report.CgroupPaths)
	if r.Created != nil {
		if err := r.Created(t); err != nil {
			return err
		}
	}
	if err := failpoint.Hit("task/start/created"); err != nil {
		return err
	}
	if _, err := hand.Write([]byte{'g'}); err != nil && ctx.Err() == nil && !errors.Is(err, syscall.EPIPE) {
		return errs.Wrap(err, "tell the supervisor to start the container")
	}
	report, err = nextReport(ctx, lines, "running")
	if err != nil {
		return err
	}
	t.setStarted(report.StartedAt)
	return nil
}

func nextReport(ctx context.Context, lines *bufio.Reader, want string) (spec.StartReport, error) {
	var r spec.StartReport
	line, err := lines.ReadBytes('\n')
	if err != nil {
		if ctx.Err() != nil {
			return r, errs.Wrap(ctx.Err(), "start container")
		}
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return r, errs.New(errs.Internal, "the supervisor ended before the container was %s, without saying why: look for shoal-runtime in the kernel's log (killed for lack of memory?)", want)
		}
		return r, errs.Wrap(err, "read the supervisor's report")
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return r, errs.New(errs.Internal, "the supervisor's report %q cannot be read: are shoald and shoal-runtime of the same version? %w", line, err)
	}
	switch r.Step {
	case want:
		return r, nil
	case "failed":
		return r, &StartFailure{Code: r.ExitCode, Err: errs.New(errs.Kind(r.ErrorKind), "%s", r.Error)}
	}
	return r, errs.New(errs.Internal, "the supervisor reports %q where %q was due: are shoald and shoal-runtime of the same version?", r.Step, want)
}

// waitOrKill reaps a supervisor that was told to take everything back, and says whether it ended by itself.
func waitOrKill(p *os.Process) bool {
	timer := time.AfterFunc(endTimeout, func() { p.Kill() })
	defer timer.Stop()
	st, err := p.Wait()
	return err == nil && st.Exited()
}

// Reattach finds a container that an earlier daemon started: the running task, or how it ended meanwhile, or neither when
// there is nothing or only half of a start, of which nothing is left then. An error says that this is not known: the
// supervisor is there but does not answer, and the container is left as it is.
func (m *Manager) Reattach(ctx context.Context, id string) (*Task, *spec.ExitStatus, error) {
	m.mu.Lock()
	t := m.tasks[id]
	m.mu.Unlock()
	if t != nil {
		select {
		case <-t.done:
			exit := t.Exit()
			return nil, &exit, nil
		default:
			return t, nil, nil
		}
	}
	dir := m.dir(id)
	if _, err := os.Stat(dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil, nil
		}
		return nil, nil, err
	}
	t = newTask(m, id, dir)
	conn, lines, state, err := t.subscribe(ctx)
	if err == nil && state.Status != "created" && state.Status != "creating" {
		t.setPid(state.Pid, state.CgroupPaths)
		t.setStarted(state.StartedAt)
		t.setPaused(state.Status == "paused")
		m.mu.Lock()
		m.tasks[id] = t
		m.mu.Unlock()
		go t.follow(conn, lines)
		return t, nil, nil
	}
	if err == nil { // half a start: its supervisor takes it back, and ends
		waitEnd(ctx, conn, lines)
		conn.Close()
	} else if !errs.Is(err, errs.Conflict) && !errs.Is(err, errs.NotFound) {
		return nil, nil, err // it is there and does not answer: no reason to kill its container
	}
	return m.recover(ctx, id)
}

// waitEnd reads until the supervisor is gone.
func waitEnd(ctx context.Context, conn deadliner, lines *bufio.Reader) {
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	conn.SetReadDeadline(time.Now().Add(endTimeout))
	io.Copy(io.Discard, lines)
}

type deadliner interface{ SetReadDeadline(time.Time) error }

// recover says what became of a container whose supervisor does not answer.
func (m *Manager) recover(ctx context.Context, id string) (*Task, *spec.ExitStatus, error) {
	dir := m.dir(id)
	exit, err := readExit(dir)
	if err == nil {
		return nil, exit, nil
	}
	var state spec.SupervisorState
	started := atomicfile.ReadJSON(filepath.Join(dir, spec.StateFile), &state) == nil && state.Status == "running"
	if err := m.reap(ctx, dir); err != nil {
		return nil, nil, err
	}
	if !started {
		return nil, nil, errs.Wrap(os.RemoveAll(dir), "remove half a start of container %s", id)
	}
	exit, err = readExit(dir)
	return nil, exit, err
}

func readExit(dir string) (*spec.ExitStatus, error) {
	var e spec.ExitStatus
	if err := atomicfile.ReadJSON(filepath.Join(dir, spec.ExitFile), &e); err != nil {
		return nil, err
	}
	return &e, nil
}

// reap runs `shoal-runtime supervise --reap DIR`: it kills what is left of the container, removes its cgroup and its
// runtime's state, and writes exit.json when there is none.
func (m *Manager) reap(ctx context.Context, dir string) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	p, err := os.StartProcess(m.cfg.RuntimePath, []string{"shoal-runtime", "supervise", "--reap", dir}, &os.ProcAttr{
		Dir: "/", Env: []string{"PATH=" + os.Getenv("PATH")}, Files: []*os.File{null, null, w}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	w.Close()
	if err != nil {
		return errs.Wrap(err, "start %s to clean up after a killed supervisor", m.cfg.RuntimePath)
	}
	stop := context.AfterFunc(ctx, func() { p.Kill() })
	defer stop()
	said, _ := io.ReadAll(io.LimitReader(r, 64<<10))
	st, err := p.Wait()
	if err != nil {
		return err
	}
	if !st.Success() {
		return errs.New(errs.Internal, "clean up after the killed supervisor in %s: %s: %s", dir, st, said)
	}
	return nil
}

// Clear removes what is left of a container that has ended; it waits until the supervisor is gone, so that the container
// can be started again or forgotten. Clearing nothing is no error; a running container is a Conflict.
func (m *Manager) Clear(ctx context.Context, id string) error {
	m.mu.Lock()
	t := m.tasks[id]
	m.mu.Unlock()
	if t != nil {
		select {
		case <-t.done:
		default:
			return errs.New(errs.Conflict, "container %s still runs: stop it first", id)
		}
		select {
		case <-t.gone:
		case <-ctx.Done():
			return ctx.Err()
		}
	} else if old := newTask(m, id, m.dir(id)); old.answers(ctx) {
		return errs.New(errs.Conflict, "container %s still runs: stop it first", id)
	}
	if err := failpoint.Hit("task/clear"); err != nil {
		return err
	}
	if err := os.RemoveAll(m.dir(id)); err != nil {
		return errs.Wrap(err, "remove the supervisor's directory of container %s", id)
	}
	m.mu.Lock()
	if m.tasks[id] == t {
		delete(m.tasks, id)
	}
	m.mu.Unlock()
	return nil
}
