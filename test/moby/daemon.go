package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// daemon is the shoald under test, in a directory of its own.
type daemon struct {
	options
	dir  string
	cmd  *exec.Cmd
	done chan struct{}
}

const mainBridge = "moby-main0"

// bridge makes the main daemon's default network, so that the tests' own daemons have the usual one to themselves.
func (d *daemon) bridge() error {
	for _, args := range []string{"link add " + mainBridge + " type bridge", "addr add 172.31.77.1/24 dev " + mainBridge, "link set " + mainBridge + " up"} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
	}
	return nil
}

func (d *daemon) socket() string { return filepath.Join(d.dir, "shoal.sock") }

// prepare makes a directory with a "dockerd" for those tests that start daemons of their own: the daemon under test,
// without the flags that name a containerd that is not there.
func (d *daemon) prepare() error {
	bin, err := filepath.Abs(d.bin)
	if err != nil {
		return err
	}
	d.bin = bin
	if d.witness == "" {
		if err := d.bridge(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(d.dir, "path"), 0o755); err != nil {
		return err
	}
	program := filepath.Join(bin, "shoald")
	if d.witness != "" {
		program = filepath.Join(d.witness, "dockerd")
	}
	script := `#!/bin/bash
args=()
while [ $# -gt 0 ]; do
	case "$1" in
	--containerd|--containerd-namespace|--containerd-plugins-namespace) shift ;;
	--containerd=*) ;;
	--data-root) root=$2; args+=("$1") ;;
	*) args+=("$1") ;;
	esac
	shift
done
# A default bridge that the daemon of an earlier test left belongs to that one.
owner=` + d.dir + `/bridge-owner
if [ "$(cat $owner 2>/dev/null)" != "$root" ]; then ip link delete shoal0 2>/dev/null; fi
echo "$root" > $owner
exec ` + program + ` "${args[@]}"
`
	return os.WriteFile(filepath.Join(d.dir, "path", "dockerd"), []byte(script), 0o755)
}

func (d *daemon) command() *exec.Cmd {
	args := []string{"--data-root", d.dir + "/data", "--exec-root", d.dir + "/exec", "--pidfile", d.dir + "/pid", "-H", "unix://" + d.socket(),
		"--config-file", "/dev/null"}
	if d.witness == "" {
		args = append(args, "--bridge", mainBridge) // shoal0 is for the daemons that tests start
		return exec.Command(filepath.Join(d.bin, "shoald"), append(args, "--cgroup-parent", "/"+filepath.Base(d.dir))...)
	}
	return exec.Command(filepath.Join(d.witness, "dockerd"), args...)
}

// ensure starts the daemon where none runs: before the first test, and after one that ended it.
func (d *daemon) ensure() error {
	if d.cmd != nil {
		select {
		case <-d.done:
			fmt.Println("the daemon has ended; it is started again")
		default:
			return nil
		}
	}
	log, err := os.OpenFile(filepath.Join(d.dir, "daemon.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = d.command()
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.Env = append(os.Environ(), "PATH="+d.witness+":"+os.Getenv("PATH"))
	if err := d.cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	d.done = done
	go func(cmd *exec.Cmd) { cmd.Wait(); close(done) }(d.cmd)
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.socket())
	}}}
	for until := time.Now().Add(30 * time.Second); ; {
		resp, err := client.Get("http://engine/_ping")
		if err == nil {
			return resp.Body.Close()
		}
		select {
		case <-done:
		case <-time.After(10 * time.Millisecond):
			if time.Now().Before(until) {
				continue
			}
		}
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("the daemon does not answer: %v\n%s", err, text)
	}
}

func (d *daemon) stop() {
	if d.cmd != nil {
		d.cmd.Process.Signal(syscall.SIGTERM)
		<-d.done
	}
	d.sweep()
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) { // also those of the tests' daemons
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], d.dir+"/") {
			syscall.Unmount(f[4], syscall.MNT_DETACH)
		}
	}
	cgroups, _ := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(d.dir))
	for _, c := range cgroups {
		var dirs []string
		filepath.WalkDir(c, func(path string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) {
			syscall.Rmdir(dir)
		}
	}
}

func (d *daemon) environment() []string {
	work := filepath.Join(d.dir, "daemons")
	os.MkdirAll(work, 0o755)
	return append(os.Environ(), "DOCKER_HOST=unix://"+d.socket(), "DOCKER_INTEGRATION_DAEMON_DEST="+work, "DEST="+work,
		"PATH="+filepath.Join(d.dir, "path")+":"+d.witness+":"+os.Getenv("PATH"), "TMPDIR="+d.dir, "TEST_CLIENT_BINARY=docker",
		"OTEL_SDK_DISABLED=true")
}

// test runs one test in its own process, since one that panics or hangs would take the others with it.
func (d *daemon) test(program, dir, name string) (string, time.Duration) {
	start := time.Now()
	cmd := exec.Command(program, "-test.v", "-test.run", "^"+name+"$", "-test.timeout", d.timeout.String())
	cmd.Dir, cmd.Env = dir, d.environment()
	// Output goes to a file: a daemon that a test leaves behind would hold a pipe open.
	file, err := os.CreateTemp(d.dir, "out-")
	if err != nil {
		return "--- FAIL: " + name + "\n" + err.Error(), 0
	}
	defer os.Remove(file.Name())
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	timer := time.AfterFunc(d.timeout+10*time.Second, func() { cmd.Process.Kill() })
	if err := cmd.Run(); err != nil {
		fmt.Fprintf(file, "\n%v\n", err)
	}
	timer.Stop()
	d.sweep()
	text, err := os.ReadFile(file.Name())
	if err != nil {
		return "--- FAIL: " + name + "\n" + err.Error(), 0
	}
	return string(text), time.Since(start)
}

// sweep ends the daemons that a failed test left, which would go on repairing their networks. This program is the first of
// its own process namespace, so that nobody else's are here.
func (d *daemon) sweep() {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		text, err := os.ReadFile(p)
		if err != nil || !bytes.Contains(text, []byte(filepath.Join(d.dir, "daemons")+"/")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p))); err == nil {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

var startsDaemon = regexp.MustCompile(`daemon\.New\(`)

// topLevel lists a program's tests, in the order of the sources.
func topLevel(d *daemon, program, dir string, withoutDaemons bool) (names []string, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return nil, err
	}
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(\w+ \*testing\.T\)`)
	for _, file := range files {
		if strings.HasSuffix(file, "_windows_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		at := function.FindAllSubmatchIndex(text, -1)
		for i, m := range at {
			end := len(text)
			if i+1 < len(at) {
				end = at[i+1][0]
			}
			if withoutDaemons && startsDaemon.Match(text[m[0]:end]) {
				continue
			}
			names = append(names, string(bytes.Clone(text[m[2]:m[3]])))
		}
	}
	return names, nil
}
