//go:build kernel

package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/world"
)

func dockerPath(t *testing.T) string {
	path, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("the docker command line is not on this machine")
	}
	return path
}

// clients are the two command lines on terminals and pipes.
func clients(t *testing.T, f func(t *testing.T, path string)) {
	t.Run("docker", func(t *testing.T) { f(t, dockerPath(t)) })
	t.Run("shoal", func(t *testing.T) { f(t, world.Bin(t, "shoal")) })
}

func TestTerminalSession(t *testing.T) {
	w := world.New(t)
	clients(t, func(t *testing.T, cli string) {
		x := w.Term(t, cli, "run", "-it", "--name", "tty", "toolbox", "sh")
		x.Type("echo tty=$((40+2))\n")
		x.Expect("tty=42")
		x.Type("stty size\n")
		x.Expect("24 80")
		x.Resize(50, 132)
		eventually(t, "the new size arrives", func() bool {
			return strings.Contains(w.Must(w.Docker("exec", "tty", "sh", "-c", "stty size < /dev/pts/0")), "50 132")
		})
		x.Type("\x10\x11") // the keys that detach
		if code := x.Code(); code != 0 && !strings.Contains(x.Text(), "read escape sequence") {
			t.Errorf("detached: exit code %d: %q", code, x.Text())
		}
		want(t, "runs on", w.Must(w.Docker("inspect", "-f", "{{.State.Running}}", "tty")), "true")
		y := w.Term(t, cli, "attach", "tty")
		y.Type("echo again=$((1+1))\n")
		y.Expect("again=2")
		y.Type("exit 5\n")
		want(t, "attach's exit code", fmt.Sprint(y.Code()), "5")
		w.Must(w.Docker("rm", "tty"))
	})
}

func TestExecOnTerminal(t *testing.T) {
	w := world.New(t)
	w.Must(w.Docker("run", "-d", "--name", "ex", "toolbox", "sleep", "1000"))
	clients(t, func(t *testing.T, cli string) {
		x := w.Term(t, cli, "exec", "-it", "ex", "sh")
		x.Type("stty size; echo in=$((20+3))\n")
		x.Expect("24 80")
		x.Expect("in=23")
		x.Type("exit 9\n")
		want(t, "exec's exit code", fmt.Sprint(x.Code()), "9")
		y := w.Term(t, cli, "exec", "-it", "--detach-keys", "ctrl-x,x", "ex", "sh")
		y.Type("echo up=$((1+0))\n")
		y.Expect("up=1")
		y.Type("\x18x")
		y.Code()
		want(t, "the container runs on", w.Must(w.Docker("inspect", "-f", "{{.State.Running}}", "ex")), "true")
	})
}

// Without a terminal for the container, Ctrl-C reaches it as a signal through the client, unless told otherwise.
func TestSignalProxy(t *testing.T) {
	w := world.New(t)
	const script = "echo ready; exec sleep 1000" // below an init: as PID 1 it would ignore signals
	sleeps := func(name string) {                // the shell, which has its own way with signals, has become the program
		eventually(t, name+" sleeps", func() bool { return strings.Contains(w.Must(w.Docker("top", name, "-o", "pid,comm")), "sleep") })
	}
	clients(t, func(t *testing.T, cli string) {
		x := w.Term(t, cli, "run", "--name", "sig", "--init", "toolbox", "sh", "-c", script)
		x.Expect("ready")
		sleeps("sig")
		x.Type("\x03")
		want(t, "exit code", fmt.Sprint(x.Code()), "130")
		w.Must(w.Docker("rm", "sig"))
		y := w.Term(t, cli, "run", "--name", "sig", "--sig-proxy=false", "--init", "toolbox", "sh", "-c", script)
		y.Expect("ready")
		y.Type("\x03")
		<-time.After(300 * time.Millisecond) // a signal that must not come cannot be waited for
		want(t, "runs on without proxying", w.Must(w.Docker("inspect", "-f", "{{.State.Running}}", "sig")), "true")
		w.Must(w.Docker("rm", "-f", "sig"))
	})
}

