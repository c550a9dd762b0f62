//go:build kernel

package world

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// World is one daemon on a "host" of its own: private directories, private network namespace.
type World struct {
	T      testing.TB
	Dir    string // everything of this world is below
	Socket string
	flags  []string
	env    []string
	daemon *exec.Cmd
	ended  chan struct{}
	inNet  chan func()
	log    string
	cgroup string // parent of its containers
}

// Bin is the path of one of our binaries: from SHOAL_BIN, else the repository's bin.
func Bin(t testing.TB, name string) string {
	dir := os.Getenv("SHOAL_BIN")
	if dir == "" {
		_, here, _, _ := runtime.Caller(0)
		dir = filepath.Join(filepath.Dir(here), "..", "..", "bin")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	return path
}

// New starts a daemon with further flags. The test's end stops its containers and fails the test when anything is left.
func New(t testing.TB, flags ...string) *World {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("", "shoal-world-")
	if err != nil {
		t.Fatal(err)
	}
	w := &World{T: t, Dir: dir, Socket: dir + "/shoal.sock", inNet: make(chan func()), log: dir + "/shoald.log"}
	w.cgroup = "/" + filepath.Base(dir)
	w.flags = append([]string{"--data-root", dir + "/data", "--exec-root", dir + "/exec", "--pidfile", dir + "/pid",
		"-H", "unix://" + w.Socket, "--config-file", "/dev/null", "--cgroup-parent", w.cgroup}, flags...)
	ready := make(chan error)
	go w.network(ready)
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	w.StartDaemon()
	return w
}

// network owns the thread that lives in this world's network namespace.
func (w *World) network(ready chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and with it the namespace
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err == nil {
		err = loopbackUp()
	}
	ready <- err
	for f := range w.inNet {
		f()
	}
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

// InNet runs f on a thread in the world's network namespace. Sockets that f makes stay there.
func (w *World) InNet(f func()) {
	done := make(chan struct{})
	w.inNet <- func() { defer close(done); f() }
	<-done
}

// StartDaemon starts the daemon and waits until it answers. Further environment is for fail points.
func (w *World) StartDaemon(env ...string) {
	w.T.Helper()
	if err := w.TryStartDaemon(env...); err != nil {
		w.T.Fatal(err)
	}
}

// TryStartDaemon starts a daemon that may not come up; then the error has what it printed.
func (w *World) TryStartDaemon(env ...string) error {
	w.T.Helper()
	log, err := os.OpenFile(w.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.T.Fatal(err)
	}
	defer log.Close()
	before := len(w.DaemonLog())
	cmd := exec.Command(Bin(w.T, "shoald"), w.flags...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	w.InNet(func() { err = cmd.Start() })
	if err != nil {
		w.T.Fatal(err)
	}
	w.daemon, w.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) { cmd.Wait(); close(ended) }(w.ended)
	client := w.Client()
	for until := time.Now().Add(time.Minute); ; { // an emulated machine beside others needs 20 s
		resp, err := client.Get("http://shoal/_ping")
		if err == nil {
			resp.Body.Close()
			return nil
		}
		select {
		case <-w.ended:
			return fmt.Errorf("the daemon ended at its start:\n%s", w.DaemonLog()[before:])
		case <-time.After(2 * time.Millisecond):
		}
		if time.Now().After(until) {
			return fmt.Errorf("the daemon does not answer: %v\n%s", err, w.DaemonLog())
		}
	}
}

// Client speaks HTTP to the daemon's socket, whatever the URL's host.
func (w *World) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", w.Socket)
	}}}
}

// WebClient speaks HTTP from the world's host.
func (w *World) WebClient() *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, addr string) (c net.Conn, err error) {
			w.InNet(func() { c, err = net.DialTimeout(network, addr, 5*time.Second) })
			return c, err
		}}}
}

// DaemonLog is what the daemon printed.
func (w *World) DaemonLog() string {
	b, _ := os.ReadFile(w.log)
	return string(b)
}

// DaemonPid is the daemon's process ID.
func (w *World) DaemonPid() int { return w.daemon.Process.Pid }

// KillDaemon ends the daemon by SIGKILL, as a crash would.
func (w *World) KillDaemon() { w.signal(syscall.SIGKILL) }

// StopDaemon ends the daemon as systemd would.
func (w *World) StopDaemon() { w.signal(syscall.SIGTERM) }

