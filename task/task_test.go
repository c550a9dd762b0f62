package task

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/runtime/supervise"
	"github.com/shoalhq/shoal/runtime/supervise/plain"
)

// The test's own program is shoal-runtime here, with ordinary processes for containers.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "supervise":
			os.Exit(supervise.MainWith(os.Args[2:], plain.Pick))
		case "starter":
			os.Exit(starter())
		case plain.InitVerb:
			os.Exit(plain.Init(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

func manager(t *testing.T) *Manager {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(Config{RuntimePath: self, ExecRoot: filepath.Join(t.TempDir(), strings.Repeat("long", 25))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func request(t *testing.T, script string) StartRequest {
	return StartRequest{
		Config: spec.SupervisorConfig{ID: ids.New(), Log: spec.LogTarget{Driver: "local", Path: filepath.Join(t.TempDir(), "c.log")}},
		Spec: &specs.Spec{Process: &specs.Process{Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}},
			Linux: &specs.Linux{}},
	}
}

func start(t *testing.T, m *Manager, r StartRequest) *Task {
	t.Helper()
	task, err := m.Start(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		task.Signal(context.Background(), 9, true)
		task.Signal(context.Background(), 9, false)
		await(t, task.Done())
		if err := m.Clear(context.Background(), r.Config.ID); err != nil {
			t.Error(err)
		}
	})
	return task
}

func await(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(2 * time.Minute): // an emulated machine beside others forks some ten times a second
		t.Fatal("it did not end")
	}
}

// split reads frames to the end.
func split(t *testing.T, r io.Reader) (stdout, stderr string) {
	t.Helper()
	var out [3]bytes.Buffer
	for {
		var head [8]byte
		if _, err := io.ReadFull(r, head[:]); err == io.EOF {
			return out[1].String(), out[2].String()
		} else if err != nil {
			t.Fatal(err)
		}
		if head[0] != 1 && head[0] != 2 {
			t.Fatalf("frame %v", head)
		}
		if _, err := io.CopyN(&out[head[0]], r, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExitCodes(t *testing.T) {
	m := manager(t)
	for script, want := range map[string]spec.ExitStatus{
		"exit 0": {}, "exit 7": {Code: 7}, "kill -9 $$": {Code: 137, Signal: 9}, "kill -15 $$": {Code: 143, Signal: 15},
	} {
		task := start(t, m, request(t, script))
		await(t, task.Done())
		got := task.Exit()
		if got.Code != want.Code || got.Signal != want.Signal || got.At.IsZero() || got.LogError != "" {
			t.Errorf("%s: %+v", script, got)
		}
	}
}

func TestStartFailures(t *testing.T) {
	m := manager(t)
	for name, want := range map[string]int{"/does/not/exist": 127, "no-such-program": 127, "/etc/passwd": 126} {
		r := request(t, "")
		r.Spec.Process.Args = []string{name}
		_, err := m.Start(context.Background(), r)
		var f *StartFailure
		if !errors.As(err, &f) || f.Code != want || !strings.Contains(err.Error(), name) || errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
		if known, _ := m.Known(); len(known) != 0 {
			t.Errorf("%s left %v", name, known)
		}
	}
	r := request(t, "exit 0")
	r.Created = func(*Task) error { return errs.New(errs.Conflict, "port taken") }
	if _, err := m.Start(context.Background(), r); err == nil || err.Error() != "port taken" {
		t.Error(err)
	}
	r = request(t, "exit 0")
	r.Config.Log.Driver = "nope"
	if _, err := m.Start(context.Background(), r); err == nil || !strings.Contains(err.Error(), `unknown log driver "nope"`) {
		t.Error(err)
	}
	if known, _ := m.Known(); len(known) != 0 {
		t.Errorf("left %v", known)
	}
}

func TestAttachBeforeStartMissesNothing(t *testing.T) {
	m := manager(t)
	r := request(t, "i=0; while [ $i -lt 2000 ]; do echo line $i; echo err $i >&2; i=$((i+1)); done")
	var conn Conn
	r.Created = func(task *Task) (err error) {
		conn, err = task.Attach(context.Background(), AttachOptions{Stdout: true, Stderr: true})
		return err
	}
	task := start(t, m, r)
	out, errOut := split(t, conn)
	conn.Close()
	var wantOut, wantErr strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&wantOut, "line %d\n", i)
		fmt.Fprintf(&wantErr, "err %d\n", i)
	}
	if out != wantOut.String() || errOut != wantErr.String() {
		t.Fatalf("got %d and %d bytes", len(out), len(errOut))
	}
	await(t, task.Done())
}

func TestStdin(t *testing.T) {
	m := manager(t)
	r := request(t, "cat; echo end")
	r.Config.OpenStdin, r.Config.StdinOnce = true, true
	var conn Conn
	r.Created = func(task *Task) (err error) {
		conn, err = task.Attach(context.Background(), AttachOptions{Stdin: true, Stdout: true})
		return err
	}
	task := start(t, m, r)
	big := strings.Repeat("0123456789abcde\n", 1<<16)
	go func() {
		io.WriteString(conn, big)
		conn.CloseWrite()
	}()
	out, _ := split(t, conn)
	if out != big+"end\n" {
		t.Fatalf("got %d bytes", len(out))
	}
	await(t, task.Done())
}

func TestStdinStaysOpenWithoutOnce(t *testing.T) {
	m := manager(t)
	r := request(t, "read a; read b; echo $a $b")
	r.Config.OpenStdin = true
	task := start(t, m, r)
	for _, word := range []string{"one\n", "two\n"} {
		conn, err := task.Attach(context.Background(), AttachOptions{Stdin: true})
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, word)
		conn.CloseWrite()
		conn.Close()
		if word == "one\n" { // the next attachment's input may only come after this one's
			continue
		}
	}
	await(t, task.Done())
	if task.Exit().Code != 0 {
		t.Fatal(task.Exit())
	}
}

func TestTerminal(t *testing.T) {
	m := manager(t)
	r := request(t, "stty size; read x; stty size; echo got $x; test -t 0 -a -t 1")
	r.Config.Tty, r.Config.OpenStdin, r.Config.ConsoleSize = true, true, [2]uint{11, 22}
	var conn Conn
	r.Created = func(task *Task) (err error) {
		conn, err = task.Attach(context.Background(), AttachOptions{Stdin: true, Stdout: true})
		return err
	}
	task := start(t, m, r)
	buf := make([]byte, 100)
	n, err := conn.Read(buf)
	if err != nil || string(buf[:n]) != "11 22\r\n" {
		t.Fatalf("%q %v", buf[:n], err)
	}
	if err := task.Resize(context.Background(), "", 33, 44); err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "hello\n")
	rest, err := io.ReadAll(conn)
	if err != nil || string(rest) != "hello\r\n33 44\r\ngot hello\r\n" {
		t.Fatalf("%q %v", rest, err)
	}
	await(t, task.Done())
	if task.Exit().Code != 0 {
		t.Fatal(task.Exit())
	}
}

func TestSignalPauseStatePids(t *testing.T) {
	m := manager(t)
	ctx := context.Background()
	r := request(t, "trap 'exit 5' USR1; echo ready; while :; do sleep 0.01; done")
	var conn Conn
	r.Created = func(task *Task) (err error) {
		conn, err = task.Attach(ctx, AttachOptions{Stdout: true})
		return err
	}
	task := start(t, m, r)
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 100)); err != nil { // its trap is set
		t.Fatal(err)
	}
	if err := task.Freeze(ctx, true); err != nil {
		t.Fatal(err)
	}
	if err := task.Freeze(ctx, true); !errs.Is(err, errs.Conflict) {
		t.Fatal(err)
	}
	if err := task.Freeze(ctx, false); err != nil {
		t.Fatal(err)
	}
	if pids, err := task.Pids(ctx); err != nil || len(pids) != 1 || pids[0] != task.Info().Pid {
		t.Fatal(pids, err)
	}
	if s, err := task.Stats(ctx); err != nil || s.Pids.Current != 1 || s.CPU.Online == 0 || s.CPU.SystemTotal == 0 || s.Read.IsZero() {
		t.Fatal(s, err)
	}
	if err := m.Clear(ctx, task.Info().ID); !errs.Is(err, errs.Conflict) {
		t.Fatal(err)
	}
	if err := task.Signal(ctx, int(syscall.SIGUSR1), false); err != nil {
		t.Fatal(err)
	}
	await(t, task.Done())
	if task.Exit().Code != 5 {
		t.Fatal(task.Exit())
	}
	if err := task.Signal(ctx, 15, false); !errs.Is(err, errs.Conflict) {
		t.Fatal(err)
	}
}

