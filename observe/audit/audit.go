// Package audit keeps the record of who did what over the API: one line of JSON per request, in files of bounded size that
// only root reads. It must not decide what is worth recording, and must never keep a request waiting for longer than a
// write to a file takes.
package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
)

// Record is one request and how it was answered.
type Record struct {
	Time   time.Time `json:"time"`
	Who    Who       `json:"who"`
	Method string    `json:"method"`
	Path   string    `json:"path"`             // without version
	Query  string    `json:"query,omitempty"`  // parameters that name things; never those that may be secret
	Object string    `json:"object,omitempty"` // name or ID that the path has
	// Detail is what the body asks for, of requests that make containers and run programs.
	Detail   map[string]any `json:"detail,omitempty"`
	Status   int            `json:"status"`
	Error    string         `json:"error,omitempty"`
	Duration float64        `json:"ms"` // until the answer began, in milliseconds
}

// Who made the request, as the kernel and the certificate say; empty when neither does.
type Who struct {
	UID     *uint32 `json:"uid,omitempty"` // of the process at the other end of a unix socket, when it connected
	GID     *uint32 `json:"gid,omitempty"`
	PID     int32   `json:"pid,omitempty"`
	CN      string  `json:"cn,omitempty"`      // common name of the client's certificate
	Address string  `json:"address,omitempty"` // of a TCP client
	Socket  string  `json:"socket,omitempty"`  // name of the scoped socket; empty: the full API
}

// Log is a record on disk. Its zero value is not ready: use Open.
type Log struct {
	path  string
	limit int64
	keep  int
	fault func(error)

	mu     sync.Mutex
	f      *os.File
	size   int64
	failed bool // the last write failed; said once
}

// Open opens the log at path for appending. When it has grown to limit bytes it becomes path.1, path.1 becomes path.2 and
// so on; keep old files stay. fault is told when writing begins to fail; requests go on.
func Open(path string, limit int64, keep int, fault func(error)) (*Log, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	l := &Log{path: path, limit: limit, keep: keep, fault: fault}
	return l, errs.Wrap(l.open(), "open the audit log")
}

func (l *Log) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.f, l.size = f, st.Size()
	// A line that a crash cut off must not swallow the next one.
	last := []byte{'\n'}
	if l.size > 0 {
		if _, err := f.ReadAt(last, l.size-1); err == nil && last[0] != '\n' {
			n, _ := f.Write([]byte{'\n'})
			l.size += int64(n)
		}
	}
	return nil
}

// Add appends one record.
func (l *Log) Add(r Record) {
	line, err := json.Marshal(r)
	if err != nil {
		line, _ = json.Marshal(Record{Time: r.Time, Who: r.Who, Method: r.Method, Path: r.Path, Status: r.Status, Error: "this record cannot be encoded: " + err.Error()})
	}
	line = append(line, '\n')
	l.mu.Lock()
	err = l.write(line)
	tell := err != nil && !l.failed
	l.failed = err != nil
	l.mu.Unlock()
	if tell && l.fault != nil {
		l.fault(errs.Wrap(err, "the audit log %s cannot be written", l.path))
	}
}

func (l *Log) write(line []byte) error {
	if l.f == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	if l.size > 0 && l.size+int64(len(line)) > l.limit {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	n, err := l.f.Write(line)
	l.size += int64(n)
	return err
}

func (l *Log) rotate() error {
	l.f.Close()
	l.f = nil
	for i := l.keep; i > 1; i-- {
		if err := os.Rename(l.old(i-1), l.old(i)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	var err error
	if l.keep > 0 {
		err = os.Rename(l.path, l.old(1))
	} else {
		err = os.Remove(l.path)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return l.open()
}

func (l *Log) old(i int) string { return l.path + "." + strconv.Itoa(i) }

// Tail gives the last n records since the time, oldest first; lines that are no records are left out.
func (l *Log) Tail(n int, since time.Time) ([]Record, error) {
	var out []Record
	for i := 0; i <= l.keep && len(out) < n; i++ {
		path := l.path
		if i > 0 {
			path = l.old(i)
		}
		list, err := read(path, since)
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, err
		}
		out = append(list, out...)
	}
	return out[max(0, len(out)-n):], nil
}

func read(path string, since time.Time) (out []Record, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return decode(f, since)
}

func decode(r io.Reader, since time.Time) (out []Record, err error) {
	b := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := b.ReadBytes('\n')
		var rec Record
		if line = bytes.TrimSpace(line); len(line) > 0 && json.Unmarshal(line, &rec) == nil && !rec.Time.Before(since) {
			out = append(out, rec)
		}
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
	}
}

// Close closes the file.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	f := l.f
	l.f = nil
	return f.Close()
}
