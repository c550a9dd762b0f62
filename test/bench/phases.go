package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// phase is a part of a start, for each of those who have it.
type phase struct {
	what string
	part func(moments) time.Duration
}

var runPhases = []phase{
	{"the command line starts, to its first connect", func(m moments) time.Duration { return m.firstConnect - m.began }},
	{"it greets, creates and attaches, to its last connect", func(m moments) time.Duration { return m.lastConnect - m.firstConnect }},
	{"daemon, supervisor and runtime prepare, to the execution of init", func(m moments) time.Duration { return m.initBegan - m.lastConnect }},
	{"init starts and makes the container, to the execution of the program", func(m moments) time.Duration { return m.programBegan - m.initBegan }},
	{"the program itself", func(m moments) time.Duration { return m.programEnded - m.programBegan }},
	{"all is taken down and reported, the command line ends", func(m moments) time.Duration { return m.ended - m.programEnded }},
	{"in all", func(m moments) time.Duration { return m.ended - m.began }},
}

var runtimePhases = []phase{
	{"the runtime starts, prepares and clones, to the execution of init", func(m moments) time.Duration { return m.initBegan - m.began }},
	{"init starts and makes the container, to the execution of the program", func(m moments) time.Duration { return m.programBegan - m.initBegan }},
	{"the program itself", func(m moments) time.Duration { return m.programEnded - m.programBegan }},
	{"all is taken down, the runtime ends", func(m moments) time.Duration { return m.ended - m.programEnded }},
	{"in all", func(m moments) time.Duration { return m.ended - m.began }},
}

// phaseTable is where the time of one thing goes.
type phaseTable struct {
	what   string
	phases []phase
	who    []string
	got    [][]moments // of each
}

func (t phaseTable) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n| %s | %s |\n|---|%s\n", t.what, strings.Join(t.who, " | "), strings.Repeat("---|", len(t.who)))
	for _, p := range t.phases {
		fmt.Fprintf(&b, "| %s |", p.what)
		for _, got := range t.got {
			ds := make([]time.Duration, len(got))
			for i, m := range got {
				ds[i] = p.part(m)
			}
			fmt.Fprintf(&b, " %s |", ms(median(ds)))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// phasesOf says where the time of the starts goes, from the kernel's trace.
func phasesOf(tables []phaseTable) string {
	if len(tables) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n## Where the time of a start goes\n\nMedians from the kernel's trace of executions, ends and connects; each part has a median of its own, so they do not add up exactly.\n")
	for _, t := range tables {
		b.WriteString(t.markdown())
	}
	return b.String()
}

// startPhases takes starts apart: those of the engines with a daemon and those of the runtimes.
func startPhases(r *report, o options, engines []*engine, dir, bin string) error {
	t, err := newTracer()
	if err != nil {
		r.note("where the time of a start goes: this kernel cannot trace: %v", err)
		return nil
	}
	defer t.close()
	run := phaseTable{what: "`run --rm --network none IMAGE true`", phases: runPhases}
	var cmds []func() *exec.Cmd
	for _, e := range engines {
		if e.daemon != nil {
			run.who = append(run.who, e.name)
			cmds = append(cmds, func() *exec.Cmd { return e.cmd("run", "--rm", "--network", "none", image, "/bin/true") })
		}
	}
	if err := t.fill(&run, o.runs, cmds); err != nil {
		return err
	}
	bundle, states, err := benchBundle(dir)
	if err != nil {
		return err
	}
	defer os.RemoveAll(states)
	runtimes := phaseTable{what: "OCI runtime `run BUNDLE`", phases: runtimePhases}
	cmds = nil
	for _, rt := range benchRuntimes(bin, "") {
		id, n := "phase-"+rt.name, 0
		next := func() *exec.Cmd {
			n++
			return exec.Command(rt.path, "--root", filepath.Join(states, rt.name), "run", "--bundle", bundle, fmt.Sprintf("%s-%d", id, n))
		}
		if next().Run() != nil {
			continue // the section of the runtimes says why
		}
		runtimes.who = append(runtimes.who, rt.name)
		cmds = append(cmds, next)
	}
	if err := t.fill(&runtimes, o.runs, cmds); err != nil {
		return err
	}
	r.phases = append(r.phases, run, runtimes)
	empty, err := emptyProgram(dir)
	if err != nil {
		return err
	}
	got, err := timed(o.runs, []func() error{func() error { return exec.Command(empty).Run() }})
	if err == nil {
		r.add("a Go program that does nothing, as the floor of each of Shoal's processes", "", "empty program", got[0])
	}
	return err
}

// fill runs the commands in turn and keeps the moments of each.
func (t *tracer) fill(table *phaseTable, runs int, cmds []func() *exec.Cmd) error {
	table.got = make([][]moments, len(cmds))
	for range runs {
		for i, next := range cmds {
			pid, events, err := t.run(next())
			if err != nil {
				return err
			}
			m := momentsOf(pid, "/bin/true", events)
			if m.programBegan == 0 || m.programEnded == 0 || m.initBegan == 0 || m.ended == 0 {
				return fmt.Errorf("the kernel's trace of a start by %s lacks a part: %+v", table.who[i], m)
			}
			table.got[i] = append(table.got[i], m)
		}
	}
	return nil
}
