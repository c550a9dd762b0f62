//go:build kernel

package world

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

// Term is a program on a terminal, with somebody who types and reads.
type Term struct {
	t       testing.TB
	master  console.Console
	cmd     *exec.Cmd
	mu      sync.Mutex
	seen    string
	read    int // what Expect has gone past
	changed chan struct{}
	ended   chan struct{}
}

// Term starts a program on a new terminal of 24 lines and 80 columns. The test's end kills it.
func (w *World) Term(t testing.TB, path string, args ...string) *Term {
	t.Helper()
	master, name, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	master.Resize(console.WinSize{Height: 24, Width: 80})
	cmd := w.Command(path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	x := &Term{t: t, master: master, cmd: cmd, changed: make(chan struct{}, 1), ended: make(chan struct{})}
	go x.watch()
	go func() { cmd.Wait(); close(x.ended) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-x.ended; master.Close() })
	return x
}

func (x *Term) watch() {
	buf := make([]byte, 32<<10)
	for {
		n, err := x.master.Read(buf)
		x.mu.Lock()
		x.seen += string(buf[:n])
		x.mu.Unlock()
		select {
		case x.changed <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// Type types.
func (x *Term) Type(text string) {
	x.t.Helper()
	if _, err := x.master.Write([]byte(text)); err != nil {
		x.t.Fatalf("type %q: %v", text, err)
	}
}

// Resize changes the window's size; the kernel tells the program by SIGWINCH.
func (x *Term) Resize(lines, columns uint16) {
	x.master.Resize(console.WinSize{Height: lines, Width: columns})
}

// Expect waits for a text after the last one expected.
func (x *Term) Expect(text string) {
	x.t.Helper()
	timeout := time.After(time.Minute)
	for {
		x.mu.Lock()
		i := strings.Index(x.seen[x.read:], text)
		if i >= 0 {
			x.read += i + len(text)
		}
		rest := x.seen[x.read:]
		x.mu.Unlock()
		if i >= 0 {
			return
		}
		select {
		case <-x.changed:
		case <-timeout:
			x.t.Fatalf("%q was not seen on the terminal; there is: %q", text, rest)
		}
	}
}

// Code waits for the program's end and gives its exit code.
func (x *Term) Code() int {
	x.t.Helper()
	select {
	case <-x.ended:
	case <-time.After(time.Minute):
		x.t.Fatalf("the program does not end; on the terminal: %q", x.Text())
	}
	if s := x.cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signaled() {
		x.t.Errorf("ended by %v", s.Signal())
	}
	return x.cmd.ProcessState.ExitCode()
}

// Text is everything that was on the terminal.
func (x *Term) Text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.seen
}

// Signal sends a signal to the program.
func (x *Term) Signal(s syscall.Signal) { x.cmd.Process.Signal(s) }

// String says what runs.
func (x *Term) String() string { return fmt.Sprint(x.cmd.Args) }
