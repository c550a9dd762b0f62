package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/runtime/logs"
	"github.com/shoalhq/shoal/runtime/spec"
)

// drainTimeout is how long output may still come after the process ended, from others that hold its pipes.
const drainTimeout = time.Second

// supervisor is the whole process.
type supervisor struct {
	dir  string
	cfg  spec.SupervisorConfig
	c    Container
	init *child
	door
	buf    buffers
	out    *output
	in     input
	events subscribers
	execs  execs
	life   life
	calm   calm
}

// door is where the supervisor hears others.
type door struct {
	hand     *os.File // the handshake, later the starter's events
	listener *os.File // sup.sock
}

// life is what changes while the supervisor lives.
type life struct {
	mu      sync.Mutex
	state   spec.SupervisorState
	paused  bool
	started bool // the program runs: clients that attach now are observers
	exit    *spec.ExitStatus
	decided chan struct{} // closed when the program runs; if it never does, this process ends
	ended   chan struct{} // closed when exit is there

	answering sync.RWMutex // held for reading while a request is answered
	// births is held for reading while a process is made: on cgroup v1 a thread of ours is in the container's groups then,
	// and what freezes or kills all that is in them would freeze or kill this process too.
	births sync.RWMutex
}

func newSupervisor(dir string, hand *os.File) *supervisor {
	s := &supervisor{dir: dir, door: door{hand: hand}}
	s.life.decided, s.life.ended = make(chan struct{}), make(chan struct{})
	s.execs.init()
	s.buf.trim, s.buf.calm = s.settle, &s.calm
	return s
}

// follow waits for the init process.
func (s *supervisor) follow(pid int) *child {
	return followPid(pid, &s.calm, func() { s.calm.ending = true })
}

// run supervises the container in the directory; it returns the exit code of the process.
func run(dir string, hand *os.File, waits bool, pick func(*spec.SupervisorConfig) (Runner, error)) int {
	s := newSupervisor(dir, hand)
	spaces := func() error { return nil }
	if waits {
		spaces = func() error { return receiveSpaces(hand) }
	}
	if err := s.create(pick, spaces); err != nil {
		s.fail(err)
		return 1
	}
	if err := s.start(); err != nil {
		s.takeBack()
		os.Remove(filepath.Join(dir, spec.SocketFile))
		s.fail(err)
		return 1
	}
	s.calm.work.Add(enoughWork) // the start itself
	s.buf.touch()
	s.finish()
	return 0
}

// takeBack leaves nothing of a container that was not started.
func (s *supervisor) takeBack() {
	if s.init == nil { // it failed to become ready, and left nothing
		return
	}
	s.c.Destroy()
	<-s.init.reaped
}

// create leads to the moment where the init process exists: what does not need the container (socket, log) is done while
// the kernel makes it.
func (s *supervisor) create(pick func(*spec.SupervisorConfig) (Runner, error), spaces func() error) error {
	if err := readJSON(filepath.Join(s.dir, spec.SupervisorFile), &s.cfg); err != nil {
		return err
	}
	side := make(chan error, 1)
	var driver logs.Driver
	go func() {
		var err error
		driver, err = logs.Open(s.cfg.Log, s.logOptions())
		if err == nil {
			err = s.listen()
		}
		side <- err
	}()
	runner, err := pick(&s.cfg)
	var pipes *pipes
	if err == nil {
		pipes, err = makePipes(s.cfg.Tty, s.cfg.OpenStdin, true, true)
	}
	if err != nil {
		<-side
		return err
	}
	s.c, err = runner.Create(CreateOptions{ID: s.cfg.ID, Dir: s.dir, Stdio: pipes.theirs, Tty: s.cfg.Tty, Config: &s.cfg, Spaces: spaces})
	pipes.closeTheirs()
	if serr := <-side; err == nil && serr != nil {
		s.ready()
		s.takeBack()
		err = serr
	}
	if err != nil {
		pipes.closeOurs()
		return err
	}
	if s.cfg.Tty { // the terminal comes from init
		if err := s.ready(); err != nil {
			pipes.closeOurs()
			return err
		}
	}
	s.life.mu.Lock()
	s.life.state = spec.SupervisorState{ID: s.cfg.ID, SupervisorPid: os.Getpid(), Pid: s.c.Pid(), PidStart: startTime(s.c.Pid()),
		Status: "created", CgroupPaths: s.c.Control().Paths()}
	s.life.mu.Unlock()
	s.out = s.newOutput(newHub(s.cfg.Tty, s.clientDropped), driver)
	s.in = input{once: s.cfg.StdinOnce, f: pipes.stdin}
	if err := s.openStreams(pipes); err != nil {
		s.ready()
		s.takeBack()
		return err
	}
	go s.serve()
	return nil
}

