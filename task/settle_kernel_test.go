//go:build kernel

package task

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// settled waits until a supervisor has executed itself anew.
func settled(t *testing.T, pid int) {
	t.Helper()
	for range 100 {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Contains(string(data), "--resume") {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("it did not execute itself anew")
}

// What a container does while its supervisor executes itself anew, and after, is as it always is.
func TestKernelSettle(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	r := w.request("i=0; while [ $i -lt 400 ]; do printf 'line %s ' $i; sleep 0.01; echo end; i=$((i+1)); done; read x; echo got $x; exit 7")
	r.Config.OpenStdin = true
	task := startKernel(t, w, r)
	settled(t, task.proc.Pid)
	for i := range 5 {
		x, err := task.Exec(ctx, ExecRequest{ID: fmt.Sprint(i), Process: w.process("echo exec"), Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		if out, _ := split(t, x.Conn); out != "exec\n" {
			t.Fatalf("%q", out)
		}
		await(t, x.Done())
	}
	if pids, err := task.Pids(ctx); err != nil || len(pids) == 0 {
		t.Fatal(pids, err)
	}
	if _, err := task.Stats(ctx); err != nil {
		t.Fatal(err)
	}
	other, _ := New(w.cfg)
	again, _, err := other.Reattach(ctx, r.Config.ID)
	if err != nil || again == nil {
		t.Fatal(err)
	}
	conn, err := task.Attach(ctx, AttachOptions{Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "input\n")
	conn.Close()
	await(t, task.Done())
	await(t, again.Done())
	if task.Exit().Code != 7 {
		t.Fatal(task.Exit())
	}
	var want strings.Builder
	for i := range 400 {
		fmt.Fprintf(&want, "line %d end\n", i)
	}
	want.WriteString("got input\n")
	if got := w.log(t, r); got != want.String() {
		t.Fatalf("the log: %d bytes instead of %d", len(got), want.Len())
	}
}

func TestKernelSettleTerminal(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	r := w.request("read x; stty size; echo got $x; exit 3")
	r.Config.Tty, r.Config.OpenStdin = true, true
	r.Spec.Process.Terminal = true
	task := startKernel(t, w, r)
	settled(t, task.proc.Pid)
	conn, err := task.Attach(ctx, AttachOptions{Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Resize(ctx, "", 33, 44); err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "hello\n")
	if all, err := io.ReadAll(conn); err != nil || string(all) != "hello\r\n33 44\r\ngot hello\r\n" {
		t.Fatalf("%q %v", all, err)
	}
	await(t, task.Done())
	if task.Exit().Code != 3 {
		t.Fatal(task.Exit())
	}
}
