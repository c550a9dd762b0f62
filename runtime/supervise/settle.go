package supervise

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/runtime/logs"
	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/runtime/spec/logopts"
)

// A supervisor that has just created a container holds what that took: the configuration, compiled filters, stacks and
// threads, some 1.7 MB that no garbage collection gives back wholly. Two seconds after the start, when nobody talks with
// it, it executes itself anew and goes on from a small saved state: its children stay its children, its descriptors stay
// open, what is printed meanwhile waits in the pipes, and who connects waits in the socket's queue. That leaves 0.8 MB.
// The same is done after much work (execs). docs/supervisor.md has the measurements.

// resumed is the state that goes over the execution.
type resumed struct {
	Dir      string          `json:"dir"`
	Paused   bool            `json:"paused,omitempty"`
	Events   []int           `json:"events,omitempty"` // descriptors from here on
	Listener int             `json:"listener"`
	Streams  []resumedStream `json:"streams,omitempty"`
	Stdin    int             `json:"stdin,omitempty"`
	Console  int             `json:"console,omitempty"`
	OOM      int             `json:"oom,omitempty"`
	OOMSeen  uint64          `json:"oomSeen,omitempty"`
	LogLost  string          `json:"logLost,omitempty"`
	Runner   json.RawMessage `json:"runner,omitempty"` // Container.Save
}

type resumedStream struct {
	FD     int    `json:"fd"`
	Stderr bool   `json:"stderr,omitempty"`
	Part   []byte `json:"part,omitempty"` // of a line that is not finished
}

// enoughWork is how much has to be done until memory is worth another execution. An exec counts as much.
const enoughWork = 64

