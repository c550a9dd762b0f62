package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// timed runs each function n times in turn (A B C A B C ...), after one warm-up, and gives the sorted durations.
func timed(n int, fs []func() error) ([][]time.Duration, error) {
	got := make([][]time.Duration, len(fs))
	for round := range n + 1 {
		for i, f := range fs {
			start := time.Now()
			if err := f(); err != nil {
				return nil, err
			}
			if round > 0 {
				got[i] = append(got[i], time.Since(start))
			}
		}
	}
	for i := range got {
		sorted(got[i])
	}
	return got, nil
}

func sorted(ds []time.Duration) []time.Duration {
	slices.Sort(ds)
	return ds
}

func median(ds []time.Duration) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	return ds[len(ds)/2]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func startLatency(r *report, o options, engines []*engine, _, _ string) error {
	for _, mode := range []struct {
		what, target string
		args         []string
	}{
		{"`run --rm IMAGE true`, default bridge", "≤ 25 ms, ≥ 10× faster than docker", nil},
		{"`run --rm --network none IMAGE true`", "≤ 18 ms", []string{"--network", "none"}},
		{"`run -d` and `rm -f`, default bridge", "", []string{"-d"}},
	} {
		var fs []func() error
		var used []*engine
		for _, e := range engines {
			args := append(append([]string{"run", "--rm"}, mode.args...), image, "/bin/true")
			if len(mode.args) == 1 {
				args = []string{"run", "-d", "--name", "bench-d", image, "/bin/sleep", "1000"}
			}
			if _, err := e.run(args...); err != nil {
				r.note("%s left out of %s: %v", e.name, mode.what, err)
				continue
			}
			detached := len(mode.args) == 1
			if detached {
				e.run("rm", "-f", "bench-d")
			}
			used = append(used, e)
			fs = append(fs, func() error {
				_, err := e.run(args...)
				if err == nil && detached {
					_, err = e.run("rm", "-f", "bench-d")
				}
				return err
			})
		}
		got, err := timed(o.runs, fs)
		if err != nil {
			return err
		}
		for i, e := range used {
			r.add(mode.what, mode.target, e.name, got[i])
		}
		if err := alone(r, o, mode.what, mode.target, used[0].name, fs[0]); err != nil {
			return err
		}
	}
	return nil
}

// alone times ours once more, one run after the other: in turn with others, what they leave to the kernel to be taken down
// behind them falls into our time.
func alone(r *report, o options, what, target, who string, f func() error) error {
	target, _, _ = strings.Cut(target, ", ")
	if !ours(who) || target == "" {
		return nil
	}
	got, err := timed(o.runs, []func() error{f})
	if err == nil {
		r.add(what+", no other engine in turn", target, who, got[0])
	}
	return err
}

func parallelStarts(r *report, _ options, engines []*engine, _, _ string) error {
	const clients, starts = 8, 200
	for _, e := range engines {
		n := starts
		if e.name != "shoal" {
			n = 40 // a rate; the peers need seconds for it
		}
		up, err := spread(clients, n, func(i int) error {
			_, err := e.run("run", "-d", "--name", fmt.Sprintf("bench-%d", i), image, "/bin/sleep", "1000")
			return err
		})
		if err != nil {
			r.note("%s left out of the parallel starts: %v", e.name, err)
			continue
		}
		down, err := spread(clients, n, func(i int) error {
			_, err := e.run("rm", "-f", fmt.Sprintf("bench-%d", i))
			return err
		})
		if err != nil {
			return err
		}
		r.rate("starts per second, 8 clients (`run -d`)", "≥ 50/s", e.name, float64(n)/up.Seconds())
		r.rate("stop and remove per second, 8 clients (`rm -f`)", "≥ 50/s", e.name, float64(n)/down.Seconds())
	}
	return nil
}

func spread(clients, n int, f func(i int) error) (time.Duration, error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	work := make(chan int, n)
	for i := range n {
		work <- i
	}
	close(work)
	start := time.Now()
	for range clients {
		wg.Go(func() {
			for i := range work {
				if err := f(i); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start), first
}

func logThroughput(r *report, _ options, engines []*engine, _, _ string) error {
	const bytes = 200 << 20
	for _, driver := range []string{"json-file", "local"} {
		for _, e := range engines {
			if e.name == "podman" {
				continue
			}
			before := cpu(e.daemonPid())
			start := time.Now()
			_, err := e.run("run", "--name", "bench-log", "-d", "--log-driver", driver, "--log-opt", "max-size=20m", "--log-opt", "max-file=2", image,
				"/bin/sh", "-c", fmt.Sprintf("yes abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz | head -c %d", bytes))
			if err == nil {
				_, err = e.run("wait", "bench-log")
			}
			took := time.Since(start)
			used := cpu(e.daemonPid()) - before
			e.run("rm", "-f", "bench-log")
			if err != nil {
				r.note("%s left out of log throughput with %s: %v", e.name, driver, err)
				continue
			}
			r.rate("log throughput, MB/s, driver "+driver, "≥ 3× docker", e.name, float64(bytes)/1e6/took.Seconds())
			r.rate("processor seconds of the daemon meanwhile, driver "+driver, "≈ 0", e.name, used.Seconds())
		}
	}
	return nil
}

func (e *engine) daemonPid() int {
	if e.daemon == nil {
		return 0
	}
	return e.daemon.Process.Pid
}

// cpu is the processor time that a process has used.
func cpu(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	sys, _ := strconv.Atoi(f[12])
	return time.Duration(user+sys) * 10 * time.Millisecond
}
