//go:build kernel

package task

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
	ocispec "github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/task/logs"
)

// world is a manager with the real runtime and a root filesystem with busybox.
type world struct {
	*Manager
	root string
	dir  string
}

var build = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("SHOAL_BIN"); dir != "" {
		return filepath.Join(dir, "shoal-runtime"), nil
	}
	dir, err := os.MkdirTemp("", "shoal-task-test-")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "shoal-runtime")
	cmd := exec.Command("go", "build", "-tags", "lean", "-ldflags", "-s -w -checklinkname=0", "-o", out, "../cmd/shoal-runtime")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w: %s", err, msg)
	}
	return out, nil
})

func newWorld(t testing.TB) *world {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("these tests need busybox (Debian: apt-get install busybox-static)")
	}
	w := &world{dir: t.TempDir()}
	t.Cleanup(func() { // the parent of all tests' cgroups; refused while another test has one
		for _, pattern := range []string{"/sys/fs/cgroup/shoal-task-test", "/sys/fs/cgroup/*/shoal-task-test"} {
			dirs, _ := filepath.Glob(pattern)
			for _, d := range dirs {
				syscall.Rmdir(d)
			}
		}
	})
	w.root = filepath.Join(w.dir, "rootfs")
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp"} {
		os.MkdirAll(filepath.Join(w.root, d), 0o755)
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.root, "bin/busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "sleep", "cat", "seq", "true", "yes", "head", "stty", "kill", "dd"} {
		os.Symlink("busybox", filepath.Join(w.root, "bin", name))
	}
	if out, err := exec.Command("ldd", busybox).CombinedOutput(); err == nil { // not static: take its libraries along
		for _, word := range strings.Fields(string(out)) {
			if strings.HasPrefix(word, "/") {
				os.MkdirAll(filepath.Join(w.root, filepath.Dir(word)), 0o755)
				lib, _ := os.ReadFile(word)
				os.WriteFile(filepath.Join(w.root, word), lib, 0o755)
			}
		}
	}
	if w.Manager, err = New(Config{RuntimePath: bin, ExecRoot: filepath.Join(w.dir, "exec")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Manager.Close)
	return w
}

func (w *world) request(script string) StartRequest {
	s := ocispec.Example()
	s.Root.Path = w.root
	s.Process.Terminal = false
	s.Process.Args = []string{"/bin/sh", "-c", script}
	s.Process.Rlimits = nil
	id := ids.New()
	s.Linux.CgroupsPath = "/shoal-task-test/" + id
	return StartRequest{Spec: s, Config: ocispec.SupervisorConfig{ID: id,
		Log: ocispec.LogTarget{Driver: "local", Path: filepath.Join(w.dir, "logs", id, "container.log")}}}
}

func (w *world) process(script string) *specs.Process {
	p := *w.request(script).Spec.Process
	return &p
}

