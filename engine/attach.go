package engine

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// startGate holds the clients that attached before a start; the start connects them before the container's program
// runs, so that they miss no byte.
type startGate struct {
	mu      sync.Mutex
	pending []*pendingAttach
}

type pendingAttach struct {
	opts model.AttachOptions
	out  chan attachResult // room for one
}

type attachResult struct {
	conn Conn
	err  error
}

// awaitStart adds a client to those that the next start connects.
func (en *entry) awaitStart(opts model.AttachOptions) *pendingAttach {
	p := &pendingAttach{opts: opts, out: make(chan attachResult, 1)}
	en.mu.Lock()
	defer en.mu.Unlock()
	if en.startGate == nil {
		en.startGate = &startGate{}
	}
	en.startGate.mu.Lock()
	en.startGate.pending = append(en.startGate.pending, p)
	en.startGate.mu.Unlock()
	return p
}

// takeStartGate hands the waiting clients to a start.
func (en *entry) takeStartGate() *startGate {
	en.mu.Lock()
	defer en.mu.Unlock()
	g := en.startGate
	en.startGate = nil
	if g == nil {
		g = &startGate{}
	}
	return g
}

// failAttaches tells the waiting clients that no start will come.
func (en *entry) failAttaches(err error) { en.takeStartGate().fail(err) }

func (g *startGate) take() []*pendingAttach {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := g.pending
	g.pending = nil
	return list
}

// attach connects the waiting clients with the new task. A client that went away is no reason not to start.
func (g *startGate) attach(ctx context.Context, t Task) error {
	for _, p := range g.take() {
		conn, err := t.Streams().Attach(ctx, p.opts.Stdin, p.opts.Stdout, p.opts.Stderr)
		p.out <- attachResult{conn, err}
	}
	return nil
}

func (g *startGate) fail(err error) {
	for _, p := range g.take() {
		p.out <- attachResult{err: err}
	}
}

// cancel withdraws a client; a connection that was made meanwhile is closed.
func (en *entry) cancelAttach(p *pendingAttach) {
	en.mu.Lock()
	g := en.startGate
	en.mu.Unlock()
	if g != nil {
		g.mu.Lock()
		for i, q := range g.pending {
			if q == p {
				g.pending = append(g.pending[:i:i], g.pending[i+1:]...)
				break
			}
		}
		g.mu.Unlock()
	}
	select {
	case r := <-p.out:
		if r.conn != nil {
			r.conn.Close()
		}
	default:
	}
}

// Attach connects a client with a container's streams until the container or the client ends, or the client detaches.
// On a container that does not run, it waits for the next start.
func (e *Engine) Attach(ctx context.Context, ref string, opts model.AttachOptions) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	keys, err := parseDetachKeys(opts.DetachKeys)
	if err != nil {
		return err
	}
	c := en.get()
	switch c.State.Status {
	case model.StatusPaused:
		return errs.New(errs.Conflict, "container %s is paused, unpause the container before attach", c.Name)
	case model.StatusRestarting:
		return errs.New(errs.Conflict, "container %s is restarting, wait until the container is running", c.Name)
	case model.StatusRemoving, model.StatusDead:
		return errs.New(errs.Conflict, "container %s is being removed", c.Name)
	}
	opts.Stdin = opts.Stdin && c.Spec.Process.Stdin.Open
	var conn Conn
	var pending *pendingAttach
	if opts.Stream {
		if t := en.running(); t != nil {
			if conn, err = t.Streams().Attach(ctx, opts.Stdin, opts.Stdout, opts.Stderr); err != nil {
				return errs.Wrap(err, "attach to container %s", c.Name)
			}
			defer conn.Close()
		} else {
			pending = en.awaitStart(opts)
			defer en.cancelAttach(pending)
		}
	}
	streams, err := opts.Ready()
	if err != nil {
		return err
	}
	e.publish(c, "attach", nil)
	if opts.Logs {
		if err := e.replay(ctx, en, opts, streams); err != nil {
			return err
		}
	}
	if pending != nil {
		select {
		case r := <-pending.out:
			if r.err != nil {
				return closeRaw(streams) // the start's own answer tells why
			}
			conn = r.conn
			defer conn.Close()
		case <-ctx.Done():
			return errs.As(errs.KindOf(ctx.Err()), ctx.Err())
		}
	}
	if conn == nil {
		return closeRaw(streams)
	}
	err = pump(ctx, conn, streams, opts.Stdin, c.Spec.Process.Tty, keys)
	if errors.Is(err, errDetached) {
		e.publish(en.get(), "detach", nil)
		return nil
	}
	return err
}

func closeRaw(s model.Streams) error {
	if s.CloseRaw != nil {
		return s.CloseRaw()
	}
	return nil
}

