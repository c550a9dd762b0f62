package terminal

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/moby/moby/api/pkg/stdcopy"
)

// Stream is the copying between a person's streams and an attached container or exec.
type Stream struct {
	Conn       net.Conn
	Reader     io.Reader // what the container prints, possibly with bytes read ahead
	CloseWrite func() error
	In         io.Reader // nil: the container's stdin is not attached
	Out, Err   io.Writer // nil: not attached
	TTY        bool      // one raw stream; otherwise frames of stdout and stderr
	Keys       []byte    // that detach; nil: none
}

// Run copies until the container closes its output, the keys that detach are pressed (ErrDetached) or ctx ends. When
// input ends, the container's stdin is closed and output goes on.
func (s *Stream) Run(ctx context.Context) error {
	out := make(chan error, 1)
	if s.Out != nil || s.Err != nil {
		go func() { out <- s.copyOut() }()
	}
	in := make(chan error, 1)
	if s.In != nil {
		go func() { in <- s.copyIn() }()
	}
	for {
		select {
		case err := <-out:
			return err
		case err := <-in:
			if errors.Is(err, ErrDetached) {
				_ = s.Conn.Close()
				return ErrDetached
			}
			if s.Out == nil && s.Err == nil {
				return nil
			}
			in = nil
		case <-ctx.Done():
			_ = s.Conn.Close()
			return ctx.Err()
		}
	}
}

func (s *Stream) copyOut() error {
	o, e := s.Out, s.Err
	if o == nil {
		o = io.Discard
	}
	if e == nil {
		e = io.Discard
	}
	var err error
	if s.TTY {
		_, err = io.Copy(o, s.Reader)
	} else {
		_, err = stdcopy.StdCopy(o, e, s.Reader)
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (s *Stream) copyIn() error {
	_, err := io.Copy(s.Conn, DetachReader(s.In, s.Keys))
	if errors.Is(err, ErrDetached) {
		return err
	}
	// A container that has ended, or does not read, is no error of ours: its output tells.
	_ = s.CloseWrite()
	return nil
}
