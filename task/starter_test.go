package task

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/runtime/spec"
)

// order is what a starter, a daemon that will be killed, is told to do.
type order struct {
	ExecRoot string
	Config   spec.SupervisorConfig
	Spec     *specs.Spec
	HangIn   string // "created": never let the program run
}

// starter is the process: it says what it did and then waits for its death.
func starter() int {
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return 1
	}
	self, _ := os.Executable()
	m, err := New(Config{RuntimePath: self, ExecRoot: o.ExecRoot})
	if err != nil {
		return 1
	}
	_, err = m.Start(context.Background(), StartRequest{Config: o.Config, Spec: o.Spec, Created: func(*Task) error {
		if o.HangIn == "created" {
			fmt.Println("created")
			select {}
		}
		return nil
	}})
	fmt.Println("running", err)
	select {}
}

// killedStarter runs a starter until it has said something, and kills it.
func killedStarter(t *testing.T, o order, want string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "starter")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(in).Encode(o); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := out.Read(buf)
	if err != nil || string(buf[:n]) != want {
		t.Fatalf("%q %v", buf[:n], err)
	}
	cmd.Process.Kill()
	cmd.Wait()
}

func TestContainerSurvivesItsStarter(t *testing.T) {
	m := manager(t)
	r := request(t, "read x; echo got $x; exit 9")
	r.Config.OpenStdin = true
	killedStarter(t, order{ExecRoot: m.cfg.ExecRoot, Config: r.Config, Spec: r.Spec}, "running <nil>\n")
	ctx := context.Background()
	known, err := m.Known()
	if err != nil || len(known) != 1 || known[0] != r.Config.ID {
		t.Fatal(known, err)
	}
	task, exit, err := m.Reattach(ctx, r.Config.ID)
	if err != nil || exit != nil || task == nil {
		t.Fatal(exit, err)
	}
	conn, err := task.Attach(ctx, AttachOptions{Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "it\n")
	if out, _ := split(t, conn); out != "got it\n" {
		t.Fatalf("%q", out)
	}
	await(t, task.Done())
	if task.Exit().Code != 9 {
		t.Fatal(task.Exit())
	}
	if err := m.Clear(ctx, r.Config.ID); err != nil {
		t.Fatal(err)
	}
}

func TestExitWhileNobodyWatches(t *testing.T) {
	m := manager(t)
	r := request(t, "exit 4")
	killedStarter(t, order{ExecRoot: m.cfg.ExecRoot, Config: r.Config, Spec: r.Spec}, "running <nil>\n")
	task, exit, err := m.Reattach(context.Background(), r.Config.ID)
	if err != nil {
		t.Fatal(err)
	}
	if task != nil { // it was quicker than the container
		await(t, task.Done())
		e := task.Exit()
		exit = &e
	}
	if exit.Code != 4 {
		t.Fatal(exit)
	}
}

func TestStarterKilledInTheMiddle(t *testing.T) {
	m := manager(t)
	marker := filepath.Join(t.TempDir(), "ran")
	r := request(t, "touch "+marker+"; exec sleep 1000")
	killedStarter(t, order{ExecRoot: m.cfg.ExecRoot, Config: r.Config, Spec: r.Spec, HangIn: "created"}, "created\n")
	task, exit, err := m.Reattach(context.Background(), r.Config.ID)
	if task != nil || exit != nil || err != nil {
		t.Fatal(task, exit, err)
	}
	if known, _ := m.Known(); len(known) != 0 {
		t.Fatal("left:", known)
	}
	if _, err := os.Stat(marker); err == nil {
		t.Fatal("the program ran")
	}
}