func (w *world) log(t testing.TB, r StartRequest) string {
	t.Helper()
	var b bytes.Buffer
	err := logs.Read(context.Background(), logs.Source{Driver: "local", Path: r.Config.Log.Path},
		model.LogOptions{Stdout: true, Stderr: true, Tail: -1}, func(e model.LogEntry) error {
			b.Write(e.Data)
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func startKernel(t testing.TB, w *world, r StartRequest) *Task {
	t.Helper()
	task, err := w.Start(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		task.Signal(context.Background(), 9, false)
		<-task.Done()
		if err := w.Clear(context.Background(), r.Config.ID); err != nil {
			t.Error(err)
		}
		for name, dir := range task.Info().CgroupPaths {
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("cgroup %s is left: %s", name, dir)
			}
		}
	})
	return task
}

func TestKernelRun(t *testing.T) {
	w := newWorld(t)
	r := w.request("echo out; echo err >&2; exit 3")
	task := startKernel(t, w, r)
	await(t, task.Done())
	if e := task.Exit(); e.Code != 3 || e.LogError != "" || e.OOMKilled {
		t.Fatal(e)
	}
	if got := w.log(t, r); got != "out\nerr\n" && got != "err\nout\n" {
		t.Fatalf("%q", got)
	}
	for name, want := range map[string]int{"/nope": 127, "nope": 127, "/tmp": 126} {
		r := w.request("")
		r.Spec.Process.Args = []string{name}
		_, err := w.Start(context.Background(), r)
		var f *StartFailure
		if !errors.As(err, &f) || f.Code != want {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(w.Manager.dir(r.Config.ID)); err == nil {
			t.Error("its directory is left")
		}
	}
}

func TestKernelFlood(t *testing.T) {
	w := newWorld(t)
	r := w.request("seq 1 300000")
	r.Config.Log.Options = map[string]string{"max-size": "500k", "max-file": "20"}
	task := startKernel(t, w, r)
	await(t, task.Done())
	var want bytes.Buffer
	for i := 1; i <= 300000; i++ {
		fmt.Fprintln(&want, i)
	}
	if got := w.log(t, r); got != want.String() {
		t.Fatalf("the log has %d bytes of %d", len(got), want.Len())
	}
}

func TestKernelTerminal(t *testing.T) {
	w := newWorld(t)
	r := w.request("stty size; read x; stty size; echo got $x")
	r.Config.Tty, r.Config.OpenStdin, r.Config.ConsoleSize = true, true, [2]uint{11, 22}
	r.Spec.Process.Terminal = true
	var conn Conn
	r.Created = func(task *Task) (err error) {
		conn, err = task.Attach(context.Background(), AttachOptions{Stdin: true, Stdout: true})
		return err
	}
	task := startKernel(t, w, r)
	buf := make([]byte, 100)
	n, err := io.ReadAtLeast(conn, buf, len("11 22\r\n"))
	if err != nil || string(buf[:n]) != "11 22\r\n" {
		t.Fatalf("%q %v", buf[:n], err)
	}
	if err := task.Resize(context.Background(), "", 33, 44); err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "hello\n")
	if rest, err := io.ReadAll(conn); err != nil || string(rest) != "hello\r\n33 44\r\ngot hello\r\n" {
		t.Fatalf("%q %v", rest, err)
	}
	await(t, task.Done())
}

func TestKernelControl(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	task := startKernel(t, w, w.request("sleep 1000 & sleep 1000"))
	if err := task.Freeze(ctx, true); err != nil {
		t.Fatal(err)
	}
	if err := task.Freeze(ctx, false); err != nil {
		t.Fatal(err)
	}
	limit := int64(64 << 20)
	if err := task.Update(ctx, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}); err != nil {
		t.Fatal(err)
	}
	s, err := task.Stats(ctx)
	if err != nil || s.Memory.Limit != 64<<20 || s.Pids.Current < 1 || s.CPU.Total == 0 {
		t.Fatalf("%+v %v", s, err)
	}
	if pids, err := task.Pids(ctx); err != nil || !slices.Contains(pids, task.Info().Pid) {
		t.Fatal(pids, err)
	}
	if err := task.Freeze(ctx, true); err != nil { // a paused container can be killed
		t.Fatal(err)
	}
	if err := task.Signal(ctx, 9, false); err != nil {
		t.Fatal(err)
	}
	await(t, task.Done())
	if e := task.Exit(); e.Code != 137 || e.Signal != 9 {
		t.Fatal(e)
	}
}

func TestKernelOOM(t *testing.T) {
	w := newWorld(t)
	r := w.request("dd if=/dev/zero of=/dev/null bs=100M count=1")
	limit := int64(8 << 20)
	r.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	told := make(chan struct{}, 8)
	r.Created = func(task *Task) error {
		task.OnOOM(func() { told <- struct{}{} })
		return nil
	}
	task := startKernel(t, w, r)
	await(t, task.Done())
	if e := task.Exit(); !e.OOMKilled || e.Code != 137 {
		t.Fatalf("%+v", e)
	}
}

