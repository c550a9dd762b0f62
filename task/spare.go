package task

import (
	"errors"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/runtime/spec"
)

// spareDelay is how long after a start the next supervisor is made ahead: behind the end of a short container and the
// answer to its client. While starts come faster than this, each makes its own, which costs no more.
const spareDelay = 4 * time.Millisecond

const waitFlag = "--wait"

// spare is a supervisor that was started ahead of need. Executing the program, starting the Go runtime and running code
// for the first time takes 2 to 3 ms, more than all that a supervisor then does for its container. There is none before
// the first container is started, one afterwards, and it sleeps. It ends when its handshake closes: with the daemon.
type spare struct {
	mu     sync.Mutex
	proc   *os.Process
	hand   *os.File
	stop   func() bool // of the timer that makes the next one
	making bool
	closed bool
}

// take gives the supervisor that waits, or nil.
func (s *spare) take() (*os.Process, *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		s.stop()
	}
	proc, hand := s.proc, s.hand
	s.proc, s.hand = nil, nil
	return proc, hand
}

// begin says whether one is to be made now.
func (s *spare) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hand != nil || s.making || s.closed {
		return false
	}
	s.making = true
	return true
}

func (m *Manager) makeSpare() {
	s := &m.spare
	if !s.begin() {
		return
	}
	// When it fails, so will the start that would have used it, and say why.
	what := waitFlag + strings.Repeat(" ", max(0, len(m.dir(ids.New()))-len(waitFlag))) // room for the name of its directory
	proc, hand, err := m.execSupervisor(what, nil)
	s.mu.Lock()
	s.making = false
	late := s.closed && err == nil
	if !s.closed && err == nil {
		s.proc, s.hand = proc, hand
	}
	s.mu.Unlock()
	if late {
		hand.Close()
		proc.Wait()
	}
}

// spareSoon makes the next supervisor a little later.
func (m *Manager) spareSoon() {
	s := &m.spare
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		s.stop()
	}
	s.stop = m.cfg.Clock.AfterFunc(spareDelay, m.makeSpare)
}

// Close ends the supervisor that waits for a container. Containers and their supervisors are not touched.
func (m *Manager) Close() {
	m.spare.mu.Lock()
	m.spare.closed = true
	m.spare.mu.Unlock()
	proc, hand := m.spare.take()
	if hand != nil {
		hand.Close()
		proc.Wait()
	}
}

// spawn gives a supervisor for the directory, with our end of its handshake. When waits is set it is at work already and
// waits for the namespaces.
func (m *Manager) spawn(dir string, r *StartRequest) (proc *os.Process, hand *os.File, waits bool, err error) {
	if proc, hand = m.spare.take(); hand != nil {
		end := spec.DirEnd
		if r.Namespace != nil {
			end = spec.DirEndSpaces
		}
		err = sendSpare(hand, append([]byte(dir), end), nil)
		if err == nil {
			return proc, hand, r.Namespace != nil, nil
		}
		hand.Close() // somebody killed it
		proc.Kill()
		proc.Wait()
		if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
			return nil, nil, false, errs.Wrap(err, "hand the supervisor its directory")
		}
	}
	err = r.withSpaces(func(spaces []*os.File) (err error) {
		proc, hand, err = m.execSupervisor(dir, spaces)
		return err
	})
	return proc, hand, false, err
}

// sendSpaces gives a supervisor its namespaces. One that is gone has told why, or the handshake will see that it did not.
func sendSpaces(hand *os.File, spaces []*os.File) error {
	fds := make([]int, len(spaces))
	for i, f := range spaces {
		fds[i] = int(f.Fd())
	}
	err := sendSpare(hand, []byte{spec.DirEndSpaces}, unix.UnixRights(fds...))
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	return errs.Wrap(err, "hand the supervisor the container's namespaces")
}

func sendSpare(hand *os.File, message, rights []byte) error {
	raw, err := hand.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Write(func(fd uintptr) bool {
		serr = unix.Sendmsg(int(fd), message, rights, nil, unix.MSG_NOSIGNAL)
		return serr != unix.EAGAIN && serr != unix.EINTR
	})
	if err == nil {
		err = serr
	}
	return err
}
