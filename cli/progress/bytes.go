package progress

import (
	"fmt"
	"io"
	"sync"
	"time"

	units "github.com/docker/go-units"
)

// Bytes counts what passes through a reader or writer and, once it has taken longer than a second, shows the count ten
// times a second, redrawing one line.
type Bytes struct {
	screen Screen
	label  string
	total  int64 // 0: unknown
	mu     sync.Mutex
	n      int64
	start  time.Time
	last   time.Time
	drawn  bool
	now    func() time.Time
}

// NewBytes makes a counter; nothing is shown when the screen is no terminal.
func NewBytes(s Screen, label string, total int64, now func() time.Time) *Bytes {
	return &Bytes{screen: s, label: label, total: total, start: now(), now: now}
}

// Reader counts what is read from r.
func (b *Bytes) Reader(r io.Reader) io.Reader { return &countingReader{r, b} }

// Writer counts what is written to w.
func (b *Bytes) Writer(w io.Writer) io.Writer { return &countingWriter{w, b} }

// Total is the number of bytes so far.
func (b *Bytes) Total() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

// Done wipes the line.
func (b *Bytes) Done() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.drawn {
		fmt.Fprint(b.screen.Out, "\r\x1b[2K")
		b.drawn = false
	}
}

func (b *Bytes) add(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n += int64(n)
	if b.screen.Width == 0 {
		return
	}
	t := b.now()
	if t.Sub(b.start) < time.Second || t.Sub(b.last) < 100*time.Millisecond {
		return
	}
	b.last, b.drawn = t, true
	_, columns := b.screen.now()
	speed := units.HumanSize(float64(b.n)/t.Sub(b.start).Seconds()) + "/s"
	line := fmt.Sprintf("%s %s  %s", b.label, units.HumanSize(float64(b.n)), speed)
	if b.total > 0 {
		line = fmt.Sprintf("%s %s/%s (%d%%)  %s", b.label, units.HumanSize(float64(b.n)), units.HumanSize(float64(b.total)), min(b.n*100/b.total, 100), speed)
	}
	fmt.Fprintf(b.screen.Out, "\r\x1b[2K%s", cut(line, columns-1))
}

type countingReader struct {
	io.Reader
	b *Bytes
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.b.add(n)
	return n, err
}

type countingWriter struct {
	io.Writer
	b *Bytes
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.b.add(n)
	return n, err
}
