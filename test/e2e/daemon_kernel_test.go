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
