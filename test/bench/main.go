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
	bin, out, only string
	runs, idle     int
	containers     int
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of shoal, shoald, shoal-runtime")
	flag.StringVar(&o.out, "o", "", "file to write the table to, besides standard output")
	flag.StringVar(&o.only, "only", "", "run only sections whose name holds this")
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
	engines, stop := startEngines(dir, bin, root)
	defer stop()
	var r report
	for _, s := range []struct {
		name string
		run  func(*report, options, []*engine, string, string) error
	}{
		{"start", startLatency}, {"runtime", runtimeLatency}, {"parallel", parallelStarts},
		{"pull", pullSpeed}, {"build", buildSpeed}, {"images", manyImagesSpeed}, {"logs", logThroughput}, {"netspeed", networkSpeed}, {"netchange", networkChanges}, {"rest", atRest},
	} {
		if o.only != "" && !strings.Contains(s.name, o.only) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", s.name)
		if err := s.run(&r, o, engines, dir, bin); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	text := r.markdown(engines, time.Now())
	fmt.Print(text)
	if o.out != "" {
		return os.WriteFile(o.out, []byte(text), 0o644)
	}
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
