package task

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/runtime/spec"
)

// Task is one container with its supervisor. It may be used from many goroutines.
type Task struct {
	m    *Manager
	id   string
	dir  string
	proc *os.Process   // the supervisor, when this process started it
	done chan struct{} // closed when exit is known
	gone chan struct{} // closed when the supervisor has ended too

	mu    sync.Mutex
	info  Info
	exit  spec.ExitStatus
	execs map[string]*Exec
	onOOM []func()
}

func newTask(m *Manager, id, dir string) *Task {
	return &Task{m: m, id: id, dir: dir, done: make(chan struct{}), gone: make(chan struct{}),
		info: Info{ID: id}, execs: map[string]*Exec{}}
}

func (t *Task) setPid(pid int, cgroups map[string]string) {
	t.mu.Lock()
	t.info.Pid, t.info.CgroupPaths = pid, cgroups
	t.mu.Unlock()
}

func (t *Task) setStarted(at time.Time) {
	t.mu.Lock()
	t.info.StartedAt = at
	t.mu.Unlock()
}

func (t *Task) setPaused(paused bool) {
	t.mu.Lock()
	t.info.Paused = paused
	t.mu.Unlock()
}

// Info identifies the task.
func (t *Task) Info() Info {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.info
}

// Done is closed when the container has ended.
func (t *Task) Done() <-chan struct{} { return t.done }

// Exit is how the container ended; valid once Done is closed.
func (t *Task) Exit() spec.ExitStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.exit
}

// OnOOM calls f, in a goroutine, for every out-of-memory kill in the container from now on.
func (t *Task) OnOOM(f func()) {
	t.mu.Lock()
	t.onOOM = append(t.onOOM, f)
	t.mu.Unlock()
}

// follow reads the supervisor's events until it ends.
func (t *Task) follow(conn io.Closer, lines *bufio.Reader) {
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var e spec.Event
		if json.Unmarshal(line, &e) == nil {
			t.handle(e)
		}
	}
	conn.Close()
	select {
	case <-t.done:
	default:
		t.lost()
	}
	close(t.gone)
	if t.proc != nil {
		t.proc.Wait() // it ends once the last attached client has read what waits for it
	}
}

func (t *Task) handle(e spec.Event) {
	switch e.Kind {
	case "exit":
		if e.Exit != nil {
			t.finish(*e.Exit)
		}
	case "exec-exit":
		t.mu.Lock()
		x := t.execs[e.ExecID]
		delete(t.execs, e.ExecID)
		t.mu.Unlock()
		if x != nil && e.Exit != nil {
			x.exit = *e.Exit
			close(x.done)
		}
	case "oom":
		t.mu.Lock()
		fs := append([]func(){}, t.onOOM...)
		t.mu.Unlock()
		for _, f := range fs {
			go f()
		}
	}
}

func (t *Task) finish(e spec.ExitStatus) {
	t.mu.Lock()
	t.exit = e
	execs := t.execs
	t.execs = map[string]*Exec{}
	t.mu.Unlock()
	for _, x := range execs { // their exits were lost with the supervisor
		x.exit = spec.ExitStatus{Code: killedCode, Signal: 9, At: e.At, Reason: e.Reason}
		close(x.done)
	}
	close(t.done)
}

// lost deals with a supervisor that ended without telling how the container did.
func (t *Task) lost() {
	if t.proc != nil {
		t.proc.Wait()
		t.proc = nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	exit, err := readExit(t.dir)
	if err != nil {
		if rerr := t.m.reap(ctx, t.dir); rerr != nil {
			err = rerr
		} else {
			exit, err = readExit(t.dir)
		}
	}
	if err != nil {
		exit = &spec.ExitStatus{Code: killedCode, At: t.m.cfg.Clock.Now().UTC(),
			Reason: "the container's supervisor was killed, and cleaning up after it failed: " + err.Error()}
	}
	t.finish(*exit)
}

// dial connects to the supervisor's socket through its directory's descriptor: the path may be longer than a socket
// address can hold.
func (t *Task) dial(ctx context.Context) (*net.UnixConn, error) {
	fd, err := unix.Open(t.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errs.New(errs.NotFound, "container %s does not run", t.id)
	}
	defer unix.Close(fd)
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(fd)+"/"+spec.SocketFile)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
			return nil, errs.New(errs.Conflict, "container %s is not running: its supervisor has ended", t.id)
		}
		return nil, errs.Wrap(err, "reach the supervisor of container %s", t.id)
	}
	return c.(*net.UnixConn), nil
}

