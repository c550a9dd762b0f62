// Package terminal is what interactive verbs need of a terminal: raw mode that is always taken back, its size, the keys
// that detach, and the copying between a terminal and an attached container. It must not know verbs or flags.
package terminal

import (
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Terminal is a file that is a terminal.
type Terminal struct {
	fd int
}

// Of gives the terminal that f is, or nil.
func Of(f *os.File) *Terminal {
	if f == nil || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return &Terminal{fd: int(f.Fd())}
}

// Size gives the rows and columns.
func (t *Terminal) Size() (rows, cols uint, err error) {
	ws, err := unix.IoctlGetWinsize(t.fd, unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0, err
	}
	return uint(ws.Row), uint(ws.Col), nil
}

// Raw puts the terminal into raw mode and gives what takes that back; calling it again does nothing.
func (t *Terminal) Raw() (restore func(), err error) {
	state, err := term.MakeRaw(t.fd)
	if err != nil {
		return func() {}, err
	}
	return sync.OnceFunc(func() { _ = term.Restore(t.fd, state) }), nil
}

// RawOutput switches off the translation of newlines on output, which the container's terminal has already done, and
// leaves input alone.
func (t *Terminal) RawOutput() (restore func(), err error) {
	old, err := unix.IoctlGetTermios(t.fd, unix.TCGETS)
	if err != nil {
		return func() {}, err
	}
	raw := *old
	raw.Oflag &^= unix.OPOST
	if err := unix.IoctlSetTermios(t.fd, unix.TCSETS, &raw); err != nil {
		return func() {}, err
	}
	return sync.OnceFunc(func() { _ = unix.IoctlSetTermios(t.fd, unix.TCSETS, old) }), nil
}

// OnResize calls do with the size whenever it changes, until stop is called.
func (t *Terminal) OnResize(do func(rows, cols uint)) (stop func()) {
	ch := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(ch, unix.SIGWINCH)
	go func() {
		for {
			select {
			case <-ch:
				if r, c, err := t.Size(); err == nil {
					do(r, c)
				}
			case <-done:
				return
			}
		}
	}()
	return sync.OnceFunc(func() { signal.Stop(ch); close(done) })
}
