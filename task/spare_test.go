package task

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAStartTakesTheSupervisorThatWaits(t *testing.T) {
	m := manager(t)
	m.makeSpare()
	m.makeSpare() // there is one
	waiting := m.spare.proc
	if waiting == nil {
		t.Fatal("no supervisor waits")
	}
	task := start(t, m, request(t, "sleep 0.1; exit 5"))
	if task.proc.Pid != waiting.Pid {
		t.Fatalf("supervisor %d was started though %d waited", task.proc.Pid, waiting.Pid)
	}
	if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", waiting.Pid)); err == nil && !bytes.Contains(line, []byte(task.dir)) {
		t.Errorf("process lists show %q", line)
	}
	await(t, task.Done())
	if code := task.Exit().Code; code != 5 {
		t.Fatalf("exit code %d", code)
	}
}

func TestAStartDoesWithoutAKilledSupervisor(t *testing.T) {
	m := manager(t)
	m.makeSpare()
	m.spare.proc.Kill()
	var b [1]byte
	m.spare.hand.Read(b[:]) // until it is gone
	task := start(t, m, request(t, "exit 6"))
	await(t, task.Done())
	if code := task.Exit().Code; code != 6 {
		t.Fatalf("exit code %d", code)
	}
}

func TestTheSupervisorThatWaitsEnds(t *testing.T) {
	m := manager(t)
	m.makeSpare()
	pid := m.spare.proc.Pid
	m.Close()
	if err := unix.Kill(pid, 0); err != unix.ESRCH {
		t.Fatal("it is still there:", err)
	}
	m.makeSpare()
	if m.spare.proc != nil {
		t.Fatal("made after the end")
	}
	await(t, start(t, m, request(t, "exit 0")).Done()) // such a manager still starts
}