func TestPipesKeepEveryByte(t *testing.T) {
	w := world.New(t)
	clients(t, func(t *testing.T, cli string) {
		const size = 50 << 20
		src, in, out := rand.NewChaCha8([32]byte{7}), sha256.New(), sha256.New()
		cmd := w.Command(cli, "run", "-i", "--rm", "toolbox", "cat")
		cmd.Stdin = io.TeeReader(io.LimitReader(src, size), in)
		var n counter
		cmd.Stdout, cmd.Stderr = io.MultiWriter(out, &n), os.Stderr
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		if n != size || !bytes.Equal(in.Sum(nil), out.Sum(nil)) {
			t.Errorf("%d bytes of %d came back, or not the same", n, size)
		}
	})
}

type counter int

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

func TestOutputFloodIsComplete(t *testing.T) {
	w := world.New(t)
	for _, driver := range []string{"local", "none"} {
		const size = 200 << 20
		var n counter
		cmd := w.Command(dockerPath(t), "run", "--rm", "--log-driver", driver, "toolbox", "head", "-c", fmt.Sprint(size), "/dev/zero")
		cmd.Stdout, cmd.Stderr = &n, os.Stderr
		began := time.Now()
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		if n != size {
			t.Errorf("log driver %s: %d bytes of %d", driver, n, size)
		}
		t.Logf("log driver %s: %v", driver, time.Since(began).Round(time.Millisecond))
	}
}

// The end of the client's input is the end of the container's, while its output goes on.
func TestHalfClose(t *testing.T) {
	w := world.New(t)
	w.Must(w.Docker("run", "-d", "--name", "half", "toolbox", "sleep", "1000"))
	clients(t, func(t *testing.T, cli string) {
		for _, args := range [][]string{{"run", "-i", "--rm", "toolbox"}, {"exec", "-i", "half"}} {
			cmd := w.Command(cli, append(args, "sh", "-c", "wc -l; sleep 0.3; echo after; exit 4")...)
			cmd.Stdin = strings.NewReader("1\n2\n3\n")
			out, err := cmd.Output()
			if strings.Join(strings.Fields(string(out)), " ") != "3 after" {
				t.Errorf("%v: %q %v", args, out, err)
			}
			want(t, "exit code", fmt.Sprint(cmd.ProcessState.ExitCode()), "4")
		}
	})
}

func TestLogsFollowEndsWithTheContainer(t *testing.T) {
	w := world.New(t)
	clients(t, func(t *testing.T, cli string) {
		w.Must(w.Docker("run", "-d", "--name", "ends", "toolbox", "sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done"))
		r := w.Run(cli, "logs", "-f", "ends")
		want(t, "all lines", strings.Join(strings.Fields(r.Out), " "), "1 2 3 4 5")
		want(t, "exit code", fmt.Sprint(r.Code), "0")
		w.Must(w.Docker("rm", "ends"))
	})
}

// Who attaches before the start gets everything, from the first byte to the last and the exit code.
func TestAttachBeforeStart(t *testing.T) {
	w := world.New(t)
	clients(t, func(t *testing.T, cli string) {
		for i := range 10 {
			name := fmt.Sprintf("early%d", i)
			w.Must(w.Docker("create", "--name", name, "toolbox", "sh", "-c", "echo first; echo second >&2; echo last; exit 6"))
			r := w.Run(cli, "start", "-a", name)
			if r.Out != "first\nlast\n" || r.Err != "second\n" || r.Code != 6 {
				t.Errorf("start -a: %q %q %d", r.Out, r.Err, r.Code)
			}
			w.Must(w.Docker("rm", name))
		}
	})
}

// The client killed at any time leaves the container as it is, and its connection is not kept.
func TestClientKilled(t *testing.T) {
	w := world.New(t)
	w.Must(w.Docker("run", "--rm", "toolbox", "true"))
	for range 5 {
		cmd := w.Command(dockerPath(t), "run", "-i", "--name", "orphan", "toolbox", "sh", "-c", "while true; do echo x; sleep 0.01; done")
		in, _ := cmd.StdinPipe()
		out, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		io.ReadFull(out, make([]byte, 8))
		cmd.Process.Signal(syscall.SIGKILL)
		cmd.Wait()
		in.Close()
		want(t, "runs on", w.Must(w.Docker("inspect", "-f", "{{.State.Running}}", "orphan")), "true")
		want(t, "the log's last line", w.Must(w.Docker("logs", "--tail", "1", "orphan")), "x")
		w.Must(w.Docker("rm", "-f", "orphan"))
	}
}
