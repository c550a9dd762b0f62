package server

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Media types of streams; before 1.42 both kinds were called raw.
const (
	rawStream         = "application/vnd.docker.raw-stream"
	multiplexedStream = "application/vnd.docker.multiplexed-stream"
)

func streamType(tty bool, v types.Version) string {
	if tty || v < 42 {
		return rawStream
	}
	return multiplexedStream
}

// takeover turns a request's connection into a stream, when the room behind is ready and not before: until then errors
// are ordinary answers.
type takeover struct {
	s     *Server
	w     http.ResponseWriter
	r     *http.Request
	v     types.Version
	tty   bool
	stdin bool // the client's input is wanted
	gone  func()

	once    sync.Once
	conn    net.Conn
	release func()
}

// ready is model.AttachOptions.Ready.
func (t *takeover) ready() (model.Streams, error) {
	conn, buf, err := http.NewResponseController(t.w).Hijack()
	if err != nil {
		return model.Streams{}, errs.New(errs.Invalid, "this connection cannot become a stream: %w; use HTTP/1.1", err)
	}
	release, err := t.s.track(conn)
	if err != nil {
		conn.Close()
		return model.Streams{}, err
	}
	t.conn, t.release = conn, release
	if err := t.answer(); err != nil {
		t.close()
		return model.Streams{}, errs.New(errs.Canceled, "answer the client: %w", err)
	}
	var in io.Reader = conn
	if n := buf.Reader.Buffered(); n > 0 { // input that came together with the request
		early, _ := buf.Reader.Peek(n)
		in = io.MultiReader(bytes.NewReader(bytes.Clone(early)), conn)
	}
	in = &endNoticer{Reader: in, end: func(err error) { go t.awaitHangup(err) }}
	out := model.Streams{Raw: conn, CloseRaw: func() error { return closeWrite(conn) }}
	if t.stdin {
		out.Stdin = in
	} else {
		go io.Copy(io.Discard, in) // a client that has nothing to say
	}
	return out, nil
}

// readyFramed is ready for a client that expects frames of what has a terminal and comes without.
func (t *takeover) readyFramed() (model.Streams, error) {
	s, err := t.ready()
	if err != nil {
		return s, err
	}
	s.Raw, s.Stdout = nil, frameWriter{t.conn}
	return s, nil
}

// frameWriter writes everything as frames of standard output.
type frameWriter struct{ conn net.Conn }

func (w frameWriter) Write(p []byte) (int, error) {
	if _, err := w.conn.Write(appendFrame(nil, false, p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// answer writes the upgrade answer, or the plain one for clients that did not ask for an upgrade.
func (t *takeover) answer() error {
	var b bytes.Buffer
	if t.r.Header.Get("Upgrade") != "" {
		fmt.Fprintf(&b, "HTTP/1.1 101 UPGRADED\r\nContent-Type: %s\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n", streamType(t.tty, t.v))
	} else {
		fmt.Fprintf(&b, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\n", rawStream)
	}
	t.w.Header().WriteSubset(&b, map[string]bool{"Content-Type": true})
	b.WriteString("\r\n")
	_, err := t.conn.Write(b.Bytes())
	return err
}

// endNoticer calls end once, when the input ended.
type endNoticer struct {
	io.Reader
	end func(error)
}

func (r *endNoticer) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && r.end != nil {
		r.end(err)
		r.end = nil
	}
	return n, err
}

// awaitHangup calls gone when the client has left altogether. The end of its input is no sign of that: clients close that
// half early and go on reading. The kernel tells the two apart on a unix socket, and wakes us when it happens; on TCP only
// the next write tells.
func (t *takeover) awaitHangup(err error) {
	if !errors.Is(err, io.EOF) {
		t.gone()
		return
	}
	conn, ok := t.conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	left := false
	raw.Read(func(fd uintptr) bool { // called again whenever the state of the socket changes
		p := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(p, 0)
		left = err == nil && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
		return left
	})
	if left {
		t.gone()
	}
}

// finish ends the stream. An error that comes after the upgrade is told in the stream itself, on standard error.
func (t *takeover) finish(err error) error {
	if t.conn == nil {
		return err
	}
	if err != nil && !errs.Is(err, errs.Canceled) {
		t.conn.Write(errorFrame(err, t.tty))
	}
	closeWrite(t.conn)
	t.close()
	return nil
}

func (t *takeover) close() {
	t.once.Do(func() {
		t.conn.Close()
		t.release()
	})
}

// errorFrame is a message as the client's standard error shows it.
func errorFrame(err error, tty bool) []byte {
	text := err.Error() + "\r\n"
	if tty {
		return []byte(text)
	}
	return appendFrame(nil, true, []byte(text))
}

// appendFrame appends data as one frame of the multiplexed stream: stream number, three zero bytes, length, data.
func appendFrame(b []byte, stderr bool, data []byte) []byte {
	stream := byte(1)
	if stderr {
		stream = 2
	}
	b = append(b, stream, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func closeWrite(conn net.Conn) error {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}
