package terminal

import (
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// notForwarded stay with this process: they cannot be caught, tell of faults or of our own children and terminal, or are
// the Go runtime's own.
func notForwarded(s syscall.Signal) bool {
	switch s {
	case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGWINCH, unix.SIGTTIN, unix.SIGTTOU,
		unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGPROF, unix.SIGSYS, unix.SIGSTKFLT,
		unix.SIGABRT, 32, 33:
		return true
	}
	return false
}

// ForwardSignals hands every signal this process gets to send, by name ("SIGTERM") or number, until stop is called.
// Signals that come before ready is closed wait for it.
func ForwardSignals(ready <-chan struct{}, send func(name string)) (stop func()) {
	ch := make(chan os.Signal, 64)
	var list []os.Signal
	for s := syscall.Signal(1); s <= 64; s++ {
		if !notForwarded(s) {
			list = append(list, s)
		}
	}
	signal.Notify(ch, list...)
	done := make(chan struct{})
	go func() {
		select {
		case <-ready:
		case <-done:
			return
		}
		for {
			select {
			case s := <-ch:
				send(SignalName(s.(syscall.Signal)))
			case <-done:
				return
			}
		}
	}()
	return sync.OnceFunc(func() { signal.Stop(ch); close(done) })
}

// SignalName is the name of a signal, or its number where it has none.
func SignalName(s syscall.Signal) string {
	if n := unix.SignalName(s); n != "" {
		return n
	}
	return strconv.Itoa(int(s))
}
