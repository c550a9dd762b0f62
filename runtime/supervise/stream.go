package supervise

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var errTooLong = errors.New("the request line is too long")

// Bounds of what waits for a client that does not read.
const (
	// heldQueue is for clients that attached before the start, and for execs: beyond it the container's output waits
	// for the client, as it would for a pipe.
	heldQueue = 256 << 10
	// observerQueue is for clients that attached later: beyond it the client is disconnected. It can read what it missed
	// from the log.
	observerQueue = 4 << 20
	// stallLimit is how long a client may hold the container up without reading anything at all.
	stallLimit = time.Hour
)

// hub hands the output of one container or exec to its clients.
type hub struct {
	tty     bool
	dropped func(reason string)

	mu      sync.Mutex
	moved   sync.Cond // a queue became shorter, or a client left
	clients map[*client]struct{}
	closed  bool
}

func newHub(tty bool, dropped func(string)) *hub {
	h := &hub{tty: tty, dropped: dropped, clients: map[*client]struct{}{}}
	h.moved.L = &h.mu
	return h
}

// client is one attached connection.
type client struct {
	hub            *hub
	conn           *os.File
	rc             syscall.RawConn
	stdout, stderr bool
	held           bool

	// under hub.mu
	queue    []byte
	flushing bool
	gone     bool
	progress uint64        // bytes ever sent
	done     chan struct{} // closed when the connection is closed
}

func newClient(h *hub, conn *os.File, stdout, stderr, held bool) (*client, error) {
	rc, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &client{hub: h, conn: conn, rc: rc, stdout: stdout, stderr: stderr, held: held, done: make(chan struct{})}, nil
}

// join sends first, the answer to the request, and from then on all output.
func (h *hub) join(c *client, first []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.send(nil, first)
	if h.closed {
		c.finish()
		return
	}
	h.clients[c] = struct{}{}
}

// write hands output to all clients; it returns when all those that hold the container have taken enough of it.
func (h *hub) write(stderr bool, data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.clients) == 0 {
		return
	}
	var head []byte
	if !h.tty {
		var frame [8]byte
		frame[0] = 1
		if stderr {
			frame[0] = 2
		}
		binary.BigEndian.PutUint32(frame[4:], uint32(len(data)))
		head = frame[:]
	}
	for c := range h.clients {
		if stderr && !c.stderr || !stderr && !c.stdout {
			continue
		}
		c.send(head, data)
		if !c.held && len(c.queue) > observerQueue {
			c.drop("a client that attached did not read its output; it was disconnected with more than 4 MiB waiting")
		}
	}
	for c := range h.clients {
		if c.held && len(c.queue) > heldQueue {
			h.await(c)
		}
	}
}

// await waits, with hub.mu, until a client has taken most of what waits for it.
func (h *hub) await(c *client) {
	seen := c.progress
	var timer *time.Timer
	timer = time.AfterFunc(stallLimit, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if c.progress == seen {
			c.drop("a client held the container up for an hour without reading; it was disconnected")
		} else {
			seen = c.progress
			timer.Reset(stallLimit)
		}
	})
	for len(c.queue) > heldQueue && !c.gone && c.held {
		h.moved.Wait()
	}
	timer.Stop()
}

// letGo ends the waiting for clients: the process has ended, and a client that does not read must not keep that from being
// told. It still gets what waits for it, which is no more than the pipes held.
func (h *hub) letGo() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.clients {
		c.held = false
	}
	h.moved.Broadcast()
}

// close ends the stream: every client gets what still waits for it and is then disconnected.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for c := range h.clients {
		c.finish()
	}
}

// empty says whether nobody is attached.
func (h *hub) empty() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.clients) == 0
}

// flushed waits until all clients have been served.
func (h *hub) flushed() {
	h.mu.Lock()
	var wait []*client
	for c := range h.clients {
		wait = append(wait, c)
	}
	h.mu.Unlock()
	for _, c := range wait {
		<-c.done
	}
}

