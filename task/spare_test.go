package task

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
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
	if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", waiting.Pid)); err == nil && !bytes.Contains(line, []byte(task.dir)) && !bytes.Contains(line, []byte("/qemu-")) { // an emulator's is its own
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

// TestNamespacesComeLater: the supervisor that waited is at work before they are there.
func TestNamespacesComeLater(t *testing.T) {
	m := manager(t)
	m.makeSpare()
	waiting := m.spare.proc.Pid
	r := request(t, "exit 7")
	r.Namespace = func() (*os.File, error) {
		if err := unix.Kill(waiting, 0); err != nil {
			t.Error("the supervisor is gone:", err)
		}
		return os.Open("/proc/self/ns/net")
	}
	task := start(t, m, r)
	await(t, task.Done())
	if code := task.Exit().Code; code != 7 || task.proc.Pid != waiting {
		t.Fatalf("exit code %d, supervisor %d of %d", code, task.proc.Pid, waiting)
	}
}

// TestNamespacesThatDoNotCome: their error is the start's, and nothing is left.
func TestNamespacesThatDoNotCome(t *testing.T) {
	m := manager(t)
	for _, ahead := range []bool{true, false} {
		if ahead {
			m.makeSpare()
		}
		r := request(t, "exit 0")
		r.Namespace = func() (*os.File, error) { return nil, errs.New(errs.Exhausted, "no namespace") }
		if _, err := m.Start(t.Context(), r); !errs.Is(err, errs.Exhausted) {
			t.Fatalf("ahead %v: %v", ahead, err)
		}
		if left, err := m.Known(); err != nil || len(left) > 0 {
			t.Errorf("ahead %v: %v is left, %v", ahead, left, err)
		}
		r.Namespace = nil
		await(t, start(t, m, r).Done())
		if err := m.Clear(t.Context(), r.Config.ID); err != nil {
			t.Error(err)
		}
	}
}
