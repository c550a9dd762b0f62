package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

func TestDetachKeys(t *testing.T) {
	for text, want := range map[string]string{"": "\x10\x11", "ctrl-a": "\x01", "a,b": "ab", "ctrl-@,ctrl-[,ctrl-\\": "\x00\x1b\x1c", "ctrl-z,Q": "\x1aQ"} {
		if got, err := parseDetachKeys(text); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"ctrl-", "ctrl-1", "ab", ",", "ctrl-aa", "ctrl-A", "Ctrl-a"} {
		if _, err := parseDetachKeys(text); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestDetachReader(t *testing.T) {
	for _, c := range []struct {
		keys, in, out string
		detached      bool
	}{
		{"\x10\x11", "hello", "hello", false},
		{"\x10\x11", "a\x10\x11b", "a", true},
		{"\x10\x11", "a\x10b\x10", "a\x10b\x10", false},
		{"\x10\x11", "\x10\x10\x11", "\x10", true},
		{"aab", "aaab", "a", true},
		{"aba", "abcaba", "abc", true},
	} {
		for _, r := range []io.Reader{strings.NewReader(c.in), iotestOneByte{strings.NewReader(c.in)}} {
			out, err := io.ReadAll(&detachReader{r: r, keys: []byte(c.keys)})
			if string(out) != c.out || errors.Is(err, errDetached) != c.detached {
				t.Errorf("%q in %q: %q, %v", c.keys, c.in, out, err)
			}
		}
	}
}

// iotestOneByte gives one byte at a time.
type iotestOneByte struct{ r io.Reader }

func (o iotestOneByte) Read(p []byte) (int, error) { return o.r.Read(p[:1]) }

func frame(stream byte, text string) []byte {
	return append([]byte{stream, 0, 0, 0, 0, 0, 0, byte(len(text))}, text...)
}

func TestAttachBeforeTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "", func(r *model.CreateRequest) { r.Spec.Process.Stdin.Open = true })
		var out, errOut bytes.Buffer
		ready := make(chan struct{})
		done := make(chan error, 1)
		in, typed := io.Pipe()
		go func() {
			done <- e.Attach(bg, id, model.AttachOptions{Stdin: true, Stdout: true, Stderr: true, Stream: true, Logs: true, Ready: func() (model.Streams, error) {
				close(ready)
				return model.Streams{Stdin: in, Stdout: &out, Stderr: &errOut}, nil
			}})
		}()
		<-ready
		must(t, e.Start(bg, id))
		conn := w.task(id).conns[0] // it was there before Start returned
		go typed.Write([]byte("ping"))
		got := make([]byte, 4)
		io.ReadFull(conn.in, got)
		conn.out.Write(frame(1, "out"))
		conn.out.Write(frame(2, "err"))
		typed.Close()
		io.ReadAll(conn.in) // ends because the client's input ended
		w.task(id).end(0)
		must(t, <-done)
		if string(got) != "ping" || out.String() != "before\nout" || errOut.String() != "err" {
			t.Fatalf("%q %q %q", got, out.String(), errOut.String())
		}
		must(t, e.Close(bg))
	})
}

func TestAttachEndsWhenTheStartFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "")
		w.faults["tasks.Running"] = errors.New("boom")
		done := make(chan error, 1)
		closed := false
		go func() {
			done <- e.Attach(bg, id, model.AttachOptions{Stdout: true, Stream: true, Ready: func() (model.Streams, error) {
				return model.Streams{Raw: io.Discard, CloseRaw: func() error { closed = true; return nil }}, nil
			}})
		}()
		synctest.Wait()
		if e.Start(bg, id) == nil {
			t.Fatal("started")
		}
		must(t, <-done)
		if !closed {
			t.Fatal("the client was not told of the end")
		}
		// A client that goes away before the start leaves nothing.
		ctx, cancel := context.WithCancel(bg)
		go func() {
			done <- e.Attach(ctx, id, model.AttachOptions{Stdout: true, Stream: true, Ready: func() (model.Streams, error) { return model.Streams{Raw: io.Discard}, nil }})
		}()
		synctest.Wait()
		cancel()
		wantKind(t, <-done, errs.Canceled, "")
		must(t, e.Start(bg, id))
		if n := len(w.task(id).conns); n != 0 {
			t.Fatalf("%d connections", n)
		}
		w.task(id).end(0)
		must(t, e.Close(bg))
	})
}

func TestDetach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "", func(r *model.CreateRequest) { r.Spec.Process.Stdin.Open, r.Spec.Process.Tty = true, true })
		must(t, e.Start(bg, id))
		in, typed := io.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- e.Attach(bg, id, model.AttachOptions{Stdin: true, Stdout: true, Stream: true, Ready: func() (model.Streams, error) {
				return model.Streams{Stdin: in, Raw: io.Discard}, nil
			}})
		}()
		synctest.Wait()
		go io.Copy(io.Discard, w.task(id).conns[0].in)
		typed.Write([]byte("ls\n\x10\x11"))
		must(t, <-done)
		if status(e, id) != model.StatusRunning || w.count("detach") != 1 {
			t.Fatal("not detached")
		}
		w.task(id).end(0)
		must(t, e.Close(bg))
	})
}

