package logs

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/runtime/spec/logrecord"
)

// remote is a driver that another process, the forwarder, does: it gets records of the format local on its standard
// input, the target as JSON on fd 3, and reports on standard output: "ok" when it is ready, or why not; later a line for
// every trouble. Output that the remote side does not take is dropped by the forwarder in the end, so that a dead log
// server never stops a container.
type remote struct {
	target    spec.LogTarget
	opts      Options
	mu        sync.Mutex
	in        *os.File // the forwarder's standard input
	proc      *os.Process
	lost      int64
	restarted time.Time
	head      [logrecord.HeaderSize]byte
	tail      [logrecord.TrailerSize]byte
}

// readyTimeout is how long a container's start waits for its log server.
const readyTimeout = 15 * time.Second

// restartAfter is the least time between two forwarders of one container.
const restartAfter = 10 * time.Second

func openRemote(target spec.LogTarget, o Options) (*remote, error) {
	r := &remote{target: target, opts: o}
	if len(o.Forwarder) == 0 {
		return nil, errs.New(errs.Unsupported, "there is no forwarder program")
	}
	return r, r.start()
}

// copied is a remote driver with a bounded local copy for reading, which has everything also when the remote side is slow and
// the mode is non-blocking.
type copied struct {
	copy *local
	Driver
}

// Log writes the copy and hands the batch on.
func (c *copied) Log(b Batch) error {
	err := c.copy.Log(b)
	if serr := c.Driver.Log(b); err == nil {
		err = serr
	}
	return err
}

// Close ends both.
func (c *copied) Close() error {
	err := c.Driver.Close()
	if cerr := c.copy.Close(); err == nil {
		err = cerr
	}
	return err
}

// start runs a forwarder and waits until it is ready.
func (r *remote) start() error {
	in, inw, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	said, saidw, err := os.Pipe()
	if err != nil {
		inw.Close()
		return err
	}
	defer saidw.Close()
	fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
	if err != nil {
		inw.Close()
		said.Close()
		return err
	}
	target := os.NewFile(uintptr(fd), "log")
	defer target.Close()
	data, err := json.Marshal(r.target)
	if err == nil {
		_, err = target.WriteAt(data, 0)
	}
	var p *os.Process
	if err == nil {
		p, err = os.StartProcess(r.opts.Forwarder[0], r.opts.Forwarder, &os.ProcAttr{Dir: "/", Env: []string{"GOMAXPROCS=1"},
			Files: []*os.File{in, saidw, saidw, target}, Sys: &syscall.SysProcAttr{Setsid: true}})
	}
	saidw.Close()
	if err != nil {
		inw.Close()
		said.Close()
		return err
	}
	said.SetReadDeadline(time.Now().Add(readyTimeout))
	lines := bufio.NewReaderSize(said, 512)
	line, err := lines.ReadString('\n')
	if line != "ok\n" {
		p.Kill()
		p.Wait()
		inw.Close()
		said.Close()
		if line = strings.TrimSpace(line); line == "" {
			return errs.New(errs.Unavailable, "the log server did not answer within %s", readyTimeout)
		}
		return errs.New(errs.Unavailable, "%s", line)
	}
	said.SetReadDeadline(time.Time{})
	go r.listen(said, lines)
	r.mu.Lock()
	r.in, r.proc, r.restarted = inw, p, time.Now()
	r.mu.Unlock()
	return nil
}

// listen passes the forwarder's troubles on.
func (r *remote) listen(said *os.File, lines *bufio.Reader) {
	defer said.Close()
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		r.mu.Lock()
		r.lost++
		n := r.lost
		r.mu.Unlock()
		if r.opts.Dropped != nil {
			r.opts.Dropped(n, strings.TrimSpace(line))
		}
	}
}

// Log hands a batch to the forwarder.
func (r *remote) Log(b Batch) error {
	r.mu.Lock()
	in := r.in
	r.mu.Unlock()
	logrecord.PutHeader(&r.head, &r.tail, len(b.Data), b.Stderr, b.Partial, b.Time.UnixNano())
	var err error
	for _, part := range [][]byte{r.head[:], b.Data, r.tail[:]} {
		if _, err = in.Write(part); err != nil {
			break
		}
	}
	if err == nil {
		return nil
	}
	r.mu.Lock()
	again := time.Since(r.restarted) > restartAfter
	r.restarted = time.Now()
	r.mu.Unlock()
	if !again {
		return errs.Wrap(err, "the log forwarder is gone")
	}
	r.in.Close()
	r.proc.Wait()
	if err := r.start(); err != nil {
		return err
	}
	return r.Log(b)
}

// Close lets the forwarder deliver what it has; it ends by itself when the remote side does not take it.
func (r *remote) Close() error {
	r.in.Close()
	r.proc.Wait()
	return nil
}
