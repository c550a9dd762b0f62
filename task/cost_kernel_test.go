//go:build kernel

package task

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// smaps sums a figure of /proc/PID/smaps_rollup, in KiB.
func smaps(t testing.TB, pid int, name string) (n int) {
	t.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		if f := bytes.Fields(line); len(f) > 1 && string(f[0]) == name+":" {
			n, _ = strconv.Atoi(string(f[1]))
		}
	}
	return n
}

// switches counts how often the threads of a process were run.
func switches(pid int) (n, threads int) {
	files, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/status")
	for _, f := range files {
		data, _ := os.ReadFile(f)
		for line := range bytes.Lines(data) {
			if f := bytes.Fields(line); len(f) == 2 && bytes.HasSuffix(f[0], []byte("ctxt_switches:")) {
				k, _ := strconv.Atoi(string(f[1]))
				n += k
			}
		}
	}
	return n, len(files)
}

// The budget: 1.5 MB of proportional set size for one more idle container, less than one wake-up per second for 100.
func TestKernelIdleCost(t *testing.T) {
	const count = 100
	w := newWorld(t)
	tasks := make([]*Task, count)
	var wg sync.WaitGroup
	for part := range 4 {
		wg.Go(func() {
			for i := part; i < count; i += 4 {
				r := w.request("")
				r.Spec.Process.Args = []string{"/bin/sleep", "1000"}
				task, err := w.Start(context.Background(), r)
				if err != nil {
					t.Error(err)
					return
				}
				tasks[i] = task
			}
		})
	}
	wg.Wait()
	defer func() {
		for _, task := range tasks {
			if task != nil {
				task.Signal(context.Background(), 9, false)
				<-task.Done()
				w.Clear(context.Background(), task.Info().ID)
			}
		}
	}()
	if t.Failed() {
		return
	}
	time.Sleep(2*time.Second + trimMargin)
	var pss, anon, threads, wakes int
	for _, task := range tasks {
		pss += smaps(t, task.proc.Pid, "Pss")
		anon += smaps(t, task.proc.Pid, "Anonymous")
		n, k := switches(task.proc.Pid)
		wakes -= n
		threads += k
	}
	const span = 5
	time.Sleep(span * time.Second)
	for _, task := range tasks {
		n, _ := switches(task.proc.Pid)
		wakes += n
	}
	t.Logf("one idle supervisor: %d KiB proportional, %d KiB anonymous, %.1f threads; all: %.2f wake-ups per second",
		pss/count, anon/count, float64(threads)/count, float64(wakes)/span)
	if pss/count > 1500 {
		t.Errorf("%d KiB per idle container", pss/count)
	}
	if wakes/span >= 1 {
		t.Errorf("%d wake-ups in %d s", wakes, span)
	}
}

const trimMargin = 2 * time.Second

func TestKernelStartLatency(t *testing.T) {
	w := newWorld(t)
	var to []time.Duration
	for range 30 {
		r := w.request("")
		r.Spec.Process.Args = []string{"/bin/true"}
		began := time.Now()
		task, err := w.Start(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		to = append(to, time.Since(began))
		<-task.Done()
		if err := w.Clear(context.Background(), r.Config.ID); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(to)
	t.Logf("from Start to running: median %v, fastest %v, slowest %v", to[len(to)/2], to[0], to[len(to)-1])
}

func TestKernelLogThroughput(t *testing.T) {
	w := newWorld(t)
	const rounds, size = 10, 20 << 20
	line := []byte("a line of output as programs print them, of about seventy characters.\n")
	if err := os.WriteFile(filepath.Join(w.root, "text"), bytes.Repeat(line, size/len(line)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, driver := range []string{"none", "local", "json-file"} {
		r := w.request("for i in 0 1 2 3 4 5 6 7 8 9; do cat /text; done")
		r.Config.Log.Driver = driver
		began := time.Now()
		task := startKernel(t, w, r)
		<-task.Done()
		took := time.Since(began)
		if e := task.Exit(); e.Code != 0 || e.LogError != "" {
			t.Fatal(e)
		}
		t.Logf("%s: %.0f MB/s", driver, rounds*size/1e6/took.Seconds())
	}
}