// settle executes this program anew if nothing goes on. It returns if it cannot.
func (s *supervisor) settle() {
	if s.calm.work.Load() < enoughWork || !s.calm.TryLock() {
		return
	}
	defer s.calm.Unlock()
	r, ok := s.snapshot()
	if !ok {
		return
	}
	data, err := json.Marshal(r)
	if err != nil {
		return
	}
	fd, err := unix.MemfdCreate("supervisor", 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if n, err := unix.Write(fd, data); err != nil || n != len(data) {
		return
	}
	keep := append([]int{r.Listener}, r.Events...)
	for _, st := range r.Streams {
		keep = append(keep, st.FD)
	}
	for _, n := range []int{r.Stdin, r.Console, r.OOM} {
		if n > 0 {
			keep = append(keep, n)
		}
	}
	for _, n := range keep {
		unix.FcntlInt(uintptr(n), unix.F_SETFD, 0)
	}
	unix.Exec("/proc/self/exe", []string{"shoal-runtime", "supervise", s.dir, "--resume", strconv.Itoa(fd)}, os.Environ())
	for _, n := range keep { // it did not work: go on as we are
		unix.CloseOnExec(n)
	}
	s.calm.work.Store(0)
}

// snapshot says what has to be kept, unless something goes on. With calm locked.
func (s *supervisor) snapshot() (r *resumed, ok bool) {
	s.life.mu.Lock()
	started, over, paused := s.life.started, s.life.exit != nil, s.life.paused
	s.life.mu.Unlock()
	s.execs.mu.Lock()
	busy := len(s.execs.live) > 0
	s.execs.mu.Unlock()
	if !started || over || busy || s.calm.ending || s.calm.talking.Load() > 0 || !s.out.resumable() {
		return nil, false
	}
	r = &resumed{Dir: s.dir, Paused: paused, Listener: fileFD(s.listener), LogLost: s.out.lost, OOM: s.calm.oomFD, OOMSeen: s.calm.oomSeen}
	if r.Events, ok = s.events.descriptors(); !ok || !s.out.hub.empty() {
		return nil, false
	}
	for _, st := range s.out.streams {
		if !st.ended {
			r.Streams = append(r.Streams, resumedStream{FD: fileFD(st.f), Stderr: st.stderr, Part: st.split.Unfinished()})
		}
	}
	s.in.mu.Lock()
	if s.in.console != nil {
		r.Console = fileFD(s.in.console)
	} else if s.in.f != nil {
		r.Stdin = fileFD(s.in.f)
	}
	s.in.mu.Unlock()
	r.Runner, ok = s.c.Save()
	return r, ok
}

// resumable says whether the log can be closed and opened again at this moment.
func (o *output) resumable() bool {
	o.mu.Lock()
	c, ok := o.driver.(interface{ Compresses() bool })
	o.mu.Unlock()
	if ok && c.Compresses() { // its process would have nobody who waits for it
		o.buf.touch() // in two seconds again
		return false
	}
	switch o.name {
	case logopts.Local, logopts.JSONFile, logopts.None:
		return !o.buffered
	}
	return false
}

// resume is the life of a supervisor after an execution of itself.
func resume(fd int, pick func(*spec.SupervisorConfig) (Runner, error)) int {
	f := os.NewFile(uintptr(fd), "state")
	st, err := f.Stat()
	if err != nil {
		return complain(err)
	}
	data := make([]byte, st.Size())
	if _, err := f.ReadAt(data, 0); err != nil {
		return complain(err)
	}
	f.Close()
	var r resumed
	if err := json.Unmarshal(data, &r); err != nil {
		return complain(err)
	}
	s := newSupervisor(r.Dir, nil)
	if err := s.restore(&r, pick); err != nil {
		// Nobody to tell; the daemon sees this process end without an exit and cleans up.
		return complain(err)
	}
	close(s.life.decided)
	s.finish()
	return 0
}

func (s *supervisor) restore(r *resumed, pick func(*spec.SupervisorConfig) (Runner, error)) error {
	if err := readJSON(filepath.Join(s.dir, spec.SupervisorFile), &s.cfg); err != nil {
		return err
	}
	if err := readJSON(filepath.Join(s.dir, spec.StateFile), &s.life.state); err != nil {
		return err
	}
	s.life.started, s.life.paused = true, r.Paused
	s.init = s.follow(s.life.state.Pid)
	runner, err := pick(&s.cfg)
	if err != nil {
		return err
	}
	s.c = runner.Resume(s.dir, &s.cfg, s.life.state.Pid, r.Runner)
	driver, lerr := logs.Open(s.cfg.Log, s.logOptions())
	s.out = s.newOutput(newHub(s.cfg.Tty, s.clientDropped), driver)
	s.out.lost = r.LogLost
	if lerr != nil && s.out.lost == "" { // the disk may be full: the container runs on
		s.out.lost = lerr.Error()
	}
	s.in.once = s.cfg.StdinOnce
	if r.Console > 0 {
		s.in.console = reopened(r.Console)
		if s.cfg.OpenStdin {
			s.in.f = s.in.console
		}
	} else if r.Stdin > 0 {
		s.in.f = reopened(r.Stdin)
	}
	s.listener = reopened(r.Listener)
	for _, fd := range r.Events {
		s.events.add(reopened(fd), nil)
	}
	if r.OOM > 0 {
		s.calm.oomSeen = r.OOMSeen
		s.followOOM(reopened(r.OOM), func() (uint64, error) {
			drainFD(r.OOM)
			return s.c.Control().OOM().Count(), nil
		})
	}
	for _, st := range r.Streams {
		f := s.in.console
		if f == nil {
			f = reopened(st.FD)
		}
		s.out.resume(f, st.Stderr, st.Part)
	}
	go s.serve()
	return nil
}

// reopened makes a file of a descriptor that came over the execution.
func reopened(fd int) *os.File {
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "kept") // it is non-blocking already
}

// fileFD is the descriptor, without changing its mode as Fd does.
func fileFD(f *os.File) (fd int) {
	if rc, err := f.SyscallConn(); err == nil {
		rc.Control(func(p uintptr) { fd = int(p) })
	}
	return fd
}

// drainFD empties an eventfd or inotify descriptor.
func drainFD(fd int) {
	var buf [4096]byte
	for {
		if n, err := unix.Read(fd, buf[:]); err != nil || n < len(buf) {
			return
		}
	}
}
