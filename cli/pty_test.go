package cli

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

// pty opens a pair of terminals.
func pty(t *testing.T) (console.Console, *os.File) {
	t.Helper()
	master, name, err := console.NewPty()
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	slave, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// pretendShell is a container with a terminal: it sends back what is typed, in capitals, until "exit".
type pretendShell struct {
	mu    sync.Mutex
	sizes []string
	ended chan struct{}
	open  chan struct{} // closed when somebody is attached
}

func (p *pretendShell) serve(w http.ResponseWriter, req *http.Request, path string) bool {
	switch {
	case strings.HasSuffix(path, "/attach"):
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return true
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n$ ")
		close(p.open)
		p.talk(conn, rw.Reader)
	case strings.HasSuffix(path, "/resize"):
		p.mu.Lock()
		p.sizes = append(p.sizes, req.URL.Query().Get("h")+"x"+req.URL.Query().Get("w"))
		p.mu.Unlock()
		w.WriteHeader(http.StatusOK)
	case strings.HasSuffix(path, "/wait"):
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		select {
		case <-p.ended:
			fmt.Fprint(w, `{"StatusCode":3}`)
		case <-req.Context().Done():
		}
	default:
		return false
	}
	return true
}

func (p *pretendShell) talk(conn io.Writer, r *bufio.Reader) {
	var line strings.Builder
	for {
		b, err := r.ReadByte()
		if err != nil {
			return
		}
		if b != '\r' && b != '\n' {
			line.WriteByte(b)
			continue
		}
		if line.String() == "exit" {
			close(p.ended)
			return
		}
		fmt.Fprintf(conn, "%s\r\n$ ", strings.ToUpper(line.String()))
		line.Reset()
	}
}

// TestTerminal runs an interactive container on a real terminal: raw while it lasts, as before afterwards.
func TestTerminal(t *testing.T) {
	for _, tt := range []struct {
		name, typed, wait, last string
		code                    int
	}{
		{"until the program ends", "hello\r", "HELLO", "exit\r", 3},
		{"until the keys that detach", "hello\r", "HELLO", "\x10\x11", 0},
		{"interrupt goes to the container", "a\x03b\r", "A\x03B", "exit\r", 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			master, slave := pty(t)
			if err := master.Resize(console.WinSize{Height: 33, Width: 99}); err != nil {
				t.Fatal(err)
			}
			before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			p := &pretendShell{ended: make(chan struct{}), open: make(chan struct{})}
			r := newRecorder(t, p.serve)
			t.Setenv("SHOAL_HOST", r.host)
			t.Setenv("DOCKER_CONFIG", t.TempDir())
			code := make(chan int, 1)
			go func() { code <- Main(words("run -it img"), Streams{In: slave, Out: slave, Err: slave}) }()
			<-p.open
			seen := watch(master, "$ ")
			<-seen.found // the prompt: the terminal is raw by now or will be before the next byte is read
			awaitRaw(t, slave)
			next := seen.then(tt.wait)
			if _, err := master.Write([]byte(tt.typed)); err != nil {
				t.Fatal(err)
			}
			select {
			case <-next:
			case <-time.After(10 * time.Second):
				t.Fatalf("%q was not seen", tt.wait)
			}
			if _, err := master.Write([]byte(tt.last)); err != nil {
				t.Fatal(err)
			}
			select {
			case got := <-code:
				if got != tt.code {
					t.Errorf("exit code %d, want %d", got, tt.code)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the command does not end")
			}
			after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
			if err != nil || *after != *before {
				t.Errorf("the terminal is not as it was: %+v, before %+v (%v)", after, before, err)
			}
		})
	}
}

// awaitRaw waits until the terminal does not echo any more.
func awaitRaw(t *testing.T, f *os.File) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		if s, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil && s.Lflag&(unix.ECHO|unix.ICANON) == 0 {
			return
		}
		<-time.After(time.Millisecond)
	}
	t.Fatal("the terminal never became raw")
}

// watcher reads a terminal and tells when something appears.
type watcher struct {
	mu    sync.Mutex
	text  string
	want  string
	found chan struct{}
}

func watch(r io.Reader, want string) *watcher {
	w := &watcher{want: want, found: make(chan struct{})}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			w.mu.Lock()
			w.text += string(buf[:n])
			w.look()
			w.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return w
}

func (w *watcher) look() {
	if w.want != "" && strings.Contains(w.text, w.want) {
		w.want = ""
		close(w.found)
	}
}

func (w *watcher) then(want string) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.want, w.found = want, make(chan struct{})
	w.look()
	return w.found
}

func (w *watcher) all() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text
}
