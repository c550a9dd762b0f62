// Package forward is the forwarder: the process that delivers one container's output to syslog, journald, fluentd or
// GELF. The supervisor starts it only for containers that log there, so that others need no network code. It must not
// keep a container waiting: what the remote side does not take in time is dropped, counted and reported.
package forward

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/runtime/spec/logopts"
	"github.com/shoalhq/shoal/runtime/spec/logrecord"
)

// DialTLS connects with TLS. Programs that can set it; shoal-runtime does not, to stay small.
var DialTLS func(address string, files logopts.TLSFiles, timeout time.Duration) (net.Conn, error)

// Times after which a slow or dead remote side costs output.
const (
	dialTimeout  = 5 * time.Second
	writeTimeout = 5 * time.Second
	retryAfter   = 2 * time.Second
	lastChance   = 5 * time.Second // after the container's end
)

// entry is one line, without its newline.
type entry struct {
	at      time.Time
	stderr  bool
	partial bool // it goes on in the stream's next entry
	// piece is nil for a line that is whole; set for all pieces of one that is not, the last included.
	piece *piece
	line  []byte
}

// piece says which piece of which line an entry is, for those who put it together again.
type piece struct {
	id      string
	ordinal int // from 1
}

// follow gives the entry's place behind prev, the entry before it on its stream (nil: none, or it ended its line).
func (p *piece) follow(partial bool) (own, next *piece) {
	switch {
	case p == nil && !partial:
		return nil, nil
	case p == nil:
		p = &piece{id: rand.Text(), ordinal: 1}
	default:
		p = &piece{id: p.id, ordinal: p.ordinal + 1}
	}
	if partial {
		return p, p
	}
	return p, nil
}

// sender delivers entries. connect is called before the first send and after a send has failed.
type sender interface {
	connect() error
	send(e *entry) error
	close()
}

// queueLimit bounds what waits for the remote side.
const queueLimit = 4 << 20

// Main is the whole process; logs.remote tells what it is given. It returns when its input has ended.
func Main() int {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func run(in io.Reader, out io.Writer) error {
	var target spec.LogTarget
	unix.CloseOnExec(3)
	f := os.NewFile(3, "target")
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := json.NewDecoder(io.NewSectionReader(f, 0, st.Size())).Decode(&target); err != nil {
		return err
	}
	f.Close()
	return Forward(target, in, out)
}

// Forward delivers records from in until it ends; it writes "ok" to out when ready and then a line per trouble.
func Forward(target spec.LogTarget, in io.Reader, out io.Writer) error {
	opts, err := logopts.Parse(target.Driver, target.Options)
	if err != nil {
		return err
	}
	tag, err := logopts.Tag(opts.Tag, &target.Info)
	if err != nil {
		return err
	}
	s, lazy, err := newSender(&opts, &target.Info, tag)
	if err != nil {
		return err
	}
	q := &queue{out: out, sender: s, ending: make(chan struct{})}
	q.more.L, q.room.L = &q.mu, &q.mu
	if err := s.connect(); err == nil {
		q.connected = true
	} else if !lazy {
		return err
	}
	fmt.Fprintln(out, "ok")
	done := make(chan struct{})
	go func() {
		q.deliver()
		s.close() // by whoever sends: after the last chance it may still be sending, until the process ends
		close(done)
	}()
	err = q.read(in)
	q.end()
	select {
	case <-done:
	case <-time.After(lastChance):
	}
	return err
}

func newSender(o *logopts.Options, info *spec.LogInfo, tag string) (s sender, lazy bool, err error) {
	switch o.Driver {
	case logopts.Syslog:
		return newSyslog(o.Syslog, tag), false, nil
	case logopts.Journald:
		return newJournal(info, tag), false, nil
	case logopts.GELF:
		return newGELF(o.GELF, info, tag), false, nil
	case logopts.Fluentd:
		return newFluentd(o.Fluentd, info, tag), o.Fluentd.Async, nil
	}
	return nil, false, errs.New(errs.Invalid, "log driver %s needs no forwarder", o.Driver)
}

// queue lies between the container and the remote side.
type queue struct {
	out    io.Writer
	sender sender

	ending    chan struct{} // closed when there is no more input
	mu        sync.Mutex
	more      sync.Cond
	room      sync.Cond
	list      []*entry
	bytes     int
	ended     bool
	connected bool // the deliverer's
	stuck     bool // the remote side does not take anything: do not wait for room
	dropped   int
}

// read cuts records into entries.
func (q *queue) read(in io.Reader) error {
	r := bufio.NewReaderSize(in, 64<<10)
	var head [logrecord.HeaderSize]byte
	var data []byte
	var open [2]*piece // per stream: the line's last piece, while it goes on
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		h, err := logrecord.ParseHeader(head[:])
		if err != nil {
			return err
		}
		if n := h.Size - logrecord.HeaderSize; cap(data) < n {
			data = make([]byte, n)
		}
		data = data[:h.Size-logrecord.HeaderSize]
		if _, err := io.ReadFull(r, data); err != nil {
			return err
		}
		at, i := time.Unix(0, h.Time), 0
		if h.Stderr {
			i = 1
		}
		logrecord.Pieces(data[:h.DataSize()], h.Partial, func(line []byte, partial bool) error {
			e := &entry{at: at, stderr: h.Stderr, partial: partial, line: bytes.Clone(bytes.TrimSuffix(line, []byte{'\n'}))}
			e.piece, open[i] = open[i].follow(partial)
			q.add(e)
			return nil
		})
	}
}