// answerTimeout is how long a supervisor may take to answer. The longest it does before an answer is to start an exec.
const answerTimeout = 30 * time.Second

// open sends one request and reads its answer, not one byte more; the connection may go on as a stream.
func (t *Task) open(ctx context.Context, q spec.Request) (*net.UnixConn, spec.Response, error) {
	var a spec.Response
	c, err := t.dial(ctx)
	if err != nil {
		return nil, a, err
	}
	c.SetDeadline(time.Now().Add(answerTimeout)) // a supervisor that hangs must not hold its callers for ever
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	data, err := json.Marshal(q)
	if err == nil {
		_, err = c.Write(append(data, '\n'))
	}
	var line []byte
	if err == nil {
		line, err = readLine(c)
	}
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if err != nil {
		stop()
		c.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			err = errs.New(errs.Unavailable, "no answer within %s: is it stopped, or the machine overloaded?", answerTimeout)
		} else if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
			return nil, a, errs.New(errs.Conflict, "container %s is not running: it ended meanwhile", t.id)
		}
		return nil, a, errs.Wrap(err, "ask the supervisor of container %s for %s", t.id, q.Op)
	}
	if !stop() {
		c.Close()
		return nil, a, ctx.Err()
	}
	c.SetDeadline(time.Time{}) // from here on it may be a stream
	if a.Error != "" {
		c.Close()
		err = errs.New(errs.Kind(a.ErrorKind), "%s", a.Error)
		if a.ExitCode != 0 {
			err = &StartFailure{Code: a.ExitCode, Err: err}
		}
		return nil, a, err
	}
	return c, a, nil
}

// readLine reads up to and with the first newline by looking ahead, so that the stream behind it stays in the socket.
func readLine(c *net.UnixConn) ([]byte, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var line []byte
	buf := make([]byte, 4096)
	for {
		var n int
		var rerr error
		err = raw.Read(func(fd uintptr) bool {
			n, _, rerr = unix.Recvfrom(int(fd), buf, unix.MSG_PEEK)
			if rerr == unix.EAGAIN || rerr == unix.EINTR {
				return false
			}
			if rerr != nil || n == 0 {
				return true
			}
			take, end := n, false
			for i, b := range buf[:n] {
				if b == '\n' {
					take, end = i+1, true
					break
				}
			}
			n, _, rerr = unix.Recvfrom(int(fd), buf[:take], 0)
			if end && rerr == nil {
				rerr = errEndOfLine
			}
			return true
		})
		if err == nil {
			err = rerr
		}
		if err == nil && n == 0 {
			err = io.EOF
		}
		if err != nil && err != errEndOfLine {
			return nil, err
		}
		line = append(line, buf[:n]...)
		if err == errEndOfLine {
			return line, nil
		}
	}
}

var errEndOfLine = errors.New("end of line")

// ask sends one request on a connection of its own.
func (t *Task) ask(ctx context.Context, q spec.Request) (spec.Response, error) {
	c, a, err := t.open(ctx, q)
	if err != nil {
		return a, err
	}
	c.Close()
	return a, nil
}

// subscribe opens an events connection.
func (t *Task) subscribe(ctx context.Context) (*net.UnixConn, *bufio.Reader, *spec.SupervisorState, error) {
	c, a, err := t.open(ctx, spec.Request{Op: spec.OpEvents})
	if err != nil {
		return nil, nil, nil, err
	}
	if a.State == nil {
		c.Close()
		return nil, nil, nil, errs.New(errs.Internal, "the supervisor of container %s does not tell its state", t.id)
	}
	return c, bufio.NewReaderSize(c, 1024), a.State, nil
}