// ready waits until init has made the container.
func (s *supervisor) ready() error {
	if s.init != nil {
		return nil
	}
	err := s.c.Ready()
	if err == nil {
		s.init = s.follow(s.c.Pid())
	}
	return err
}

// openStreams starts reading the container's output.
func (s *supervisor) openStreams(p *pipes) error {
	if !s.cfg.Tty {
		s.out.read(p.stdout, false)
		s.out.read(p.stderr, true)
		return nil
	}
	var err error
	if s.in.console, err = terminal(s.c); err != nil {
		return err
	}
	if size := s.cfg.ConsoleSize; size[0] > 0 {
		resize(s.in.console, size[0], size[1])
	}
	if s.cfg.OpenStdin {
		s.in.f = s.in.console
	}
	s.out.read(s.in.console, false)
	return nil
}

// terminal takes the master end of a process' terminal over.
func terminal(p Process) (*os.File, error) {
	master := p.Console()
	if master == nil {
		return nil, errs.New(errs.Internal, "the runtime gave no terminal")
	}
	defer master.Close()
	return pollableCopy(master)
}

// start leads from "created" to "running", if the starter wants it. The starter is told as soon as there is a process to
// name: what it does now it does while init makes the container.
func (s *supervisor) start() error {
	err := failpoint.Hit("supervise/created")
	if err == nil {
		err = s.report(spec.StartReport{Step: "created", Pid: s.c.Pid(), CgroupPaths: s.life.state.CgroupPaths})
	}
	if err == nil {
		err = s.saveState()
	}
	if rerr := s.ready(); rerr != nil {
		return rerr
	}
	if err != nil {
		return err
	}
	if s.cfg.WaitForStart {
		var b [1]byte
		if n, err := s.hand.Read(b[:]); err != nil || n != 1 {
			return errs.New(errs.Canceled, "the starter went away before the container was started")
		}
	}
	if err := s.c.Start(); err != nil {
		return err
	}
	at := time.Now().UTC()
	s.life.mu.Lock()
	s.life.started = true
	s.life.state.Status = "running"
	s.life.state.StartedAt = at
	s.life.mu.Unlock()
	if err := failpoint.Hit("supervise/started"); err != nil {
		return err
	}
	if err := s.saveState(); err != nil {
		return err
	}
	close(s.life.decided)
	// The container lives on when nobody hears it.
	s.events.add(s.hand, encodeLine(spec.StartReport{Step: "running", Pid: s.c.Pid(), StartedAt: at}))
	go s.watchOOM() // not needed for the start: what happened before is counted all the same
	return nil
}

// finish waits for the end and records it.
func (s *supervisor) finish() {
	<-s.init.reaped
	at := time.Now().UTC()
	control := s.c.Control()
	s.execs.close()
	s.life.births.Lock()
	outlived := false
	if !s.cfg.OwnPids || s.cfg.Runtime.Path != "" {
		pids, err := control.Pids()
		if outlived = err != nil || len(pids) > 0; outlived {
			control.KillAll()
		}
	}
	s.life.births.Unlock()
	s.execs.finish()
	s.out.drain(drainTimeout)
	exit := &spec.ExitStatus{At: at, OOMKilled: control.OOM().Count() > 0, LogError: s.out.closeLog()}
	// Who hears of the end may remove the container's files at once: nothing may hold them then. Our own runtime's
	// containers hold nothing once their last process is gone, and what remains to be done for them need not be waited for.
	early := outlived || s.cfg.Runtime.Path != ""
	exit.Code, exit.Signal = exitCode(s.init.ws)
	if s.init.err != nil {
		exit.Code, exit.Reason = errs.ExitUnknownRestart, "the exit status was lost: "+s.init.err.Error()
	}
	failpoint.Hit("supervise/ended")
	if err := atomicfile.WriteJSON(filepath.Join(s.dir, spec.ExitFile), exit, 0o600, atomicfile.Volatile); err != nil {
		exit.Reason = err.Error()
	}
	if early {
		s.c.Destroy()
	}
	s.life.mu.Lock()
	s.life.exit = exit
	s.life.mu.Unlock()
	close(s.life.ended)
	s.events.send(spec.Event{Kind: "exit", Exit: exit})
	s.out.hub.close()
	if !early {
		s.c.Destroy()
	}
	s.life.answering.Lock() // until the answers that waited for the end are written
	s.events.close()
	s.out.hub.flushed()
}