// Cleanup ends the daemon and takes away what it leaves for the next one, as the removal of the package does.
func (w *World) Cleanup() (said string, err error) {
	w.T.Helper()
	w.StopDaemon()
	cmd := exec.Command(Bin(w.T, "shoald"), append([]string{"cleanup"}, w.flags...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	w.InNet(func() { err = cmd.Start() })
	if err == nil {
		err = cmd.Wait()
	}
	return out.String(), err
}

func (w *World) signal(sig syscall.Signal) {
	w.T.Helper()
	w.daemon.Process.Signal(sig)
	w.AwaitDaemonEnd()
}

// AwaitDaemonEnd waits until the daemon has ended by itself, as a fail point makes it.
func (w *World) AwaitDaemonEnd() {
	w.T.Helper()
	select {
	case <-w.ended:
	case <-time.After(time.Minute):
		w.daemon.Process.Kill()
		w.T.Fatalf("the daemon did not end:\n%s", w.DaemonLog())
	}
}

// Result is what a program printed and its exit code.
type Result struct {
	Out, Err string
	Code     int
}

// Shoal runs our command line against the daemon.
func (w *World) Shoal(args ...string) Result { return w.Run(Bin(w.T, "shoal"), args...) }

// Docker runs the docker command line against the daemon; the test is skipped where there is none.
func (w *World) Docker(args ...string) Result {
	path, err := exec.LookPath("docker")
	if err != nil {
		w.T.Skip("the docker command line is not on this machine")
	}
	return w.Run(path, args...)
}

// Command prepares a program in the world, with DOCKER_HOST set.
func (w *World) Command(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+w.Socket, "DOCKER_CONFIG="+w.Dir+"/config", "HOME="+w.Dir)
	return cmd
}

// Run runs a program for at most two minutes.
func (w *World) Run(path string, args ...string) Result {
	w.T.Helper()
	cmd := w.Command(path, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		w.T.Fatal(err)
	}
	timer := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	if !timer.Stop() {
		w.T.Errorf("%s %s: no end after two minutes", filepath.Base(path), strings.Join(args, " "))
	}
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		w.T.Fatal(err)
	}
	return Result{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

// Must fails the test unless the program ended with code 0, and gives its trimmed output.
func (w *World) Must(r Result) string {
	w.T.Helper()
	if r.Code != 0 {
		w.T.Fatalf("exit code %d\nstdout: %s\nstderr: %s\ndaemon:\n%s", r.Code, r.Out, r.Err, tail(w.DaemonLog(), 30))
	}
	return strings.TrimSpace(r.Out)
}

// tail is the last lines of a daemon's log, without the stacks that a Census asked for.
func tail(s string, n int) string {
	lines := slices.DeleteFunc(strings.Split(strings.TrimRight(s, "\n"), "\n"), func(l string) bool {
		return strings.Contains(l, `msg="stacks of all goroutines`)
	})
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func (w *World) close() {
	if w.T.Failed() {
		w.T.Logf("the end of the daemon's log:\n%s", tail(w.DaemonLog(), 60))
	}
	select {
	case <-w.ended:
		w.StartDaemon()
	default:
	}
	if ids := strings.Fields(w.Shoal("ps", "-aq").Out); len(ids) > 0 {
		w.Shoal(append([]string{"rm", "-f", "-v"}, ids...)...)
	}
	w.StopDaemon()
	// The exec root's own tmpfs stays until the machine is restarted; a busy one is a leftover.
	unix.Unmount(w.Dir+"/exec/names", 0)
	unix.Unmount(w.Dir+"/exec", 0)
	for _, l := range w.Leftovers() {
		w.T.Errorf("left behind: %s", l)
	}
	close(w.inNet)
	for _, root := range cgroupRoots() {
		os.Remove(filepath.Join(root, w.cgroup))
		os.Remove(filepath.Join(root, w.cgroup+"-supervisors"))
	}
	if err := os.RemoveAll(w.Dir); err != nil {
		w.T.Errorf("remove the world's directory: %v", err)
	}
}

// Leftovers lists what of this world is still on the machine apart from files in its directory: processes, mounts,
// cgroups. With the daemon stopped and no containers there must be nothing.
func (w *World) Leftovers() (left []string) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, w.Dir) {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && bytes.Contains(b, []byte(w.Dir)) {
			left = append(left, fmt.Sprintf("process %s %s", filepath.Base(filepath.Dir(p)), bytes.ReplaceAll(b, []byte{0}, []byte{' '})))
		}
	}
	execs, _ := os.ReadDir(w.Dir + "/exec/tasks")
	for _, e := range execs {
		left = append(left, "runtime directory "+e.Name())
	}
	return left
}

// Ended is closed when the present daemon has ended.
func (w *World) Ended() <-chan struct{} { return w.ended }

// Counts is what containers of this world could leave behind on the machine.
type Counts struct{ Mounts, Links, Cgroups, Processes, Dirs int }

// Count counts them: mounts, cgroups, processes and records of this world, and links of its network. What is kept to be
// used again (prepared writable layers) does not count, and neither does what others do on the machine.
func (w *World) Count() (c Counts) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	c.Mounts = bytes.Count(mounts, []byte(" "+w.Dir+"/"))
	w.InNet(func() {
		ifs, _ := net.Interfaces()
		c.Links = len(ifs)
	})
	for _, controller := range cgroupRoots() {
		filepath.WalkDir(filepath.Join(controller, w.cgroup), func(p string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() && len(d.Name()) == 64 {
				c.Cgroups++
			}
			return nil
		})
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && bytes.Contains(b, []byte(w.Dir)) {
			c.Processes++
		}
	}
	for _, d := range []string{"/data/containers", "/exec/tasks"} {
		es, _ := os.ReadDir(w.Dir + d)
		for _, e := range es {
			if len(e.Name()) == 64 {
				c.Dirs++
			}
		}
	}
	return c
}

// cgroupRoots gives the mount points of all hierarchies.
func cgroupRoots() []string {
	roots, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	for i := range roots {
		roots[i] = filepath.Dir(roots[i])
	}
	return roots
}

// Without takes a flag with its value from the next daemon.
func (w *World) Without(name string) {
	if i := slices.Index(w.flags, name); i >= 0 {
		w.flags = slices.Delete(w.flags, i, i+2)
	}
}

// Flag gives the next daemon a flag with its value, in place of the one it had.
func (w *World) Flag(name, value string) {
	for i := range w.flags {
		if w.flags[i] == name && i+1 < len(w.flags) {
			w.flags[i+1] = value
			return
		}
	}
	w.flags = append(w.flags, name, value)
}
