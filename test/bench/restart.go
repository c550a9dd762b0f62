package main

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

const restartContainers = 500

// restartSpeed kills our daemon with many containers running and measures how soon the next one serves its API, and lists them all
// as running. The others end their containers with the daemon, or have none.
func restartSpeed(r *report, o options, engines []*engine, _, _ string) error {
	i := slices.IndexFunc(engines, func(e *engine) bool { return e.name == "shoal" })
	if i < 0 {
		return nil
	}
	e := engines[i]
	name := func(i int) string { return fmt.Sprintf("bench-r%d", i) }
	defer spread(8, restartContainers, func(i int) error { _, err := e.run("rm", "-f", name(i)); return err })
	_, err := spread(8, restartContainers, func(i int) error {
		_, err := e.run("run", "-d", "--name", name(i), image, "/bin/sleep", "1000")
		return err
	})
	if err != nil {
		return err
	}
	var served, listed []time.Duration
	for range min(o.runs, 7) {
		took, err := e.restart(syscall.SIGKILL)
		if err != nil {
			return err
		}
		start := time.Now().Add(-took)
		served = append(served, took)
		ids, err := e.run("ps", "-q", "--filter", "name=bench-r", "--filter", "status=running")
		if err != nil {
			return err
		}
		listed = append(listed, time.Since(start))
		if n := len(strings.Fields(ids)); n != restartContainers {
			return fmt.Errorf("%d of %d containers run after the daemon was killed and started", n, restartContainers)
		}
	}
	with := fmt.Sprintf(", %d containers running", restartContainers)
	r.add("daemon killed, start to served API"+with, "< 1000 ms", e.name, sorted(served))
	r.add("daemon killed, start to `ps` with all of them"+with, "", e.name, sorted(listed))
	return nil
}