func (s *supervisor) report(r spec.StartReport) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = s.hand.Write(append(data, '\n'))
	return err
}

// fail reports why there is no container.
func (s *supervisor) fail(err error) {
	r := spec.StartReport{Step: "failed", Error: err.Error(), ErrorKind: int(errs.KindOf(err)), ExitCode: 128}
	var f *Failure
	if errors.As(err, &f) {
		r.ExitCode = f.Code
	}
	s.report(r)
}

// saveState writes state.json.
func (s *supervisor) saveState() error {
	s.life.mu.Lock()
	data, err := json.Marshal(s.life.state)
	s.life.mu.Unlock()
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(s.dir, spec.StateFile), data, 0o600, atomicfile.Volatile)
}

func (s *supervisor) clientDropped(reason string) {
	go s.events.send(spec.Event{Kind: "client-dropped", Reason: reason})
}

func (s *supervisor) logOptions() logs.Options {
	forwarder := s.cfg.Log.Forwarder
	if len(forwarder) == 0 {
		forwarder = []string{"/proc/self/exe", "supervise", "--forward"}
	}
	return logs.Options{
		Dropped: func(n int64, reason string) {
			go s.events.send(spec.Event{Kind: "log-dropped", Count: n, Reason: reason})
		},
		Forwarder:  forwarder,
		Compressor: []string{"/proc/self/exe", "supervise", "--compress"},
	}
}

// watchOOM tells the daemon of out-of-memory kills.
func (s *supervisor) watchOOM() {
	s.calm.RLock()
	defer s.calm.RUnlock()
	fd, read := s.c.Control().OOM().Watch()
	if fd < 0 {
		return
	}
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return
	}
	if f, err := pollable(fd, "oom"); err == nil {
		if s.calm.oomSeen = s.c.Control().OOM().Count(); s.calm.oomSeen > 0 {
			s.events.send(spec.Event{Kind: "oom", Count: int64(s.calm.oomSeen)})
		}
		s.followOOM(f, read)
	}
}

// followOOM reads from a watch until the cgroup is gone.
func (s *supervisor) followOOM(f *os.File, read func() (uint64, error)) {
	rc, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return
	}
	s.calm.oomFD = fileFD(f)
	go func() {
		defer f.Close()
		for {
			var count uint64
			var rerr error
			err := rc.Read(func(p uintptr) bool {
				s.calm.RLock()
				defer s.calm.RUnlock()
				fds := []unix.PollFd{{Fd: int32(p), Events: unix.POLLIN}}
				if n, _ := unix.Poll(fds, 0); n == 0 {
					return false
				}
				count, rerr = read()
				return true
			})
			if err != nil || rerr != nil {
				return
			}
			if count > s.calm.oomSeen {
				s.calm.oomSeen = count
				s.events.send(spec.Event{Kind: "oom", Count: int64(count)})
			}
		}
	}()
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return errs.New(errs.Invalid, "decode %s: %w", path, err)
	}
	return nil
}

// startTime is field 22 of /proc/PID/stat, which with the pid identifies a process until the next boot.
func startTime(pid int) uint64 {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	i := bytes.LastIndexByte(data, ')') // the name may contain anything
	fields := bytes.Fields(data[i+1:])
	if len(fields) < 20 {
		return 0
	}
	n, _ := strconv.ParseUint(string(fields[19]), 10, 64)
	return n
}

func resize(master *os.File, height, width uint) error {
	rc, err := master.SyscallConn()
	if err != nil {
		return err
	}
	var ierr error
	err = rc.Control(func(fd uintptr) {
		ierr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(height), Col: uint16(width)})
	})
	if err == nil {
		err = ierr
	}
	return err
}