func TestExec(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "")
		_, err := e.ExecCreate(bg, id, model.ExecSpec{Cmd: []string{"ls"}})
		wantKind(t, err, errs.Conflict, "is not running")
		must(t, e.Start(bg, id))
		_, err = e.ExecCreate(bg, id, model.ExecSpec{})
		wantKind(t, err, errs.Invalid, "No exec command")
		var asked TaskExec
		w.onExec = func(x TaskExec) (int, string) { asked = x; return 3, "hi" }
		exec, err := e.ExecCreate(bg, id, model.ExecSpec{Cmd: []string{"echo", "hi"}, User: "web:log", Env: []string{"A=exec"}, WorkingDir: "/tmp", AttachStdout: true})
		must(t, err)
		if v, _ := e.Inspect(bg, id, false); len(v.ExecIDs) != 1 {
			t.Fatal(v.ExecIDs)
		}
		var out bytes.Buffer
		must(t, e.ExecStart(bg, exec, model.ExecStartOptions{Ready: func() (model.Streams, error) { return model.Streams{Stdout: &out}, nil }}))
		synctest.Wait()
		x, err := e.ExecInspect(bg, exec)
		must(t, err)
		p := asked.Process
		if out.String() != "hi" || *x.ExitCode != 3 || x.Running || p.User.UID != 33 || p.User.GID != 7 || p.Cwd != "/tmp" || !strings.Contains(strings.Join(p.Env, " "), "A=exec") {
			t.Fatalf("%q %+v %+v", out.String(), x, p)
		}
		wantKind(t, e.ExecStart(bg, exec, model.ExecStartOptions{Detach: true}), errs.Conflict, "already been run")
		pass(execKept + time.Second)
		_, err = e.ExecInspect(bg, exec)
		wantKind(t, err, errs.NotFound, "No such exec instance")

		exec, err = e.ExecCreate(bg, id, model.ExecSpec{Cmd: []string{"nope"}})
		must(t, err)
		w.faults["task.Exec"] = &StartFailure{Code: 127, Err: errors.New("executable file not found in $PATH")}
		wantKind(t, e.ExecStart(bg, exec, model.ExecStartOptions{Detach: true}), errs.Invalid, "not found")
		if x, _ := e.ExecInspect(bg, exec); *x.ExitCode != 127 {
			t.Fatalf("%+v", x)
		}
		must(t, e.Remove(bg, id, model.RemoveOptions{Force: true}))
		if len(e.execs.byID) != 0 {
			t.Fatal("exec records outlive their container")
		}
		must(t, e.Close(bg))
	})
}

func healthy(h model.Healthcheck) func(*model.CreateRequest) {
	return func(r *model.CreateRequest) { r.Spec.Health = &h }
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "", healthy(model.Healthcheck{Test: []string{"CMD-SHELL", "check"}, Interval: 10 * time.Second, Retries: 2,
			StartPeriod: 20 * time.Second, StartInterval: 2 * time.Second}))
		var code, probes atomic.Int64
		code.Store(1)
		var command atomic.Value
		w.onExec = func(x TaskExec) (int, string) {
			probes.Add(1)
			command.Store(strings.Join(x.Process.Args, " "))
			return int(code.Load()), "so"
		}
		must(t, e.Start(bg, id))
		health := func() model.HealthState {
			v, _ := e.Inspect(bg, id, false)
			return *v.State.Health
		}
		if got := health(); got.Status != healthStarting {
			t.Fatal(got)
		}
		pass(11 * time.Second)
		if got := health(); probes.Load() != 5 || got.Status != healthStarting || got.FailingStreak != 0 || got.Log[0].Output != "so" {
			t.Fatalf("%d probes, %+v", probes.Load(), got)
		}
		code.Store(0)
		pass(2 * time.Second)
		if got := health(); got.Status != healthHealthy || command.Load() != "/bin/sh -c check" {
			t.Fatalf("%+v %v", got, command.Load())
		}
		code.Store(1)
		probes.Store(0)
		pass(21 * time.Second)
		if got := health(); probes.Load() != 2 || got.Status != healthUnhealthy || len(got.Log) != healthKept {
			t.Fatalf("%d probes, %+v", probes.Load(), got)
		}
		if w.count("health_status: healthy") != 1 || w.count("health_status: unhealthy") != 1 {
			t.Fatal("events")
		}
		must(t, e.Pause(bg, id))
		probes.Store(0)
		pass(time.Minute)
		if probes.Load() != 0 {
			t.Fatal("a frozen container was probed")
		}
		must(t, e.Unpause(bg, id))
		w.task(id).end(0)
		pass(time.Minute)
		if probes.Load() != 0 {
			t.Fatal("an ended container was probed")
		}
		must(t, e.Close(bg))
	})
}

func TestHealthTimeOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "", healthy(model.Healthcheck{Test: []string{"CMD", "hang"}, Interval: time.Second, Timeout: 3 * time.Second, Retries: 1}))
		must(t, e.Start(bg, id))
		w.task(id).execHangs.Store(true)
		pass(5 * time.Second)
		v, _ := e.Inspect(bg, id, false)
		if h := v.State.Health; h.Status != healthUnhealthy || !strings.Contains(h.Log[0].Output, "exceeded timeout (3s)") || len(w.task(id).killedX) != 1 {
			t.Fatalf("%+v", h)
		}
		w.task(id).end(0)
		must(t, e.Close(bg))
	})
}

func TestOOM(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		id := create(t, e, "")
		must(t, e.Start(bg, id))
		w.task(id).oom[0]()
		w.task(id).end(137)
		synctest.Wait()
		if v, _ := e.Inspect(bg, id, false); !v.State.OOMKilled || w.count("oom") != 1 {
			t.Fatalf("%+v", v.State)
		}
		must(t, e.Close(bg))
	})
}