// errDetached says that the client typed the detach keys.
var errDetached = errors.New("detached")

// pump moves bytes between a client and a container until the output ends, the client goes, or it detaches.
func pump(ctx context.Context, conn Conn, s model.Streams, stdin, tty bool, keys []byte) error {
	detached := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if stdin && s.Stdin != nil {
		in := s.Stdin
		if tty && len(keys) > 0 {
			in = &detachReader{r: s.Stdin, keys: keys}
		}
		go func() {
			_, err := io.Copy(conn, in)
			if errors.Is(err, errDetached) {
				close(detached)
				conn.Close()
				return
			}
			conn.CloseWrite()
		}()
	}
	err := copyOutput(conn, s, tty)
	select {
	case <-detached:
		closeRaw(s)
		return errDetached
	default:
	}
	if cerr := ctx.Err(); cerr != nil {
		return errs.As(errs.KindOf(cerr), cerr)
	}
	if err != nil {
		return err
	}
	return closeRaw(s)
}

// copyOutput sends a container's output to the client: the frames as they are to a raw connection, otherwise apart.
func copyOutput(conn Conn, s model.Streams, tty bool) error {
	if s.Raw != nil {
		_, err := io.Copy(s.Raw, conn)
		return err
	}
	stdout, stderr := s.Stdout, s.Stderr
	if stdout == nil {
		stdout = io.Discard
	}
	if stderr == nil {
		stderr = io.Discard
	}
	if tty {
		_, err := io.Copy(stdout, conn)
		return err
	}
	return demultiplex(conn, stdout, stderr)
}

// frameHeader is the size of the header in front of each piece of output: {stream, 0, 0, 0, length big endian}.
const frameHeader = 8

// demultiplex takes frames apart.
func demultiplex(r io.Reader, stdout, stderr io.Writer) error {
	var head [frameHeader]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		w := stdout
		if head[0] == 2 {
			w = stderr
		}
		n := int64(head[4])<<24 | int64(head[5])<<16 | int64(head[6])<<8 | int64(head[7])
		if _, err := io.CopyN(w, r, n); err != nil {
			return err
		}
	}
}

// replay sends what the container printed before.
func (e *Engine) replay(ctx context.Context, en *entry, opts model.AttachOptions, s model.Streams) error {
	tty := en.get().Spec.Process.Tty
	want := model.LogOptions{Stdout: opts.Stdout, Stderr: opts.Stderr, Tail: -1}
	err := e.readLog(ctx, en, want, func(entry model.LogEntry) error { return writeEntry(s, entry, tty) })
	if errs.Is(err, errs.Unsupported) || errs.Is(err, errs.NotFound) {
		return nil // a log driver that cannot be read has nothing to replay
	}
	return err
}

func writeEntry(s model.Streams, entry model.LogEntry, tty bool) error {
	if s.Raw == nil {
		w := s.Stdout
		if entry.Stderr && !tty {
			w = s.Stderr
		}
		if w == nil {
			return nil
		}
		_, err := w.Write(entry.Data)
		return err
	}
	if tty {
		_, err := s.Raw.Write(entry.Data)
		return err
	}
	stream, n := byte(1), len(entry.Data)
	if entry.Stderr {
		stream = 2
	}
	frame := append([]byte{stream, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, entry.Data...)
	_, err := s.Raw.Write(frame)
	return err
}

// Resize sets the size of a container's terminal.
func (e *Engine) Resize(ctx context.Context, ref string, height, width uint) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	t, err := en.mustRun()
	if err != nil {
		return err
	}
	if err := t.Streams().Resize(ctx, "", height, width); err != nil {
		return errs.Wrap(err, "resize the terminal of container %s", en.get().Name)
	}
	e.publish(en.get(), "resize", map[string]string{"height": itoa(uint64(height)), "width": itoa(uint64(width))})
	return nil
}

// Logs emits a container's log entries.
func (e *Engine) Logs(ctx context.Context, ref string, opts model.LogOptions, emit func(model.LogEntry) error) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	if !opts.Stdout && !opts.Stderr {
		return invalid("Bad parameters: you must choose at least one stream")
	}
	return e.readLog(ctx, en, opts, emit)
}

func (e *Engine) readLog(ctx context.Context, en *entry, opts model.LogOptions, emit func(model.LogEntry) error) error {
	c := en.get()
	src := LogSource{ID: c.ID, Target: e.logTarget(c), Running: closedChannel}
	if t := en.running(); t != nil {
		src.Running = t.Done()
	}
	return errs.Wrap(e.ports.Tasks.ReadLog(ctx, src, opts, emit), "logs of container %s", c.Name)
}

var closedChannel = func() chan struct{} { c := make(chan struct{}); close(c); return c }()