// add waits for room while the remote side is slow, and drops while it is dead.
func (q *queue) add(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.bytes+len(e.line) > queueLimit && len(q.list) > 0 {
		if q.stuck {
			q.dropped++
			return
		}
		q.room.Wait()
	}
	q.list = append(q.list, e)
	q.bytes += len(e.line) + 64
	q.more.Signal()
}

func (q *queue) end() {
	q.mu.Lock()
	q.ended = true
	q.more.Signal()
	q.mu.Unlock()
	close(q.ending)
}

// deliver sends until the end, connecting again when needed.
func (q *queue) deliver() {
	for {
		q.mu.Lock()
		for len(q.list) == 0 && !q.ended {
			q.more.Wait()
		}
		if len(q.list) == 0 {
			q.mu.Unlock()
			return
		}
		batch := q.list
		q.list = nil
		q.mu.Unlock()
		for i, e := range batch {
			if !q.deliverOne(e) {
				q.mu.Lock()
				lost := q.dropped + len(batch) - i + len(q.list)
				q.mu.Unlock()
				fmt.Fprintf(q.out, "the log server does not come back; %d lines were dropped\n", lost)
				return
			}
			q.mu.Lock()
			q.bytes -= len(e.line) + 64
			q.room.Signal()
			q.mu.Unlock()
		}
	}
}

// deliverOne tries until it is sent; false: the container has ended, and even then it cannot be.
func (q *queue) deliverOne(e *entry) bool {
	last := false
	for {
		var err error
		if !q.connected {
			err = q.sender.connect()
		}
		if err == nil {
			q.connected = true
			if err = q.sender.send(e); err == nil {
				q.free()
				return true
			}
			if errors.Is(err, errTooLong) || errors.Is(err, unix.EMSGSIZE) { // however often it is tried
				fmt.Fprintf(q.out, "a line of %d bytes was dropped: %s\n", len(e.line), oneLine(err))
				return true
			}
			q.connected = false
		}
		q.mu.Lock()
		if !q.stuck {
			q.stuck = true
			fmt.Fprintf(q.out, "the log server takes nothing: %s\n", oneLine(err))
		}
		q.room.Broadcast() // who waits for room drops from now on
		q.mu.Unlock()
		if last {
			return false
		}
		select {
		case <-time.After(retryAfter):
		case <-q.ending:
			last = true
		}
	}
}

// free notes that the remote side takes output again.
func (q *queue) free() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stuck {
		fmt.Fprintf(q.out, "the log server is back; %d lines were dropped meanwhile\n", q.dropped)
		q.stuck, q.dropped = false, 0
	}
}

func oneLine(err error) string {
	b := []byte(err.Error())
	for i, c := range b {
		if c == '\n' {
			b[i] = ' '
		}
	}
	return string(b)
}

// stream is a connection that is dialled when needed.
type stream struct {
	network, address string
	tls              *logopts.TLSFiles
	conn             net.Conn
}

func (s *stream) connect() error {
	s.close()
	var err error
	if s.tls != nil {
		if DialTLS == nil {
			return errs.New(errs.Unsupported, "this program cannot connect with TLS: the daemon's configuration must name one that can")
		}
		s.conn, err = DialTLS(s.address, *s.tls, dialTimeout)
	} else {
		s.conn, err = net.DialTimeout(s.network, s.address, dialTimeout)
	}
	if err != nil {
		s.conn = nil
		return errs.New(errs.Unavailable, "connect to the log server %s://%s: %w", s.network, s.address, err)
	}
	return nil
}

func (s *stream) write(b []byte, timeout time.Duration) error {
	s.conn.SetWriteDeadline(time.Now().Add(timeout))
	_, err := s.conn.Write(b)
	if s.network == "udp" && errors.Is(err, unix.ECONNREFUSED) { // that an earlier datagram found nobody; this one was not sent yet
		if _, err = s.conn.Write(b); errors.Is(err, unix.ECONNREFUSED) {
			err = nil // nobody waits for answers of UDP
		}
	}
	return err
}

func (s *stream) close() {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}
