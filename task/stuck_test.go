package task

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
)

// A client that attached before the start holds the output up, as a pipe would; it must not hold up the container's end.
func TestClientThatDoesNotReadDoesNotHoldTheEnd(t *testing.T) {
	m := manager(t)
	r := request(t, "exec yes 0123456789")
	var conn Conn
	r.Created = func(task *Task) (err error) {
		conn, err = task.Attach(context.Background(), AttachOptions{Stdout: true})
		return err
	}
	task := start(t, m, r)
	defer conn.Close()
	x, err := task.Exec(context.Background(), ExecRequest{ID: "flood", Stdout: true,
		Process: &specs.Process{Args: []string{"/bin/sh", "-c", "exec yes 0123456789"}, Env: []string{"PATH=/bin:/usr/bin"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Conn.Close()
	awaitStill(t, r.Config.Log.Path)
	if err := task.SignalExec(context.Background(), "flood", 9); err != nil {
		t.Fatal(err)
	}
	await(t, x.Done())
	if err := task.Signal(context.Background(), 9, false); err != nil {
		t.Fatal(err)
	}
	await(t, task.Done())
	if task.Exit().Code != 137 {
		t.Fatal(task.Exit())
	}
}

// awaitStill waits until a file that grew grows no more.
func awaitStill(t *testing.T, path string) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for last := int64(-1); ; <-tick.C {
		if st, err := os.Stat(path); err == nil {
			if st.Size() > 0 && st.Size() == last {
				return
			}
			last = st.Size()
		}
	}
}

// A supervisor that does not answer is no reason to take its container for dead, and to kill what is left of it.
func TestStoppedSupervisorIsNotTakenForDead(t *testing.T) {
	m := manager(t)
	task := start(t, m, request(t, "exec sleep 1000"))
	supervisor := task.proc
	if err := supervisor.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer supervisor.Signal(syscall.SIGCONT)
	var ws syscall.WaitStatus // the signal has been sent, not yet obeyed
	if _, err := syscall.Wait4(supervisor.Pid, &ws, syscall.WUNTRACED, nil); err != nil || !ws.Stopped() {
		t.Fatal(ws, err)
	}
	other, _ := New(m.cfg)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if again, exit, err := other.Reattach(ctx, task.id); err == nil || again != nil || exit != nil {
		t.Fatal(again, exit, err)
	}
	if err := other.Clear(context.Background(), task.id); !errs.Is(err, errs.Conflict) {
		t.Fatal(err)
	}
	supervisor.Signal(syscall.SIGCONT)
	again, exit, err := other.Reattach(context.Background(), task.id)
	if err != nil || exit != nil || again.Info().Pid != task.Info().Pid {
		t.Fatal(again, exit, err)
	}
}
