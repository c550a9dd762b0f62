package supervise

import (
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/spec"
)

// acceptPause is how long to wait after the kernel refused a connection.
const acceptPause = 50 * time.Millisecond

// requestLimit bounds a request line.
const requestLimit = 4 << 20

var errNotRunning = errs.New(errs.Conflict, "the container is not running")

// listen makes the socket, through the directory's descriptor: the path may be longer than a socket address can hold.
func (s *supervisor) listen() error {
	dir, err := unix.Open(s.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	path := "/proc/self/fd/" + strconv.Itoa(dir) + "/" + spec.SocketFile
	unix.Unlink(path)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return errs.Wrap(err, "bind %s", spec.SocketFile)
	}
	if err := unix.Listen(fd, 128); err != nil {
		unix.Close(fd)
		return err
	}
	s.listener = os.NewFile(uintptr(fd), "sup.sock")
	return nil
}

// serve accepts connections until the process ends.
func (s *supervisor) serve() {
	rc, err := s.listener.SyscallConn()
	if err != nil {
		return
	}
	for {
		fd := -1
		var aerr error
		err := rc.Read(func(p uintptr) bool {
			s.calm.RLock()
			defer s.calm.RUnlock()
			fd, _, aerr = unix.Accept4(int(p), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if aerr == nil {
				s.calm.talking.Add(1)
			}
			return aerr != unix.EAGAIN && aerr != unix.EINTR
		})
		if err != nil {
			return
		}
		if aerr != nil { // out of descriptors or memory: whoever closes one lets us go on, and until then we must not spin
			time.Sleep(acceptPause)
			continue
		}
		go s.talk(os.NewFile(uintptr(fd), "client"))
	}
}

// talk answers the requests of one connection.
func (s *supervisor) talk(conn *os.File) {
	defer func() {
		s.calm.work.Add(1)
		s.calm.talking.Add(-1)
		s.buf.touch()
	}()
	var rest []byte
	for {
		var line []byte
		var err error
		if line, rest, err = readLine(&prefixed{rest, conn}, requestLimit); err != nil {
			conn.Close()
			return
		}
		var q spec.Request
		if err := json.Unmarshal(line, &q); err != nil {
			conn.Write(encodeLine(failure(errs.New(errs.Invalid, "the request cannot be read: %w", err))))
			conn.Close()
			return
		}
		taken, err := s.stream(&q, conn, rest)
		if taken {
			return
		}
		if err := s.reply(&q, conn, err); err != nil {
			conn.Close()
			return
		}
	}
}

// reply answers a request, or with what went wrong before.
func (s *supervisor) reply(q *spec.Request, conn *os.File, err error) error {
	s.life.answering.RLock()
	defer s.life.answering.RUnlock()
	var a spec.Response
	if err == nil {
		a, err = s.answer(q)
	}
	if err != nil {
		a = failure(err)
	}
	_, err = conn.Write(encodeLine(a))
	return err
}

// prefixed reads what was read too much before.
type prefixed struct {
	first []byte
	conn  *os.File
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.conn.Read(b)
}

// stream handles the requests that take the connection over; they close it.
func (s *supervisor) stream(q *spec.Request, conn *os.File, rest []byte) (taken bool, err error) {
	switch q.Op {
	case spec.OpAttach:
		s.life.mu.Lock()
		held, over := !s.life.started, s.life.exit != nil
		s.life.mu.Unlock()
		if over {
			return false, errNotRunning
		}
		c, err := newClient(s.out.hub, conn, q.Stdout, q.Stderr, held)
		if err != nil {
			return false, err
		}
		s.out.hub.join(c, encodeLine(spec.Response{}))
		if q.Stdin {
			s.in.feed(c, rest)
		} else {
			(&input{}).feed(c, rest)
		}
		c.awaitHangup()
		return true, nil
	case spec.OpExecStart:
		if err := s.startExec(q, conn, rest); err != nil {
			return false, err
		}
		return true, nil
	case spec.OpEvents:
		if !s.subscribe(conn) {
			return false, errNotRunning
		}
		return true, nil
	}
	return false, nil
}

// subscribe answers with the state and sends events from then on, unless it is too late. While the container is being
// started it waits: who asks then is a daemon whose predecessor died, and must learn whether that had said go.
func (s *supervisor) subscribe(conn *os.File) bool {
	<-s.life.decided
	s.life.mu.Lock()
	defer s.life.mu.Unlock()
	if s.life.exit != nil {
		return false
	}
	state := s.state()
	s.events.add(conn, encodeLine(spec.Response{State: &state}))
	return true
}

// state is what state.json says, or paused. With life.mu.
func (s *supervisor) state() spec.SupervisorState {
	state := s.life.state
	if s.life.paused {
		state.Status = "paused"
	}
	return state
}

// answer handles the requests with one answer.
func (s *supervisor) answer(q *spec.Request) (a spec.Response, err error) {
	control := s.c.Control()
	switch q.Op {
	case spec.OpState:
		s.life.mu.Lock()
		state := s.state()
		a.State, a.Exit = &state, s.life.exit
		s.life.mu.Unlock()
	case spec.OpWait:
		<-s.life.ended
		a.Exit = s.life.exit
	case spec.OpSignal:
		err = s.signal(syscall.Signal(q.Signal), q.All)
	case spec.OpPause, spec.OpResume:
		err = s.freeze(q.Op == spec.OpPause)
	case spec.OpUpdate:
		var r specs.LinuxResources
		if err = decode(q.Resources, &r, "resources"); err == nil {
			err = control.Update(&r)
		}
	case spec.OpResize:
		err = s.resize(q)
	case spec.OpExecWait:
		var x *execProcess
		if x, err = s.execs.get(q.ExecID); err == nil {
			select {
			case <-x.done:
				a.Exit = x.exit
			case <-s.life.ended:
			}
			if a.Exit == nil {
				err = errs.New(errs.Conflict, "how exec %s ended is not known", q.ExecID)
			}
		}
	case spec.OpExecSignal:
		err = s.signalExec(q.ExecID, syscall.Signal(q.Signal))
	case spec.OpStats:
		figures, serr := control.Stats()
		if err = serr; err == nil {
			a.Stats, err = json.Marshal(figures)
		}
	case spec.OpPids:
		a.Pids, err = control.Pids()
	default:
		err = errs.New(errs.Unsupported, "the supervisor does not know the operation %q: are shoald and shoal-runtime of the same version?", q.Op)
	}
	return a, err
}

// signal reaches the init process as long as this process has not reaped it, so never another with its pid.
func (s *supervisor) signal(sig syscall.Signal, all bool) error {
	s.life.mu.Lock()
	over := s.life.exit != nil
	s.life.mu.Unlock()
	if over {
		return errNotRunning
	}
	var err error
	if all {
		s.life.births.Lock()
		err = s.c.Control().Signal(sig, true)
		s.life.births.Unlock()
	} else {
		err = s.init.signal(sig)
	}
	if errors.Is(err, syscall.ESRCH) {
		return errNotRunning
	}
	if err == nil && sig == syscall.SIGKILL { // frozen processes of cgroup v1 die only when they are thawed
		s.life.mu.Lock()
		paused := s.life.paused
		s.life.mu.Unlock()
		if paused {
			return s.freeze(false)
		}
	}
	return err
}

func (s *supervisor) freeze(on bool) error {
	s.life.mu.Lock()
	was, over := s.life.paused, s.life.exit != nil
	s.life.mu.Unlock()
	if over {
		return errNotRunning
	}
	if was == on {
		if on {
			return errs.New(errs.Conflict, "the container is already paused")
		}
		return errs.New(errs.Conflict, "the container is not paused")
	}
	s.life.births.Lock()
	err := s.c.Control().Freeze(on)
	s.life.births.Unlock()
	if err != nil {
		return err
	}
	s.life.mu.Lock()
	s.life.paused = on
	s.life.mu.Unlock()
	return nil
}

func (s *supervisor) resize(q *spec.Request) error {
	in := &s.in
	if q.ExecID != "" {
		x, err := s.execs.get(q.ExecID)
		if err != nil {
			return err
		}
		in = &x.in
	}
	if in.console == nil {
		return errs.New(errs.Invalid, "it has no terminal to resize")
	}
	if err := resize(in.console, q.Height, q.Width); err != nil {
		return errNotRunning
	}
	return nil
}

func decode(data []byte, v any, what string) error {
	if len(data) == 0 {
		return errs.New(errs.Invalid, "the request has no %s", what)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return errs.New(errs.Invalid, "the request's %s cannot be read: %w", what, err)
	}
	return nil
}

func failure(err error) spec.Response {
	a := spec.Response{Error: err.Error(), ErrorKind: int(errs.KindOf(err))}
	var f *Failure
	if errors.As(err, &f) {
		a.ExitCode = f.Code
	}
	return a
}

func encodeLine(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		data = []byte(`{"error":"the answer cannot be encoded"}`)
	}
	return append(data, '\n')
}

// subscribers are the events connections.
type subscribers struct {
	hub *hub
	mu  sync.Mutex
}

func (e *subscribers) stream() *hub {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hub == nil {
		e.hub = newHub(true, nil)
	}
	return e.hub
}

// add makes conn an events connection and watches for its end. It is sent first, and then every event: none that happens
// once the peer can know of first is missed, such as the end of an exec that the peer asks for at once.
func (e *subscribers) add(conn *os.File, first []byte) {
	h := e.stream()
	c, err := newClient(h, conn, true, false, false)
	if err != nil {
		conn.Close()
		return
	}
	h.join(c, first)
	go c.awaitHangup()
}

func (e *subscribers) send(v spec.Event) { e.stream().write(false, encodeLine(v)) }

// descriptors are the connections', unless something still waits for one of them.
func (e *subscribers) descriptors() (fds []int, ok bool) {
	h := e.stream()
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.clients {
		if len(c.queue) > 0 || c.flushing {
			return nil, false
		}
		fds = append(fds, fileFD(c.conn))
	}
	return fds, true
}

func (e *subscribers) close() {
	h := e.stream()
	h.close()
	h.flushed()
}
