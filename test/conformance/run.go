package conformance

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// limit is for one program: the slowest waits twice for ten seconds, and starts many containers.
const limit = 4 * time.Minute

// luck is how often the program poststart is run again until it passes: it wants the first line that a container's program
// writes to come before that of a hook, but both run at the same time, and on a busy machine the later one may be faster. That
// the hook is called after the execution is held by runtime/ocicli.
const luck = 4

// Runtime is an OCI runtime to be tried.
type Runtime struct {
	Name, Path string
	// PureV1 takes the unified hierarchy out of the runtime's sight: some refuse hosts with both.
	PureV1 bool
}

// Run runs programs with the runtime, in the order of names in the result. Everything a program makes is below dir, or in a
// mount namespace of its own, or removed after it.
func (rt Runtime) Run(ctx context.Context, p *Programs, names []string, dir string) ([]Result, error) {
	root := filepath.Join(dir, "state-"+rt.Name)
	temp := filepath.Join(dir, "bundles-"+rt.Name)
	for _, d := range []string{root, temp} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return nil, err
		}
	}
	// The programs take a path, not a command line.
	script := fmt.Sprintf("#!/bin/sh\nexec %s --root %s \"$@\"\n", rt.Path, root)
	if rt.PureV1 {
		script = fmt.Sprintf("#!/bin/sh\numount /sys/fs/cgroup/unified 2>/dev/null\nexec %s --root %s \"$@\"\n", rt.Path, root)
	}
	wrapper := filepath.Join(dir, "run-"+rt.Name)
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		return nil, err
	}
	results := make([]Result, len(names))
	one := func(i int) {
		results[i] = runProgram(ctx, p, names[i], wrapper, temp)
	}
	// Most of a program's time is waiting. Those that make cgroups share one, "cgrouptest", so they go one by one.
	shares := func(name string) bool {
		return strings.HasPrefix(name, "linux_cgroups") || strings.HasPrefix(name, "delete")
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i, n := range names {
		if shares(n) {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			one(i)
		})
	}
	wg.Wait()
	for i, n := range names {
		if shares(n) {
			one(i)
		}
		for range luck {
			if n == "poststart" && results[i].Verdict != Pass {
				one(i)
			}
		}
	}
	return results, rt.clean(root, wrapper)
}

func runProgram(ctx context.Context, p *Programs, name, wrapper, temp string) Result {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(p.Dir, name))
	cmd.Dir = p.Dir
	cmd.Env = append(os.Environ(), "RUNTIME="+wrapper, "TMPDIR="+temp)
	// Its own mount namespace: runc without one in the configuration mounts into that of its caller.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Unshareflags: unix.CLONE_NEWNS}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("no end within %v", limit)
	}
	return read(name, stdout.String(), stderr.String(), err)
}

// clean removes the containers that programs left, and the control groups whose names are in the programs.
func (rt Runtime) clean(root, wrapper string) error {
	entries, err := os.ReadDir(root)
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			exec.Command(wrapper, "delete", "--force", e.Name()).Run()
		}
	}
	for _, group := range []string{"testdir/cgrouptest/container", "testdir/cgrouptest", "testdir", "cgrouptest"} {
		dirs, _ := filepath.Glob("/sys/fs/cgroup/*/" + group)
		for _, d := range append(dirs, "/sys/fs/cgroup/"+group) {
			unix.Rmdir(d)
		}
	}
	return err
}

// Installed gives the runtimes of this host: Shoal's at path, and those others that are there.
func Installed(path string) []Runtime {
	rts := []Runtime{{Name: "shoal-runtime", Path: path}}
	_, err := os.Stat("/sys/fs/cgroup/unified/cgroup.procs")
	for _, name := range []string{"crun", "runc"} {
		if p, lookErr := exec.LookPath(name); lookErr == nil {
			rts = append(rts, Runtime{Name: name, Path: p, PureV1: name == "crun" && err == nil})
		}
	}
	return rts
}

// Version is the first line of the runtime's --version.
func (rt Runtime) Version() string {
	out, _ := exec.Command(rt.Path, "--version").Output()
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// Select keeps the programs whose names hold part.
func (p *Programs) Select(part string) []string {
	return slices.DeleteFunc(slices.Clone(p.Names), func(n string) bool { return !strings.Contains(n, part) })
}
