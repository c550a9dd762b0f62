package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// process is what one process uses, or many of the same program together.
type process struct {
	program     string
	count       int
	rss, pss    int64 // bytes
	slices, run int64 // turns on a processor, ns on it
}

// usage is by process: the daemon, everything that names the engine's directory in its command line, and their helpers;
// never the containers' own programs.
type usage map[int]process

func (u usage) sum() (p process) {
	for _, x := range u {
		p.rss, p.pss, p.slices, p.run, p.count = p.rss+x.rss, p.pss+x.pss, p.slices+x.slices, p.run+x.run, p.count+1
	}
	return p
}

// since is what was used between two looks, and the memory at the later one; processes that came meanwhile count whole.
func (u usage) since(before usage) usage {
	out := usage{}
	for pid, now := range u {
		if was, there := before[pid]; there && was.program == now.program {
			now.slices, now.run = now.slices-was.slices, now.run-was.run
		}
		out[pid] = now
	}
	return out
}

// programs adds up the processes of the same program.
func (u usage) programs() []process {
	sums := map[string]process{}
	for _, p := range u {
		s := sums[p.program]
		sums[p.program] = process{p.program, s.count + 1, s.rss + p.rss, s.pss + p.pss, s.slices + p.slices, s.run + p.run}
	}
	var out []process
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		out = append(out, sums[name])
	}
	return out
}

// atRest measures engines that do nothing, with several numbers of containers that do nothing.
func atRest(r *report, o options, engines []*engine, _, _ string) error {
	steps := slices.Compact([]int{0, min(20, o.containers), o.containers})
	for _, e := range engines {
		time.Sleep(3 * time.Second)
		have := 0
		var empty process
		for _, n := range steps {
			err := e.grow(have, n)
			if err != nil {
				r.note("%s left out of the rest with %d containers: %v", e.name, n, err)
				break
			}
			if have = n; n > 0 {
				time.Sleep(15 * time.Second) // starting is over: supervisors have given back what they took for it
			}
			used := restFigures(r, o, e, n)
			if n == 0 {
				empty = used
			} else if n == o.containers {
				r.rate("engine's memory for one more idle container, MB (PSS)", "≤ 1.5", e.name, float64(used.pss-empty.pss)/1e6/float64(n))
			}
		}
		remove := []string{"rm", "-f"}
		if e.daemon == nil {
			remove = append(remove, "-t", "0") // podman asks the program first, and gives it ten seconds
		}
		for i := range have {
			e.run(append(slices.Clone(remove), fmt.Sprintf("bench-%d", i))...)
		}
	}
	return nil
}

// grow starts containers until there are n.
func (e *engine) grow(have, n int) error {
	for i := have; i < n; i++ {
		if _, err := e.run("run", "-d", "--name", fmt.Sprintf("bench-%d", i), image, "/bin/sleep", "100000"); err != nil {
			return err
		}
	}
	return nil
}

func restFigures(r *report, o options, e *engine, n int) process {
	before := e.usage()
	time.Sleep(time.Duration(o.idle) * time.Second)
	used := e.usage().since(before)
	sum := used.sum()
	what := fmt.Sprintf("with %d idle containers", n)
	r.rate("time slices per second at rest, "+what, "< 1", e.name, float64(sum.slices)/float64(o.idle))
	r.rate("processor ms per second at rest, "+what, "≤ 0.05", e.name, float64(sum.run)/1e6/float64(o.idle))
	if n == 0 && e.daemon != nil {
		r.rate("daemon with nothing running, MB resident", "≤ 60", e.name, float64(used[e.daemonPid()].rss)/1e6)
	}
	for _, p := range used.programs() {
		r.rest = append(r.rest, restRow{e.name, n, o.idle, p})
	}
	return sum
}

// restRow is one line of the table of all processes at rest.
type restRow struct {
	engine     string
	containers int
	seconds    int
	process
}

// restTable says of every program of every engine what it uses at rest.
func restTable(rows []restRow) string {
	if len(rows) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n## At rest, every process\n\nOver %d s each, from `/proc/PID/task/*/schedstat` and `smaps_rollup`; sums over all processes of a program.\n\n", rows[0].seconds)
	b.WriteString("| engine | idle containers | program | processes | time slices/s | processor ms/s | RSS MB | PSS MB |\n|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %d | %s | %d | %.3f | %.4f | %.1f | %.1f |\n", r.engine, r.containers, r.program, r.count,
			float64(r.slices)/float64(r.seconds), float64(r.run)/1e6/float64(r.seconds), float64(r.rss)/1e6, float64(r.pss)/1e6)
	}
	return b.String()
}

func (e *engine) usage() usage {
	u := usage{}
	for _, pid := range e.pids() {
		dir := "/proc/" + strconv.Itoa(pid)
		name, _ := os.Readlink(dir + "/exe")
		p := process{program: strings.TrimSuffix(filepath.Base(name), " (deleted)"), count: 1, rss: field(dir+"/smaps_rollup", "Rss:"), pss: field(dir+"/smaps_rollup", "Pss:")}
		tasks, _ := filepath.Glob(dir + "/task/*/schedstat")
		for _, t := range tasks {
			b, _ := os.ReadFile(t)
			if f := strings.Fields(string(b)); len(f) == 3 {
				ns, _ := strconv.ParseInt(f[0], 10, 64)
				turns, _ := strconv.ParseInt(f[2], 10, 64)
				p.run += ns
				p.slices += turns
			}
		}
		u[pid] = p
	}
	return u
}

func (e *engine) pids() (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, c := range all {
		b, err := os.ReadFile(c)
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(c)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		if strings.Contains(string(b), e.dir) || e.daemon != nil && parent(pid) == e.daemonPid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

func parent(pid int) int {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(f[1])
	return n
}

func field(path, name string) int64 {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	return scanField(f, name)
}

func scanField(f io.Reader, name string) int64 {
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), name); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n * 1024
		}
	}
	return 0
}
