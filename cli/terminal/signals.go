package terminal

import (
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that people and programs send to other programs. Not among them are those that cannot be
// caught, tell of faults or of our own children and terminal, or are the Go runtime's own (SIGURG).
var forwarded = [...]os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2,
	unix.SIGCONT, unix.SIGTSTP, unix.SIGALRM, unix.SIGVTALRM, unix.SIGIO, unix.SIGPWR, unix.SIGXCPU, unix.SIGXFSZ}

// Real-time signals are used by few, and each costs 20 microseconds to catch: they are caught a little later, so that
// containers that end at once do not pay for them.
const (
	firstRealTime = syscall.Signal(34)
	lastRealTime  = syscall.Signal(64)
	realTimeDelay = 50 * time.Millisecond
)

// ForwardSignals hands every signal this process gets to send, by name ("SIGTERM") or number, until stop is called.
// Signals that come before ready is closed wait for it. After stop, signals are lost: it is for the end of the process.
func ForwardSignals(ready <-chan struct{}, send func(name string)) (stop func()) {
	ch := make(chan os.Signal, 64)
	done := make(chan struct{})
	caught := make(chan struct{})
	go func() {
		// The two without which a container could be orphaned at once, the others while the engine works.
		signal.Notify(ch, forwarded[:2]...)
		close(caught)
		signal.Notify(ch, forwarded[2:]...)
		select {
		case <-ready:
		case <-done:
			return
		}
		later := time.NewTimer(realTimeDelay)
		defer later.Stop()
		for {
			select {
			case s := <-ch:
				send(SignalName(s.(syscall.Signal)))
			case <-later.C:
				for s := firstRealTime; s <= lastRealTime; s++ {
					signal.Notify(ch, s)
				}
			case <-done:
				return
			}
		}
	}()
	<-caught
	// signal.Stop would take a millisecond to no use: the process ends.
	return sync.OnceFunc(func() { close(done) })
}

// SignalName is the name of a signal, or its number where it has none.
func SignalName(s syscall.Signal) string {
	if n := unix.SignalName(s); n != "" {
		return n
	}
	return strconv.Itoa(int(s))
}
