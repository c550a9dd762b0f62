package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// event is one line of the kernel's trace.
type event struct {
	at   time.Duration // since boot
	task int           // the thread it happened in
	kind string        // as the kernel calls it: sched_process_exec, sched_process_fork, sched_process_exit, sys_enter
	rest string
}

var (
	tracedLine  = regexp.MustCompile(`^\s*.+-(\d+)\s+\[\d+\]\s+\S+\s+(\d+)\.(\d{6}): (\w+): (.*)$`)
	childPid    = regexp.MustCompile(`child_pid=(\d+)`)
	execFile    = regexp.MustCompile(`filename=(\S+) pid=(\d+)`)
	lastOfGroup = regexp.MustCompile(` pid=(\d+) .*group_dead=true`)
)

func readTrace(text string) []event {
	var all []event
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		m := tracedLine.FindStringSubmatch(s.Text())
		if m == nil {
			continue
		}
		task, _ := strconv.Atoi(m[1])
		sec, _ := strconv.Atoi(m[2])
		micro, _ := strconv.Atoi(m[3])
		all = append(all, event{time.Duration(sec)*time.Second + time.Duration(micro)*time.Microsecond, task, m[4], m[5]})
	}
	return all
}

// tracer is an instance of the kernel's tracing of our own, so that nobody else's is disturbed. It sees starts and ends of
// processes and connects, no more: what is traced is slowed down by it.
type tracer struct{ dir string }

func newTracer() (*tracer, error) {
	const tracefs = "/sys/kernel/tracing"
	if _, err := os.Stat(tracefs + "/instances"); err != nil {
		if err := unix.Mount("tracefs", tracefs, "tracefs", 0, ""); err != nil {
			return nil, fmt.Errorf("mount %s: %w", tracefs, err)
		}
	}
	t := &tracer{fmt.Sprintf("%s/instances/shoal-bench-%d", tracefs, os.Getpid())}
	if err := os.Mkdir(t.dir, 0o700); err != nil {
		return nil, err
	}
	for _, set := range [][2]string{
		{"tracing_on", "0"}, {"trace_clock", "mono"}, {"buffer_size_kb", "1024"},
		{"events/raw_syscalls/sys_enter/filter", fmt.Sprintf("id == %d", unix.SYS_CONNECT)}, {"events/raw_syscalls/sys_enter/enable", "1"},
		{"events/sched/sched_process_exec/enable", "1"}, {"events/sched/sched_process_fork/enable", "1"}, {"events/sched/sched_process_exit/enable", "1"},
	} {
		if err := t.set(set[0], set[1]); err != nil {
			t.close()
			return nil, err
		}
	}
	return t, nil
}

func (t *tracer) set(name, value string) error {
	return os.WriteFile(filepath.Join(t.dir, name), []byte(value), 0)
}

func (t *tracer) close() { os.Remove(t.dir) }

// run runs a command to its end and gives its pid and what was traced meanwhile.
func (t *tracer) run(cmd *exec.Cmd) (int, []event, error) {
	if err := t.set("trace", ""); err != nil {
		return 0, nil, err
	}
	if err := t.set("tracing_on", "1"); err != nil {
		return 0, nil, err
	}
	out, err := cmd.CombinedOutput()
	t.set("tracing_on", "0")
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %v: %s", cmd, err, out)
	}
	text, err := os.ReadFile(filepath.Join(t.dir, "trace"))
	if err != nil {
		return 0, nil, err
	}
	return cmd.Process.Pid, readTrace(string(text)), nil
}

// moments are when the parts of a start begin and end. What did not happen is zero.
type moments struct {
	began, firstConnect, lastConnect time.Duration // of the command
	initBegan                        time.Duration // the runtime is executed anew, as init
	programBegan, programEnded       time.Duration
	ended                            time.Duration
}

// momentsOf finds them in the trace of the command with this pid that runs the program.
func momentsOf(pid int, program string, all []event) (m moments) {
	own := map[int]bool{pid: true} // the command's threads
	programPid := 0
	for _, e := range all {
		switch e.kind {
		case "sched_process_fork":
			if c := childPid.FindStringSubmatch(e.rest); c != nil && own[e.task] {
				n, _ := strconv.Atoi(c[1])
				own[n] = true
			}
		case "sys_enter":
			if own[e.task] && m.began != 0 && m.initBegan == 0 {
				if m.firstConnect == 0 {
					m.firstConnect = e.at
				}
				m.lastConnect = e.at
			}
		case "sched_process_exec":
			f := execFile.FindStringSubmatch(e.rest)
			if f == nil {
				continue
			}
			switch n, _ := strconv.Atoi(f[2]); {
			case n == pid && m.began == 0:
				m.began = e.at
			case m.began == 0 || n == pid:
			case f[1] == program && m.programBegan == 0:
				m.programBegan, programPid = e.at, n
			case (strings.HasPrefix(f[1], "/proc/self/") || strings.HasPrefix(f[1], "/dev/fd/")) && m.initBegan == 0:
				m.initBegan = e.at
			}
		case "sched_process_exit":
			if g := lastOfGroup.FindStringSubmatch(e.rest); g != nil {
				switch n, _ := strconv.Atoi(g[1]); {
				case n == programPid && m.programEnded == 0:
					m.programEnded = e.at
				case own[n]:
					m.ended = e.at
				}
			}
		}
	}
	return m
}

// emptyProgram builds a Go program that does nothing.
func emptyProgram(dir string) (string, error) {
	src, bin := filepath.Join(dir, "empty.go"), filepath.Join(dir, "empty")
	if err := os.WriteFile(src, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", bin, src)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build an empty program: %v: %s", err, out)
	}
	return bin, nil
}