func TestExec(t *testing.T) {
	m := manager(t)
	ctx := context.Background()
	task := start(t, m, request(t, "exec sleep 1000"))
	process := func(script string) *specs.Process {
		return &specs.Process{Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}}
	}
	x, err := task.Exec(ctx, ExecRequest{ID: "a", Process: process("cat; echo err >&2; exit 3"), Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(x.Conn, "in\n")
	x.Conn.CloseWrite()
	out, errOut := split(t, x.Conn)
	await(t, x.Done())
	if out != "in\n" || errOut != "err\n" || x.Exit().Code != 3 || x.Pid == 0 {
		t.Fatalf("%q %q %+v", out, errOut, x.Exit())
	}
	var f *StartFailure
	if _, err := task.Exec(ctx, ExecRequest{ID: "b", Process: &specs.Process{Args: []string{"nope"}}}); !errors.As(err, &f) || f.Code != 127 {
		t.Fatal(err)
	}
	x, err = task.Exec(ctx, ExecRequest{ID: "c", Process: process("exit 4"), Detach: true})
	if err != nil || x.Conn != nil {
		t.Fatal(err)
	}
	await(t, x.Done())
	if x.Exit().Code != 4 {
		t.Fatal(x.Exit())
	}
	x, err = task.Exec(ctx, ExecRequest{ID: "d", Process: process("stty size"), Tty: true, Stdout: true, ConsoleSize: [2]uint{5, 6}})
	if err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(x.Conn); string(all) != "5 6\r\n" {
		t.Fatalf("%q %v", all, err)
	}
	x, err = task.Exec(ctx, ExecRequest{ID: "e", Process: process("exec sleep 1000"), Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := task.SignalExec(ctx, "e", 15); err != nil {
		t.Fatal(err)
	}
	await(t, x.Done())
	if x.Exit().Code != 143 {
		t.Fatal(x.Exit())
	}
}

func TestReattach(t *testing.T) {
	m := manager(t)
	ctx := context.Background()
	r := request(t, "read x; exit 9")
	r.Config.OpenStdin = true
	task := start(t, m, r)
	other, _ := New(m.cfg) // the daemon after its restart
	again, exit, err := other.Reattach(ctx, r.Config.ID)
	if err != nil || exit != nil || again.Info().Pid != task.Info().Pid || again.Info().StartedAt.IsZero() {
		t.Fatal(again, exit, err)
	}
	if _, err := other.Start(ctx, r); !errs.Is(err, errs.Conflict) {
		t.Fatal(err)
	}
	conn, err := again.Attach(ctx, AttachOptions{Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "go\n")
	await(t, again.Done())
	if again.Exit().Code != 9 {
		t.Fatal(again.Exit())
	}
	third, _ := New(m.cfg)
	if none, exit, err := third.Reattach(ctx, r.Config.ID); none != nil || err != nil || exit.Code != 9 {
		t.Fatal(none, exit, err)
	}
	if none, exit, err := third.Reattach(ctx, "nothing"); none != nil || exit != nil || err != nil {
		t.Fatal(none, exit, err)
	}
}

func TestKilledSupervisor(t *testing.T) {
	m := manager(t)
	task := start(t, m, request(t, "exec sleep 1000"))
	task.proc.Kill()
	await(t, task.Done())
	if e := task.Exit(); e.Code != 137 || !strings.Contains(e.Reason, "supervisor was killed") {
		t.Fatal(e)
	}
	if syscall.Kill(task.Info().Pid, 0) == nil {
		if data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", task.Info().Pid)); !bytes.Contains(data, []byte(") Z ")) {
			t.Fatalf("the container runs on without a supervisor: %s", data)
		}
	}
}

func TestSupervisorFailsAtEveryPoint(t *testing.T) {
	for _, point := range []string{"supervise/created=error(x)", "supervise/created=kill", "supervise/started=error(x)", "supervise/started=kill"} {
		m := manager(t)
		t.Setenv(failpoint.EnvName, point)
		_, err := m.Start(context.Background(), request(t, "exec sleep 1234"))
		if err == nil {
			t.Errorf("%s: started", point)
		}
		os.Unsetenv(failpoint.EnvName)
		if known, _ := m.Known(); len(known) != 0 {
			t.Errorf("%s left %v", point, known)
		}
	}
}

func TestGrandchildThatHoldsThePipe(t *testing.T) {
	m := manager(t)
	told := filepath.Join(t.TempDir(), "pid")
	task := start(t, m, request(t, "sleep 1000 & echo $! > "+told+"; exit 0"))
	await(t, task.Done()) // not for as long as the grandchild lives
	data, err := os.ReadFile(told)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the grandchild has ended: %v", err)
	}
}
