package supervise

import (
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pollable makes a file of a descriptor, such that goroutines which wait for it cost no thread.
func pollable(fd int, name string) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// pollableCopy makes a second, pollable file of what f refers to.
func pollableCopy(f *os.File) (*os.File, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, ferr := -1, error(nil)
	if err := rc.Control(func(p uintptr) { fd, ferr = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return nil, err
	}
	if ferr != nil {
		return nil, ferr
	}
	return pollable(fd, f.Name())
}

// child is a process that is waited for without a thread of its own: its pidfd tells when it has ended.
type child struct {
	pid    int
	pidfd  *os.File // nil on a kernel without pidfds, or when it was gone at once
	rc     syscall.RawConn
	reaped chan struct{} // closed when ws and err are there
	ws     unix.WaitStatus
	err    error
}

// followPid waits for a child; ended, when not nil, is called with calm held for reading when it has ended.
func followPid(pid int, calm *calm, ended func()) *child {
	c := &child{pid: pid, reaped: make(chan struct{})}
	if fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK); err == nil {
		c.pidfd = os.NewFile(uintptr(fd), "pidfd")
		c.rc, _ = c.pidfd.SyscallConn()
	}
	go c.wait(calm, ended)
	return c
}

func (c *child) wait(calm *calm, ended func()) {
	defer close(c.reaped)
	if c.rc == nil {
		_, c.err = wait4(c.pid, &c.ws, 0)
		return
	}
	err := c.rc.Read(func(uintptr) bool {
		calm.RLock()
		defer calm.RUnlock()
		var got int
		got, c.err = wait4(c.pid, &c.ws, unix.WNOHANG)
		if got == 0 && c.err == nil {
			return false
		}
		if ended != nil {
			ended()
		}
		return true
	})
	if c.err == nil {
		c.err = err
	}
}

// close gives the pidfd back.
func (c *child) close() {
	if c.pidfd != nil {
		c.pidfd.Close()
	}
}

// signal reaches this process and never another that got its pid.
func (c *child) signal(sig syscall.Signal) error {
	if c.rc == nil {
		select {
		case <-c.reaped:
			return syscall.ESRCH
		default:
			return syscall.Kill(c.pid, sig)
		}
	}
	err := error(syscall.ESRCH)
	c.rc.Control(func(fd uintptr) { err = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	return err
}

func wait4(pid int, ws *unix.WaitStatus, flags int) (int, error) {
	for {
		got, err := unix.Wait4(pid, ws, flags, nil)
		if err != unix.EINTR {
			return got, err
		}
	}
}

// exitCode is what a wait status means to users.
func exitCode(ws unix.WaitStatus) (code, signal int) {
	if ws.Signaled() {
		return 128 + int(ws.Signal()), int(ws.Signal())
	}
	return ws.ExitStatus(), 0
}

// bufferSize is how much is read from a container at once.
const bufferSize = 128 << 10

// trimAfter is how long after the last activity memory is given back.
const trimAfter = 2 * time.Second

// buffers lends read buffers while there is something to read. They are mapped outside the Go heap, so that they can be
// given back to the kernel without a garbage collection.
type buffers struct {
	mu    sync.Mutex
	free  [][]byte
	armed atomic.Bool
	trim  func()
	calm  *calm
}

// calm is held for reading by whoever is at work, so that whoever holds it for writing knows that nobody is.
type calm struct {
	sync.RWMutex
	work    atomic.Int64 // done since the process was executed
	talking atomic.Int64 // connections with a request, or with clients
	ending  bool         // the init process has ended
	oomFD   int
	oomSeen uint64
}

func (b *buffers) get() []byte {
	b.touch()
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.free); n > 0 {
		buf := b.free[n-1]
		b.free = b.free[:n-1]
		return buf
	}
	buf, err := unix.Mmap(-1, 0, bufferSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return make([]byte, 16<<10)
	}
	return buf
}

func (b *buffers) put(buf []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(buf) == bufferSize {
		b.free = append(b.free, buf)
	}
}

// touch notes activity: once it has been over for a while, memory is given back. The timer runs only after activity.
func (b *buffers) touch() {
	if !b.armed.Swap(true) {
		time.AfterFunc(trimAfter, func() {
			b.armed.Store(false)
			b.mu.Lock()
			free := b.free
			b.free = nil
			b.mu.Unlock()
			for _, buf := range free {
				unix.Munmap(buf)
			}
			if b.trim != nil {
				b.trim()
			}
		})
	}
}

// pump reads a container's stream to its end, hands every piece to sink and calls end. A buffer is held only while there
// is data.
func (b *buffers) pump(f *os.File, sink func(data []byte), end func()) {
	rc, err := f.SyscallConn()
	if err != nil {
		end()
		return
	}
	var buf []byte
	for {
		n, held := 0, false
		var rerr error
		err := rc.Read(func(fd uintptr) bool {
			b.calm.RLock()
			if buf == nil {
				buf = b.get()
			}
			n, rerr = unix.Read(int(fd), buf)
			if rerr == unix.EAGAIN {
				b.put(buf)
				buf = nil
				b.calm.RUnlock()
				return false
			}
			held = true
			return true
		})
		more := err == nil && (rerr == unix.EINTR || rerr == nil && n > 0) // a terminal ends with EIO
		if more && n > 0 {
			sink(buf[:n])
		}
		if !more {
			end()
		}
		if held {
			b.calm.RUnlock()
		}
		if !more {
			break
		}
	}
	if buf != nil {
		b.put(buf)
	}
}

// tryWrite writes what the descriptor takes at once.
func tryWrite(rc syscall.RawConn, parts [][]byte) (n int, err error) {
	werr := rc.Write(func(fd uintptr) bool {
		for {
			n, err = unix.Writev(int(fd), parts)
			if err != unix.EINTR {
				break
			}
		}
		return true
	})
	if werr != nil {
		return 0, werr
	}
	if err == unix.EAGAIN {
		return 0, nil
	}
	return max(n, 0), err
}

// readLine reads one line of at most limit bytes; rest is what came behind it.
func readLine(r io.Reader, limit int) (line, rest []byte, err error) {
	buf := make([]byte, 0, 512)
	for {
		if len(buf) == cap(buf) {
			if len(buf) >= limit {
				return nil, nil, errTooLong
			}
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		from := len(buf)
		buf = buf[:len(buf)+n]
		for i := from; i < len(buf); i++ {
			if buf[i] == '\n' {
				return buf[:i], buf[i+1:], nil
			}
		}
		if err != nil {
			return nil, nil, err
		}
	}
}
