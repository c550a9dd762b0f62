package supervise

import (
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/spec"
)

// exitsKept is how many ended execs are remembered for those who ask late.
const exitsKept = 64

// execs are the processes that were added to the container.
type execs struct {
	mu    sync.Mutex
	live  map[string]*execProcess
	past  []*execProcess
	ended bool // the container has ended: no more
}

func (e *execs) init() { e.live = map[string]*execProcess{} }

// execProcess is one of them. proc is nil until it was started.
type execProcess struct {
	id    string
	proc  Process
	child *child
	out   *output
	in    input
	exit  *spec.ExitStatus
	done  chan struct{} // closed when exit is there
}

// add reserves the ID.
func (e *execs) add(id string) (*execProcess, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return nil, errs.New(errs.Conflict, "the container has ended")
	}
	if e.live[id] != nil {
		return nil, errs.New(errs.Conflict, "exec %s already runs", id)
	}
	x := &execProcess{id: id, done: make(chan struct{})}
	e.live[id] = x
	return x, nil
}

// remove forgets one that did not start, or remembers how one ended.
func (e *execs) remove(x *execProcess, exit *spec.ExitStatus) {
	e.mu.Lock()
	delete(e.live, x.id)
	x.exit = exit
	if exit != nil {
		if len(e.past) == exitsKept {
			e.past = e.past[1:]
		}
		e.past = append(e.past, &execProcess{id: x.id, exit: exit, done: x.done})
	}
	e.mu.Unlock()
	close(x.done)
}

// get finds a running exec, or one that ended not long ago.
func (e *execs) get(id string) (*execProcess, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x := e.live[id]; x != nil {
		return x, nil
	}
	for i := len(e.past) - 1; i >= 0; i-- {
		if e.past[i].id == id {
			return e.past[i], nil
		}
	}
	return nil, errs.New(errs.NotFound, "no exec %s in this container", id)
}

// close refuses more execs.
func (e *execs) close() {
	e.mu.Lock()
	e.ended = true
	e.mu.Unlock()
}

// finish waits until the present execs, whose processes the container's end has killed, are done.
func (e *execs) finish() {
	e.mu.Lock()
	var live []*execProcess
	for _, x := range e.live {
		live = append(live, x)
	}
	e.mu.Unlock()
	timeout := time.After(5 * time.Second)
	for _, x := range live {
		select {
		case <-x.done:
		case <-timeout:
			return
		}
	}
}

// startExec runs a process and answers; the connection then is its stream.
func (s *supervisor) startExec(q *spec.Request, conn *os.File, rest []byte) error {
	var process specs.Process
	if err := decode(q.Process, &process, "process"); err != nil {
		return err
	}
	x, err := s.execs.add(q.ExecID)
	if err != nil {
		return err
	}
	s.calm.work.Add(enoughWork)
	s.buf.touch()
	streams := !q.Detach
	p, err := makePipes(q.Tty, q.Stdin && streams, q.Stdout && streams, q.Stderr && streams)
	if err != nil {
		s.execs.remove(x, nil)
		return err
	}
	s.life.births.RLock()
	x.proc, err = s.c.Exec(ExecOptions{ID: q.ExecID, Process: &process, Stdio: p.theirs, Tty: q.Tty, Size: [2]uint{q.Height, q.Width}})
	s.life.births.RUnlock()
	p.closeTheirs()
	if err != nil {
		p.closeOurs()
		s.execs.remove(x, nil)
		return err
	}
	x.child = followPid(x.proc.Pid(), &s.calm, nil)
	x.out = newOutput(&s.buf, newHub(q.Tty, s.clientDropped))
	x.in = input{once: true, f: p.stdin}
	if q.Tty {
		if x.in.console, err = terminal(x.proc); err != nil {
			x.child.signal(syscall.SIGKILL)
			s.execs.remove(x, nil)
			return err
		}
		if q.Height > 0 {
			resize(x.in.console, q.Height, q.Width)
		}
		if q.Stdin {
			x.in.f = x.in.console
		}
	}
	answer := encodeLine(spec.Response{Pid: x.proc.Pid()})
	var cl *client
	if streams {
		if cl, err = newClient(x.out.hub, conn, q.Stdout || q.Tty, q.Stderr, true); err == nil {
			x.out.hub.join(cl, answer)
		}
	} else {
		conn.Write(answer)
		conn.Close()
	}
	x.out.read(x.in.console, false)
	x.out.read(p.stdout, false)
	x.out.read(p.stderr, true)
	go s.followExec(x)
	if cl != nil {
		x.in.feed(cl, rest)
		cl.awaitHangup()
	}
	return nil
}

// followExec waits for the end of an exec, its output and then tells.
func (s *supervisor) followExec(x *execProcess) {
	<-x.child.reaped
	at := time.Now().UTC()
	x.out.drain(drainTimeout)
	x.in.close()
	exit := &spec.ExitStatus{At: at}
	exit.Code, exit.Signal = exitCode(x.child.ws)
	if x.child.err != nil {
		exit.Code, exit.Reason = errs.ExitUnknownRestart, "the exit status was lost: "+x.child.err.Error()
	}
	s.events.send(spec.Event{Kind: "exec-exit", ExecID: x.id, Exit: exit})
	x.out.hub.close()
	s.execs.remove(x, exit)
	x.child.close()
	s.buf.touch()
}

// signalExec signals a running exec.
func (s *supervisor) signalExec(id string, sig syscall.Signal) error {
	x, err := s.execs.get(id)
	if err != nil {
		return err
	}
	s.execs.mu.Lock()
	c := x.child
	s.execs.mu.Unlock()
	if c == nil {
		return errs.New(errs.Conflict, "exec %s is not running", id)
	}
	if err := c.signal(sig); err != nil {
		return errs.New(errs.Conflict, "exec %s is not running: %w", id, err)
	}
	return nil
}
