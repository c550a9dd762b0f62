package supervise

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/runtime/logs"
)

// output is where a process' output goes: to its clients, and for the container's own process to the log.
type output struct {
	buf *buffers
	hub *hub

	reading sync.WaitGroup
	streams []*stream

	name     string // of the log driver
	buffered bool   // it holds output back
	mu       sync.Mutex
	driver   logs.Driver // under mu
	lost     string      // the first trouble of the log, under mu
}

// stream is one of a process' output streams. split and ended belong to its reader.
type stream struct {
	f      *os.File
	stderr bool
	split  logs.Splitter
	ended  bool
}

func newOutput(buf *buffers, h *hub) *output { return &output{buf: buf, hub: h} }

// newOutput is the output of the container's own process, which is logged.
func (s *supervisor) newOutput(h *hub, driver logs.Driver) *output {
	o := newOutput(&s.buf, h)
	o.driver, o.name = driver, s.cfg.Log.Driver
	o.buffered = s.cfg.Log.Options["mode"] == "non-blocking"
	return o
}

// read starts reading a stream to its end.
func (o *output) read(f *os.File, stderr bool) { o.resume(f, stderr, nil) }

// resume is read, with the beginning of a line that was read before.
func (o *output) resume(f *os.File, stderr bool, part []byte) {
	if f == nil {
		return
	}
	st := &stream{f: f, stderr: stderr}
	o.streams = append(o.streams, st)
	logged := o.driver != nil
	o.reading.Go(func() {
		var at time.Time
		emit := func(data []byte, partial bool) {
			o.log(logs.Batch{Time: at, Stderr: stderr, Partial: partial, Data: data})
		}
		st.split.Feed(part, emit)
		o.buf.pump(f, func(data []byte) {
			o.hub.write(stderr, data)
			if logged {
				at = time.Now()
				st.split.Feed(data, emit)
			}
		}, func() {
			at = time.Now()
			st.split.Flush(emit)
			st.ended = true
		})
	})
}

func (o *output) log(b logs.Batch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.driver == nil {
		return
	}
	if err := o.driver.Log(b); err != nil && o.lost == "" {
		o.lost = err.Error()
	}
}

// drain waits for the end of all streams after the process has ended. Others may hold its pipes open; what they print is
// taken for a short time only. Everything the process itself printed is in the pipes already, and is taken first.
func (o *output) drain(limit time.Duration) {
	done := make(chan struct{})
	go func() {
		o.reading.Wait()
		close(done)
	}()
	timer := time.AfterFunc(limit, func() {
		o.hub.letGo()
		for _, st := range o.streams {
			st.f.SetReadDeadline(time.Unix(1, 0))
		}
	})
	<-done
	timer.Stop()
	for _, st := range o.streams {
		st.f.Close()
	}
}

// closeLog flushes the log and says what was lost.
func (o *output) closeLog() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.driver == nil {
		return ""
	}
	if err := o.driver.Close(); err != nil && o.lost == "" {
		o.lost = err.Error()
	}
	o.driver = nil
	return o.lost
}

// pipes are the streams of a process without a terminal.
type pipes struct {
	theirs                [3]*os.File
	stdin, stdout, stderr *os.File
}

// pipeSize is what the kernel is asked to hold for a container that prints faster than it is read.
const pipeSize = 256 << 10

// makePipes makes the pipes that are wanted, and /dev/null for the others. A terminal needs none.
func makePipes(tty, in, out, errOut bool) (*pipes, error) {
	p := &pipes{}
	if tty {
		return p, nil
	}
	for i, want := range []bool{in, out, errOut} {
		if !want {
			null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err != nil {
				p.closeOurs()
				p.closeTheirs()
				return nil, err
			}
			p.theirs[i] = null
			continue
		}
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			p.closeOurs()
			p.closeTheirs()
			return nil, err
		}
		ours, theirs := fds[0], fds[1]
		if i == 0 {
			ours, theirs = fds[1], fds[0]
		} else {
			unix.FcntlInt(uintptr(ours), unix.F_SETPIPE_SZ, pipeSize) // refused beyond the user's limit: then it is 64 KiB
		}
		p.theirs[i] = os.NewFile(uintptr(theirs), "stream")
		f, err := pollable(ours, "stream")
		if err != nil {
			p.closeOurs()
			p.closeTheirs()
			return nil, err
		}
		*[]**os.File{&p.stdin, &p.stdout, &p.stderr}[i] = f
	}
	return p, nil
}

func (p *pipes) closeTheirs() {
	for i, f := range p.theirs {
		if f != nil {
			f.Close()
			p.theirs[i] = nil
		}
	}
}

func (p *pipes) closeOurs() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			f.Close()
		}
	}
}
