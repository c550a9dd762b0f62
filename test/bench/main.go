// Command bench measures Shoal beside every other engine and runtime that is installed, in one run, and writes the table
// of docs/benchmarks.md. Figures are medians; what counts are the ratios, since machines differ and are noisy. It works
// in a network namespace of its own and removes what it made. It must not judge: targets are in the table, met or not.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

type options struct {
	bin, out   string
	only, skip string
	docker29   string
	compare    string
	runs, idle int
	containers int
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of shoal, shoald, shoal-runtime")
	flag.StringVar(&o.docker29, "docker29", "", "directory of a newer dockerd with its containerd, shim and runc, to measure in the installed one's place (scripts/docker29 makes it)")
	flag.StringVar(&o.out, "o", "", "file to write the table to, besides standard output")
	flag.StringVar(&o.only, "only", "", "run only sections whose name holds this")
	flag.StringVar(&o.skip, "skip", "", "leave out sections whose name holds this")
	flag.StringVar(&o.compare, "compare", "", "table to compare with: fail where Shoal's ratio to another is more than 20 % worse, three times in a row")
	flag.IntVar(&o.runs, "n", 30, "runs per figure")
	flag.IntVar(&o.idle, "idle", 60, "seconds to watch engines at rest")
	flag.IntVar(&o.containers, "containers", 100, "idle containers")
	flag.Parse()
	if os.Getenv("SHOAL_BENCH_INSIDE") == "" {
		os.Exit(inOwnNetwork())
	}
	if err := bench(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// inOwnNetwork runs this program again in a fresh network namespace, so that no engine touches the machine's network.
func inOwnNetwork() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), "SHOAL_BENCH_INSIDE=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func bench(o options) error {
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("loopback: %v: %s", err, out)
	}
	dir, err := os.MkdirTemp("/var/tmp", "shoal-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return err
	}
	root, err := busyboxRoot(dir)
	if err != nil {
		return err
	}
	engines, stop := startEngines(dir, bin, o.docker29, root)
	defer stop()
	in := inside{options: o, engines: engines, dir: dir, bin: bin}
	var before map[pair]float64
	if o.compare != "" {
		text, err := os.ReadFile(o.compare)
		if err == nil {
			before, err = advantages(string(text))
		}
		if err != nil {
			return fmt.Errorf("table to compare with: %s: %w", o.compare, err)
		}
	}
	var r report
	if err := in.measure(&r, func(name string) bool {
		return strings.Contains(name, o.only) && (o.skip == "" || !strings.Contains(name, o.skip))
	}); err != nil {
		return err
	}
	text := r.markdown(engines, time.Now())
	fmt.Print(text)
	if o.out != "" {
		if err := os.WriteFile(o.out, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if before == nil {
		return nil
	}
	return in.judge(before, &r)
}

// inside is what measuring needs.
type inside struct {
	options
	engines  []*engine
	dir, bin string
}

var sections = []struct {
	name string
	run  func(*report, options, []*engine, string, string) error
}{
	{"start", startLatency}, {"runtime", runtimeLatency}, {"phases", startPhases}, {"parallel", parallelStarts},
	{"pull", pullSpeed}, {"build", buildSpeed}, {"images", manyImagesSpeed}, {"logs", logThroughput}, {"netspeed", networkSpeed}, {"netchange", networkChanges}, {"killed", restartSpeed}, {"rest", atRest},
}

// measure runs the sections that are chosen.
func (in *inside) measure(r *report, chosen func(section string) bool) error {
	for _, s := range sections {
		if !chosen(s.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", s.name)
		first := len(r.figures)
		if err := s.run(r, in.options, in.engines, in.dir, in.bin); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		for i := range r.figures[first:] {
			r.figures[first+i].section = s.name
		}
	}
	return nil
}

// judge fails when something is worse than in the table of before, whenever it is measured.
func (in *inside) judge(before map[pair]float64, r *report) error {
	now, err := advantages(r.markdown(in.engines, time.Now()))
	if err != nil {
		return err
	}
	lines, err := confirmed(before, now, func(bad []pair) (map[pair]float64, error) {
		var again report
		if err := in.measure(&again, func(section string) bool { return r.holds(section, bad) }); err != nil {
			return nil, err
		}
		return advantages(again.markdown(in.engines, time.Now()))
	})
	if err != nil {
		return err
	}
	if len(lines) > 0 {
		return fmt.Errorf("worse than in %s by more than a fifth, three times:\n  %s", in.compare, strings.Join(lines, "\n  "))
	}
	fmt.Fprintf(os.Stderr, "bench: nothing is worse than in %s by more than a fifth\n", in.compare)
	return nil
}

// busyboxRoot makes a root file system of Debian's static busybox, the same for every engine.
func busyboxRoot(dir string) (string, error) {
	bb, err := exec.LookPath("busybox")
	if err != nil {
		return "", fmt.Errorf("busybox is needed (Debian's busybox-static): %w", err)
	}
	data, err := os.ReadFile(bb)
	if err != nil {
		return "", err
	}
	root := filepath.Join(dir, "root")
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), data, 0o755); err != nil {
		return "", err
	}
	for _, name := range []string{"sh", "true", "sleep", "yes", "head", "cat", "dd"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			return "", err
		}
	}
	tar := filepath.Join(dir, "root.tar")
	out, err := exec.Command("tar", "-C", root, "-cf", tar, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("tar: %v: %s", err, out)
	}
	return tar, nil
}
