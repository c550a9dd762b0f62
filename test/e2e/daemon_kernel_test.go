//go:build kernel

package e2e

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/world"
)

func TestSignalsAndReload(t *testing.T) {
	w := world.New(t)
	cfg := filepath.Join(w.Dir, "daemon.json")
	os.WriteFile(cfg, []byte(`{"labels":["a=b"]}`), 0o600)
	w.StopDaemon()
	w.Flag("--config-file", cfg)
	w.StartDaemon()
	wantIn(t, "labels", w.Must(w.Docker("info")), "a=b")
	os.WriteFile(cfg, []byte(`{"labels":["c=d"],"log-level":"debug","default-shm-size":"8m"}`), 0o600)
	syscall.Kill(w.DaemonPid(), syscall.SIGHUP)
	eventually(t, "the labels change", func() bool { return strings.Contains(w.Docker("info").Out, "c=d") })
	wantIn(t, "shm size", w.Must(w.Docker("run", "--rm", "toolbox", "df", "/dev/shm")), "8")
	syscall.Kill(w.DaemonPid(), syscall.SIGUSR1)
	eventually(t, "the stacks are logged", func() bool {
		return strings.Contains(w.DaemonLog(), "stacks of all goroutines") && strings.Contains(w.DaemonLog(), "node.Run")
	})
	os.WriteFile(cfg, []byte(`{"nonsense":1}`), 0o600)
	syscall.Kill(w.DaemonPid(), syscall.SIGHUP)
	eventually(t, "the refusal is logged", func() bool { return strings.Contains(w.DaemonLog(), "nonsense") })
	wantIn(t, "the old configuration holds", w.Must(w.Docker("info")), "c=d")
	os.WriteFile(cfg, []byte(`{}`), 0o600)
}

func TestShutdownContainers(t *testing.T) {
	w := world.New(t, "--shutdown-containers")
	w.Must(w.Docker("run", "-d", "--name", "stops", "--stop-timeout", "1", "toolbox", "sleep", "1000"))
	w.StopDaemon()
	w.StartDaemon()
	want(t, "state", w.Must(w.Docker("inspect", "-f", "{{.State.Status}}", "stops")), "exited")
}

// The removal of the package leaves nothing on the host but the data, and a daemon that comes again runs what ran.
func TestCleanup(t *testing.T) {
	w := world.New(t)
	refused := w.Run(world.Bin(t, "shoald"), "cleanup", "--data-root", w.Dir+"/data", "--exec-root", w.Dir+"/exec", "--pidfile", w.Dir+"/pid", "--config-file", "/dev/null")
	if refused.Code == 0 {
		t.Fatal("cleaned up behind a daemon's back")
	}
	wantIn(t, "refusal", refused.Err, "a daemon runs already", "stop it")
	os.MkdirAll(w.Dir+"/mine/build", 0o700)
	refused = w.Run(world.Bin(t, "shoald"), "cleanup", "--data-root", w.Dir+"/mine2", "--exec-root", w.Dir+"/mine", "--pidfile", w.Dir+"/pid2", "--config-file", "/dev/null")
	if _, err := os.Stat(w.Dir + "/mine/build"); refused.Code == 0 || err != nil {
		t.Fatal("somebody's directory was taken for an exec root", refused, err)
	}
	wantIn(t, "refusal", refused.Err, "mine is no exec root", "it has build")
	w.StopDaemon()
	w.InNet(func() { os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0) }) // as it is where nobody switched it on
	w.StartDaemon()
	w.Must(w.Docker("network", "create", "own"))
	w.Must(w.Docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "vol"))
	w.Must(w.Docker("run", "-d", "--name", "always", "--restart", "always", "--network", "own", "-p", "127.0.0.1:8081:80", "-v", "vol:/v", "whoami"))
	w.Must(w.Docker("run", "-d", "--name", "stopped", "--restart", "unless-stopped", "toolbox", "sleep", "1000"))
	w.Must(w.Docker("stop", "-t", "0", "stopped"))
	w.Must(w.Docker("run", "-d", "--name", "told", "--stop-signal", "QUIT", "whoami")) // a Go program ends with 2 then
	w.Must(w.Docker("run", "-d", "--rm", "--name", "once", "toolbox", "sleep", "1000"))
	if said, err := w.Cleanup(); err != nil || said != "" {
		t.Fatalf("cleanup: %v: %s", err, said)
	}
	for _, l := range w.Leftovers() {
		t.Errorf("left: %s", l)
	}
	if _, err := os.Stat(w.Dir + "/exec"); !os.IsNotExist(err) {
		t.Errorf("the exec root is left: %v", err)
	}
	if c := w.Count(); c.Links != 1 || c.Cgroups != 0 || c.Mounts != 0 {
		t.Errorf("left: %+v; of links, the loopback is right", c)
	}
	w.InNet(func() {
		forwards, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
		if string(forwards) != "0\n" {
			t.Errorf("IPv4 forwarding is left on: %q, %v", forwards, err)
		}
		rules, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
		if err == nil && len(rules) > 0 {
			t.Errorf("the packet filter has %s", rules)
		}
	})
	w.StartDaemon()
	eventually(t, "what ran runs again", func() bool {
		return w.Docker("inspect", "-f", "{{.State.Status}}", "always").Out == "running\n"
	})
	want(t, "what was stopped", w.Must(w.Docker("inspect", "-f", "{{.State.Status}}", "stopped")), "exited")
	want(t, "how it ended", w.Must(w.Docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "told")), "exited 2")
	eventually(t, "what was to be removed is", func() bool { return w.Docker("inspect", "once").Code != 0 })
}

func TestSecondDaemonIsRefused(t *testing.T) {
	w := world.New(t)
	r := w.Run(world.Bin(t, "shoald"), "--data-root", w.Dir+"/data", "--exec-root", w.Dir+"/exec2", "--pidfile", w.Dir+"/pid2",
		"-H", "unix://"+w.Dir+"/second.sock", "--config-file", "/dev/null")
	if r.Code == 0 {
		t.Fatal("two daemons on one data root")
	}
	wantIn(t, "message", r.Err, "a daemon runs already", "--data-root")
}

// A socket handed over as systemd does it, and readiness told as systemd wants it.
func TestSocketActivationAndNotify(t *testing.T) {
	w := world.New(t)
	w.StopDaemon()
	defer w.StartDaemon()
	l, err := net.Listen("unix", w.Dir+"/activated.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, _ := l.(*net.UnixListener).File()
	defer f.Close()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: w.Dir + "/notify", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	// LISTEN_PID must be the daemon's own, so a shell sets it and becomes the daemon.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, world.Bin(t, "shoald"), "--data-root", w.Dir+"/data", "--exec-root", w.Dir+"/exec",
		"--pidfile", w.Dir+"/pid", "-H", "fd://", "--config-file", "/dev/null")
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "NOTIFY_SOCKET="+w.Dir+"/notify")
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stderr = os.Stderr
	w.InNet(func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() }()
	buf := make([]byte, 100)
	notify.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := notify.Read(buf)
	if err != nil || string(buf[:n]) != "READY=1" {
		t.Fatalf("notification %q, %v", buf[:n], err)
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, Dial: func(string, string) (net.Conn, error) { return net.Dial("unix", w.Dir+"/activated.sock") }}}
	resp, err := c.Get("http://shoal/_ping")
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
}