func TestKernelExecStorm(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	task := startKernel(t, w, w.request("sleep 1000"))
	run := func(n int) {
		id := strconv.Itoa(n)
		x, err := task.Exec(ctx, ExecRequest{ID: id, Process: w.process("echo " + id + "; exit " + strconv.Itoa(n%100)), Stdout: true, Stderr: true})
		if err != nil {
			t.Error(err)
			return
		}
		out, errOut := split(t, x.Conn)
		x.Conn.Close()
		<-x.Done()
		if out != id+"\n" || errOut != "" || x.Exit().Code != n%100 {
			t.Errorf("exec %d: %q %q %+v", n, out, errOut, x.Exit())
		}
	}
	run(0)
	sup := supervisorPid(t, w, task)
	before := openFiles(t, sup)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 12 {
				run(1 + i*12 + j)
			}
		})
	}
	wg.Wait()
	deadline := time.Now().Add(5 * time.Second)
	for openFiles(t, sup) > before && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if after := openFiles(t, sup); after > before {
		t.Fatalf("%d open files before, %d after 96 execs", before, after)
	}
	x, err := task.Exec(ctx, ExecRequest{ID: "tty", Process: w.process("stty size"), Tty: true, Stdout: true, ConsoleSize: [2]uint{5, 6}})
	if err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(x.Conn); string(all) != "5 6\r\n" {
		t.Fatalf("%q %v", all, err)
	}
	x, err = task.Exec(ctx, ExecRequest{ID: "last", Process: w.process("sleep 1000"), Detach: true})
	if err != nil {
		t.Fatal(err)
	}
	task.Signal(ctx, 9, false) // the container's end is its end
	await(t, x.Done())
	if x.Exit().Code != 137 {
		t.Fatal(x.Exit())
	}
}

func supervisorPid(t testing.TB, w *world, task *Task) int {
	t.Helper()
	a, err := task.ask(context.Background(), ocispec.Request{Op: ocispec.OpState})
	if err != nil {
		t.Fatal(err)
	}
	return a.State.SupervisorPid
}

func openFiles(t testing.TB, pid int) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestKernelKilledSupervisor(t *testing.T) {
	w := newWorld(t)
	r := w.request("sleep 1000 & sleep 1000")
	task := startKernel(t, w, r)
	other, _ := New(w.cfg)
	again, _, err := other.Reattach(context.Background(), r.Config.ID)
	if err != nil || again == nil {
		t.Fatal(err)
	}
	syscall.Kill(supervisorPid(t, w, task), syscall.SIGKILL)
	await(t, task.Done())
	await(t, again.Done())
	for _, x := range []*Task{task, again} {
		if e := x.Exit(); e.Code != 137 || !strings.Contains(e.Reason, "supervisor was killed") {
			t.Fatal(e)
		}
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/ns/pid", task.Info().Pid)); err == nil {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", task.Info().Pid))
		if !bytes.Contains(data, []byte(") Z ")) {
			t.Fatalf("the container runs on: %s", data)
		}
	}
}

func TestKernelForeignRuntime(t *testing.T) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("runc is not installed: foreign runtimes are not tried")
	}
	w := newWorld(t)
	w.cfg.Runtimes = map[string]ocispec.RuntimeRef{"runc": {Path: runc, Root: filepath.Join(w.dir, "runc")}}
	ctx := context.Background()
	r := w.request("echo hello; read x; exit 5")
	r.Runtime = "runc"
	r.Config.OpenStdin = true
	task := startKernel(t, w, r)
	x, err := task.Exec(ctx, ExecRequest{ID: "a", Process: w.process("echo in; exit 7"), Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	out, _ := split(t, x.Conn)
	await(t, x.Done())
	if out != "in\n" || x.Exit().Code != 7 {
		t.Fatalf("%q %+v", out, x.Exit())
	}
	if err := task.Freeze(ctx, true); err != nil {
		t.Fatal(err)
	}
	if err := task.Freeze(ctx, false); err != nil {
		t.Fatal(err)
	}
	conn, err := task.Attach(ctx, AttachOptions{Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "go\n")
	await(t, task.Done())
	if task.Exit().Code != 5 || w.log(t, r) != "hello\n" {
		t.Fatalf("%+v %q", task.Exit(), w.log(t, r))
	}
	r = w.request("")
	r.Runtime = "runc"
	r.Spec.Process.Args = []string{"/nope"}
	var f *StartFailure
	if _, err := w.Start(ctx, r); !errors.As(err, &f) || f.Code != 127 {
		t.Fatal(err)
	}
}
