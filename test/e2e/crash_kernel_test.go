//go:build kernel

package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/world"
)

func TestContainersOutliveTheDaemon(t *testing.T) {
	w := world.New(t)
	shared := t.TempDir()
	w.Must(w.Docker("run", "-d", "--name", "on", "-v", shared+":/shared", "toolbox", "sh", "-c", "i=0; while true; do i=$((i+1)); echo line $i; echo $i > /shared/line; sleep 0.05; done"))
	w.Must(w.Docker("run", "-d", "--name", "ends", "-v", shared+":/shared", "toolbox", "sh", "-c", "until [ -e /shared/end ]; do sleep 0.05; done; exit 33"))
	w.Must(w.Docker("run", "-d", "--name", "web", "-p", "127.0.0.1:8089:80", "whoami"))
	pid, ends := w.Must(w.Docker("inspect", "-f", "{{.State.Pid}}", "on")), w.Must(w.Docker("inspect", "-f", "{{.State.Pid}}", "ends"))
	eventually(t, "the web server answers", func() bool { return readPage(w, "http://127.0.0.1:8089/") != "" })
	w.KillDaemon()
	line := func() int {
		b, _ := os.ReadFile(shared + "/line")
		n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		return n
	}
	first := line()
	if err := os.WriteFile(shared+"/end", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a container ends and another one writes while nobody looks", func() bool {
		_, err := os.Stat("/proc/" + ends)
		return err != nil && line() >= first+20
	})
	last := line()
	if _, err := w.WebClient().Get("http://127.0.0.1:8089/"); err != nil {
		t.Errorf("the published port is dead without the daemon: %v", err)
	}
	w.StartDaemon()
	want(t, "same process", w.Must(w.Docker("inspect", "-f", "{{.State.Pid}}", "on")), pid)
	eventually(t, "the exit code is told", func() bool {
		return w.Must(w.Docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "ends")) == "exited 33"
	})
	if _, err := w.WebClient().Get("http://127.0.0.1:8089/"); err != nil {
		t.Errorf("the published port is dead after the restart: %v", err)
	}
	w.Must(w.Docker("exec", "on", "true"))
	w.Must(w.Docker("stop", "-t", "0", "on"))
	lines := strings.Split(w.Must(w.Docker("logs", "on")), "\n")
	for i, line := range lines {
		want := fmt.Sprintf("line %d", i+1)
		cut := i == len(lines)-1 && strings.HasPrefix(want, line) // the shell writes word by word, and was killed
		if line != want && !cut {
			t.Fatalf("the log has a hole: line %d is %q", i+1, line)
		}
	}
	if len(lines) < last {
		t.Errorf("only %d lines: not all of the %d from the time without a daemon", len(lines), last)
	}
}

func TestRestartPolicies(t *testing.T) {
	w := world.New(t)
	w.Must(w.Docker("run", "-d", "--name", "always", "--restart", "always", "toolbox", "sleep", "1000"))
	w.Must(w.Docker("run", "-d", "--name", "fails", "--restart", "on-failure:2", "toolbox", "false"))
	w.Must(w.Docker("run", "-d", "--name", "unless", "--restart", "unless-stopped", "toolbox", "sleep", "1000"))
	w.Must(w.Docker("stop", "-t", "0", "unless"))
	eventually(t, "two restarts", func() bool {
		return w.Must(w.Docker("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "fails")) == "exited 2"
	})
	first := w.Must(w.Docker("inspect", "-f", "{{.State.Pid}}", "always"))
	w.Must(w.Docker("exec", "always", "kill", "-9", "1")) // PID 1 ignores it from inside: nothing happens
	w.Must(w.Docker("kill", "always"))
	w.StopDaemon()
	w.StartDaemon()
	eventually(t, "always starts with the daemon", func() bool {
		s := w.Must(w.Docker("inspect", "-f", "{{.State.Status}} {{.State.Pid}}", "always"))
		return strings.HasPrefix(s, "running") && !strings.HasSuffix(s, " "+first)
	})
	want(t, "unless-stopped stays down", w.Must(w.Docker("inspect", "-f", "{{.State.Status}}", "unless")), "exited")
}

// eventually waits for something that another process brings about.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	world.Eventually(t, what, f)
}

// The daemon is killed at every named step of a container's life; the next one must find order.
func TestKillAtEveryStep(t *testing.T) {
	w := world.New(t)
	for _, point := range []string{"engine/create/image", "engine/create/record", "engine/start/begin", "engine/start/prepared",
		"engine/start/created", "engine/exit/recorded", "engine/remove/begin", "engine/remove/released",
		"network/attach/plugged", "task/start/prepared", "task/start/created", "task/clear"} {
		w.StopDaemon()
		w.StartDaemon("SHOAL_FAILPOINTS=" + point + "=kill")
		w.Shoal("run", "--name", "victim", "toolbox", "true")
		w.Shoal("rm", "-f", "victim")
		select {
		case <-w.Ended():
		case <-time.After(time.Minute):
			t.Errorf("the fail point %s was not hit", point)
			continue
		}
		w.StartDaemon()
		w.Shoal("rm", "-f", "victim")
		want(t, "after "+point, w.Must(w.Shoal("ps", "-aq")), "")
		want(t, "the name is free after "+point, w.Must(w.Shoal("run", "--rm", "--name", "victim", "toolbox", "echo", "ok")), "ok")
	}
	w.StopDaemon()
	w.StartDaemon()
}

func TestSoakLeavesNothing(t *testing.T) {
	w := world.New(t)
	before := w.Count()
	for i := range 30 {
		w.Must(w.Shoal("run", "--rm", "toolbox", "true"))
		if i%5 == 0 {
			w.Must(w.Shoal("run", "--rm", "--network", "none", "toolbox", "sh", "-c", "echo x > /f"))
		}
	}
	eventually(t, fmt.Sprintf("as before: %+v", before), func() bool { return w.Count() == before })
}
