package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"

	"github.com/shoalhq/shoal/cli/terminal"
)

// session is a person, or a pipe, attached to a container.
type session struct {
	app    *App
	id     string
	tty    bool
	keys   []byte
	attach moby.ContainerAttachOptions
	conn   moby.HijackedResponse
	open   bool
}

// waiting is the answer to come of a wait request.
type waiting struct {
	result <-chan container.WaitResponse
	err    <-chan error
}

// connect attaches and registers the wait, both at once, so that neither output nor the exit is missed.
func (s *session) connect(ctx context.Context, condition container.WaitCondition) (waiting, error) {
	api := s.app.client
	registered := make(chan moby.ContainerWaitResult, 1)
	go func() { registered <- api.ContainerWait(ctx, s.id, moby.ContainerWaitOptions{Condition: condition}) }()
	att, err := api.ContainerAttach(ctx, s.id, s.attach)
	w := <-registered
	if err != nil {
		return waiting{}, err
	}
	s.conn, s.open = att.HijackedResponse, true
	return waiting{w.Result, w.Error}, nil
}

func (s *session) close() {
	if s.open {
		s.conn.Close()
		s.open = false
	}
}

// finish copies the streams until the container ends, and gives its exit code as an error.
func (s *session) finish(ctx context.Context, w waiting) error {
	if err := s.copy(ctx); err != nil {
		if errors.Is(err, terminal.ErrDetached) {
			fmt.Fprintln(s.app.Err) // the shell's prompt goes on a line of its own
			return nil
		}
		if s.app.debug {
			s.app.warn("copying the container's streams: %v", err)
		}
	}
	return w.exitCode()
}

func (s *session) copy(ctx context.Context) error {
	a := s.app
	st := &terminal.Stream{Conn: s.conn.Conn, Reader: s.conn.Reader, CloseWrite: s.conn.CloseWrite, TTY: s.tty}
	if s.attach.Stdin {
		st.In = a.In
		if s.tty {
			st.Keys = s.keys
		}
	}
	if s.attach.Stdout {
		st.Out = a.Out
	}
	if s.attach.Stderr && !s.tty {
		st.Err = a.Err
	}
	if s.tty && st.Out == nil && s.attach.Stderr {
		st.Out = a.Err
	}
	if s.tty {
		restore := a.rawTerminal(s.attach.Stdin)
		defer restore()
		stop := a.followSize(func(rows, cols uint) error {
			_, err := a.client.ContainerResize(ctx, s.id, moby.ContainerResizeOptions{Height: rows, Width: cols})
			return err
		})
		defer stop()
	}
	return st.Run(ctx)
}

// rawTerminal puts the terminals into raw mode; what it gives back takes that back and may be called more than once.
func (a *App) rawTerminal(stdin bool) func() {
	undo := []func(){}
	if t := terminalOf(a.Out); t != nil {
		if r, err := t.RawOutput(); err == nil {
			undo = append(undo, r)
		}
	}
	if t := terminalOf(a.In); t != nil && stdin {
		if r, err := t.Raw(); err == nil {
			undo = append(undo, r)
		}
	}
	return func() {
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}
}

// followSize tells resize the terminal's size now and at every change.
func (a *App) followSize(resize func(rows, cols uint) error) (stop func()) {
	t := terminalOf(a.Out)
	if t == nil {
		return func() {}
	}
	set := func(rows, cols uint) {
		if rows > 0 && cols > 0 {
			_ = resize(rows, cols)
		}
	}
	go func() {
		if rows, cols, err := t.Size(); err == nil {
			set(rows, cols)
		}
	}()
	return t.OnResize(set)
}

// exitCode waits for the container's end and gives its exit code, if it is not zero, as an error that says nothing.
func (w waiting) exitCode() error {
	select {
	case r := <-w.result:
		if r.Error != nil {
			return exit{code: 125, err: errors.New("Error waiting for container: " + r.Error.Message)}
		}
		if r.StatusCode != 0 {
			return exit{code: int(r.StatusCode)}
		}
		return nil
	case err := <-w.err:
		if err == nil {
			err = errConnectionLost
		}
		return exit{code: 125, err: errors.Join(errConnectionLost, err)}
	}
}

// within waits for the end no longer than d.
func (w waiting) within(d time.Duration) {
	select {
	case <-w.result:
	case <-w.err:
	case <-time.After(d):
	}
}
