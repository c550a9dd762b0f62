package server

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// logTime is the time in front of log lines: always nine digits, so that lines align.
const logTime = "2006-01-02T15:04:05.000000000Z07:00"

func logOptions(q query, v types.Version) (o model.LogOptions, err error) {
	o = model.LogOptions{Stdout: q.bool("stdout"), Stderr: q.bool("stderr"), Follow: q.bool("follow"), Details: q.bool("details"), Tail: -1}
	if !o.Stdout && !o.Stderr {
		return o, errs.New(errs.Invalid, "Bad parameters: you must choose at least one stream; add stdout=1 or stderr=1")
	}
	if o.Since, err = q.time("since"); err != nil {
		return o, err
	}
	if v >= 35 {
		if o.Until, err = q.time("until"); err != nil {
			return o, err
		}
	}
	if tail := q.Get("tail"); tail != "" && tail != "all" {
		n, err := strconv.Atoi(tail)
		if err != nil {
			return o, errs.New(errs.Invalid, "tail=%q is neither a number of lines nor \"all\"", tail)
		}
		if n >= 0 {
			o.Tail = n
		}
	}
	return o, nil
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	o, err := logOptions(q, v)
	if err != nil {
		return err
	}
	view, err := s.b.Containers.Inspect(r.Context(), r.PathValue("name"), false)
	if err != nil {
		return err
	}
	ctx, cancel := s.untilClosing(r.Context())
	defer cancel()
	tty, times := view.Spec.Process.Tty, q.bool("timestamps")
	w.Header().Set("Content-Type", streamType(tty, v))
	out := newBatcher(w, cancel)
	defer out.close()
	began := false
	begin := func() {
		if !began {
			began = true
			w.WriteHeader(http.StatusOK)
			out.start()
		}
	}
	if o.Follow { // tell the client that the request stands, though nothing may come for long
		began = true
		w.WriteHeader(http.StatusOK)
		flush(w)
		out.start()
	}
	partial := [2]bool{} // per stream: the line goes on, no new prefix
	err = s.b.Streams.Logs(ctx, view.ID, o, func(e model.LogEntry) error {
		begin()
		i := 0
		if e.Stderr {
			i = 1
		}
		prefix := ""
		if !partial[i] {
			prefix = logPrefix(&e, times, o.Details)
		}
		partial[i] = e.Partial
		return out.add(func(b []byte) []byte {
			if !tty {
				n := len(prefix) + len(e.Data)
				stream := byte(1)
				if e.Stderr {
					stream = 2
				}
				b = append(b, stream, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
			}
			return append(append(b, prefix...), e.Data...)
		})
	})
	switch {
	case err != nil && !began:
		w.Header().Del("Content-Type")
		return err
	case err != nil && ctx.Err() == nil:
		out.add(func(b []byte) []byte {
			return append(b, errorFrame(errs.Wrap(err, "the log ends here"), tty)...)
		})
	case !began:
		w.WriteHeader(http.StatusOK)
	}
	return nil
}

// logPrefix is the time and the attributes in front of a line.
func logPrefix(e *model.LogEntry, times, details bool) string {
	var b strings.Builder
	if times {
		b.WriteString(e.Time.UTC().Format(logTime))
		b.WriteByte(' ')
	}
	if details {
		keys := make([]string, 0, len(e.Attrs))
		for k := range e.Attrs {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for i, k := range keys {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(url.QueryEscape(k) + "=" + url.QueryEscape(e.Attrs[k]))
		}
		b.WriteByte(' ')
	}
	return b.String()
}

// batcher writes many small pieces in few large writes: pieces gather while a write is under way, and are sent at once when
// none is. Its producer waits when too much has gathered.
type batcher struct {
	w      http.ResponseWriter
	failed context.CancelFunc

	mu      sync.Mutex
	more    sync.Cond // something to write, or closed
	space   sync.Cond // something was taken
	pending []byte
	spare   []byte
	closed  bool
	err     error
	done    chan struct{}
}

const batchLimit = 256 << 10

func newBatcher(w http.ResponseWriter, failed context.CancelFunc) *batcher {
	b := &batcher{w: w, failed: failed}
	b.more.L, b.space.L = &b.mu, &b.mu
	return b
}

func (b *batcher) start() {
	b.done = make(chan struct{})
	go b.run()
}

func (b *batcher) run() {
	defer close(b.done)
	b.mu.Lock()
	for {
		for len(b.pending) == 0 && !b.closed {
			b.more.Wait()
		}
		if len(b.pending) == 0 {
			b.mu.Unlock()
			return
		}
		out := b.pending
		b.pending = b.spare[:0]
		b.space.Signal()
		b.mu.Unlock()
		_, err := b.w.Write(out)
		flush(b.w)
		b.mu.Lock()
		b.spare = out
		if err != nil {
			b.err = err
			b.space.Signal()
			b.mu.Unlock()
			b.failed()
			return
		}
	}
}

// add appends a piece.
func (b *batcher) add(piece func([]byte) []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.pending) >= batchLimit && b.err == nil {
		b.space.Wait()
	}
	if b.err != nil {
		return b.err
	}
	b.pending = piece(b.pending)
	b.more.Signal()
	return nil
}

// close waits until everything is written.
func (b *batcher) close() {
	b.mu.Lock()
	b.closed = true
	b.more.Signal()
	b.mu.Unlock()
	if b.done != nil {
		<-b.done
	}
}