// send writes at once what the connection takes and queues the rest. With hub.mu.
func (c *client) send(head, data []byte) {
	if c.gone {
		return
	}
	if len(c.queue) > 0 {
		c.queue = append(append(c.queue, head...), data...)
		return
	}
	parts := [][]byte{head, data}
	if len(head) == 0 {
		parts = parts[1:]
	}
	n, err := tryWrite(c.rc, parts)
	if err != nil {
		c.drop("")
		return
	}
	c.progress += uint64(n)
	if n < len(head) {
		c.queue = append(append(c.queue, head[n:]...), data...)
	} else if n -= len(head); n < len(data) {
		c.queue = append(c.queue, data[n:]...)
	}
	if len(c.queue) > 0 && !c.flushing {
		c.flushing = true
		go c.flush()
	}
}

// flush writes the queue as the client reads.
func (c *client) flush() {
	h := c.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(c.queue) > 0 && !c.gone {
		chunk := c.queue[:min(len(c.queue), 64<<10)]
		h.mu.Unlock()
		n, err := c.conn.Write(chunk)
		h.mu.Lock()
		c.progress += uint64(n)
		if c.gone {
			break
		}
		if err != nil {
			c.drop("")
			break
		}
		c.queue = c.queue[n:]
		if len(c.queue) == 0 {
			c.queue = nil
		}
		h.moved.Broadcast()
	}
	c.flushing = false
	if h.closed && !c.gone {
		c.end()
	}
}

// finish disconnects the client once its queue is sent. With hub.mu.
func (c *client) finish() {
	if !c.gone && !c.flushing {
		c.end()
	}
}

// drop disconnects the client now. With hub.mu.
func (c *client) drop(reason string) {
	if c.gone {
		return
	}
	if reason != "" && c.hub.dropped != nil {
		c.hub.dropped(reason)
	}
	c.end()
}

// end closes the connection. With hub.mu.
func (c *client) end() {
	c.gone = true
	c.queue = nil
	delete(c.hub.clients, c)
	disconnect(c.conn, c.rc)
	close(c.done)
	c.hub.moved.Broadcast()
}

// disconnect closes a connection such that the peer sees an end and not a reset: input that nobody read is thrown away
// first, after the peer can send no more.
func disconnect(conn *os.File, rc syscall.RawConn) {
	rc.Control(func(p uintptr) {
		unix.Shutdown(int(p), unix.SHUT_RDWR)
		var junk [4096]byte
		for {
			if n, _, err := unix.Recvfrom(int(p), junk[:], unix.MSG_DONTWAIT); n <= 0 || err != nil {
				return
			}
		}
	})
	conn.Close()
}

// leave is called when the client's side was closed altogether.
func (c *client) leave() {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.drop("")
}

// awaitHangup waits until the peer has closed its end altogether, after it ended its input.
func (c *client) awaitHangup() {
	c.rc.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLHUP}}
		n, err := unix.Poll(p, 0)
		return err != nil && err != unix.EINTR || n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
	c.leave()
}

// input is a container's or exec's standard input.
type input struct {
	once    bool     // close it when the first client that sends input ends
	console *os.File // the terminal, when there is one; it is never closed by a client's end

	mu sync.Mutex
	f  *os.File // nil: closed, or there never was one
}

// feed copies a client's bytes, starting with those already read, until the client ends its input.
func (in *input) feed(c *client, first []byte) {
	in.mu.Lock()
	f := in.f
	in.mu.Unlock()
	data := first
	buf := make([]byte, 0)
	for {
		if len(data) > 0 && f != nil {
			if _, err := f.Write(data); err != nil {
				f = nil // the program closed its input: the rest goes nowhere
			}
		}
		if len(buf) == 0 {
			buf = make([]byte, 4096)
		}
		n, err := c.conn.Read(buf)
		if err != nil || n == 0 {
			break
		}
		data = buf[:n]
		if n == len(buf) && n < 64<<10 { // a transfer rather than typing
			buf = make([]byte, 4*n)
		}
	}
	if in.once && in.console == nil {
		in.close()
	}
}

func (in *input) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.f != nil {
		in.f.Close()
		in.f = nil
	}
}