// answers says whether a supervisor is there.
func (t *Task) answers(ctx context.Context) bool {
	c, err := t.dial(ctx)
	if err != nil {
		return false
	}
	c.Close()
	if _, err := readExit(t.dir); err == nil { // it is on its way out
		return false
	}
	return true
}

// Signal sends to the init process, or with all to every process of the container.
func (t *Task) Signal(ctx context.Context, signal int, all bool) error {
	_, err := t.ask(ctx, spec.Request{Op: spec.OpSignal, Signal: signal, All: all})
	return err
}

// Freeze pauses (true) or resumes (false) all processes.
func (t *Task) Freeze(ctx context.Context, frozen bool) error {
	op := spec.OpResume
	if frozen {
		op = spec.OpPause
	}
	_, err := t.ask(ctx, spec.Request{Op: op})
	return err
}

// Update changes limits.
func (t *Task) Update(ctx context.Context, r *specs.LinuxResources) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = t.ask(ctx, spec.Request{Op: spec.OpUpdate, Resources: data})
	return err
}

// Attach connects a client with the container's streams; the answer has come when it returns, so nothing printed from now
// on is missed.
func (t *Task) Attach(ctx context.Context, o AttachOptions) (Conn, error) {
	c, _, err := t.open(ctx, spec.Request{Op: spec.OpAttach, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Resize sets the terminal's size, of the container ("") or of an exec.
func (t *Task) Resize(ctx context.Context, execID string, height, width uint) error {
	_, err := t.ask(ctx, spec.Request{Op: spec.OpResize, ExecID: execID, Height: height, Width: width})
	return err
}

// Exec runs one more process in the container.
func (t *Task) Exec(ctx context.Context, x ExecRequest) (*Exec, error) {
	process, err := json.Marshal(x.Process)
	if err != nil {
		return nil, err
	}
	e := &Exec{done: make(chan struct{})}
	t.mu.Lock()
	if _, there := t.execs[x.ID]; there {
		t.mu.Unlock()
		return nil, errs.New(errs.Conflict, "exec %s already runs", x.ID)
	}
	t.execs[x.ID] = e
	t.mu.Unlock()
	c, a, err := t.open(ctx, spec.Request{Op: spec.OpExecStart, ExecID: x.ID, Process: process, Stdin: x.Stdin,
		Stdout: x.Stdout, Stderr: x.Stderr, Tty: x.Tty, Detach: x.Detach, Height: x.ConsoleSize[0], Width: x.ConsoleSize[1]})
	if err != nil {
		t.mu.Lock()
		if t.execs[x.ID] == e {
			delete(t.execs, x.ID)
		}
		t.mu.Unlock()
		return nil, err
	}
	e.Pid = a.Pid
	if x.Detach {
		c.Close()
	} else {
		e.Conn = c
	}
	return e, nil
}

// SignalExec signals a process that Exec started.
func (t *Task) SignalExec(ctx context.Context, execID string, signal int) error {
	_, err := t.ask(ctx, spec.Request{Op: spec.OpExecSignal, ExecID: execID, Signal: signal})
	return err
}

// Stats is one reading of what the container uses, without networks.
func (t *Task) Stats(ctx context.Context) (model.Stats, error) {
	var s model.Stats
	a, err := t.ask(ctx, spec.Request{Op: spec.OpStats})
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(a.Stats, &s); err != nil {
		return s, errs.Wrap(err, "decode the figures of container %s", t.id)
	}
	if s.Read.IsZero() {
		s.Read = t.m.cfg.Clock.Now().UTC()
	}
	s.CPU.SystemTotal, s.CPU.Online = machineCPU()
	return s, nil
}

// Pids are all processes of the container, in the host's numbering.
func (t *Task) Pids(ctx context.Context) ([]int, error) {
	a, err := t.ask(ctx, spec.Request{Op: spec.OpPids})
	return a.Pids, err
}
