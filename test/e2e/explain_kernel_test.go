//go:build kernel

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// explained waits until something is explained by a code and in words: what was started may not have come as far yet.
func explained(t *testing.T, w *world.World, name, code, says string) {
	t.Helper()
	var out string
	if !world.Await(func() bool {
		out = w.Must(w.Shoal("explain", name))
		return strings.Contains(out, " "+code+"\n") && strings.Contains(out, says)
	}) {
		t.Errorf("%s: want %s and %q in\n%s", name, code, says, out)
	}
}

// TestExplain provokes the causes on the real kernel.
func TestExplain(t *testing.T) {
	w := world.New(t, "--audit-log", t.TempDir()+"/audit.log")
	run := func(args ...string) { w.Shoal(append([]string{"run", "-d"}, args...)...) }
	sh := func(name, script string, more ...string) {
		run(append(append([]string{"--name", name}, more...), "toolbox", "sh", "-c", script)...)
	}
	w.Must(w.Shoal("create", "--name", "fresh", "toolbox", "true"))
	explained(t, w, "fresh", "never-started", "shoal start fresh")
	run("--name", "wrong", "toolbox", "/no/such/program")
	explained(t, w, "wrong", "cannot-run", "no such file")
	sh("clean", "echo bye")
	sh("own", "echo cannot read config; exit 3")
	sh("missing", "no-such-command-here")
	sh("outside", "sleep 1000")
	for _, name := range []string{"clean", "own", "missing"} {
		w.Must(w.Shoal("wait", name))
	}
	explained(t, w, "clean", "exited-by-itself", "bye")
	explained(t, w, "own", "exit-code", "cannot read config")
	explained(t, w, "missing", "cannot-run", "127")
	pid := w.Must(w.Shoal("inspect", "-f", "{{.State.Pid}}", "outside"))
	if err := exec.Command("kill", "-9", pid).Run(); err != nil {
		t.Fatal(err)
	}
	w.Must(w.Shoal("wait", "outside"))
	explained(t, w, "outside", "killed-by-signal", "SIGKILL")
	sh("stopped", "sleep 1000")
	w.Must(w.Shoal("stop", "-t", "0", "stopped"))
	explained(t, w, "stopped", "stopped-by-request", "uid 0, pid ")
	sh("hungry", "tail /dev/zero", "--memory", "16m", "--memory-swap", "16m")
	w.Must(w.Shoal("wait", "hungry"))
	explained(t, w, "hungry", "oom-killed", "its limit is 16m")
	events := func(filter string) { // waits for one
		cmd := w.Command(world.Bin(t, "shoal"), "events", "--since", "10m", "--filter", filter)
		out, err := cmd.StdoutPipe()
		if err == nil && cmd.Start() == nil {
			out.Read(make([]byte, 1))
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
	sh("sick", "sleep 1000", "--health-cmd", "echo refused; exit 1", "--health-interval", "20ms", "--health-retries", "1")
	events("event=health_status: unhealthy")
	explained(t, w, "sick", "unhealthy", "refused")

	// Whom nobody reaches.
	w.Must(w.Shoal("network", "create", "--internal", "inside"))
	sh("boxed", "sleep 1000", "--network", "inside")
	explained(t, w, "boxed", "network-internal", "inside")
	explained(t, w, "inside", "network-in-use", "boxed")
	explained(t, w, "bridge", "network-predefined", "")
	sh("deaf", "sleep 1000", "-p", "8311:80")
	explained(t, w, "deaf", "nobody-listens", "nothing in the container listens")
	explained(t, w, "8311", "nobody-listens", "published by container deaf")
	sh("lonely", "sleep 1000", "--network", "none")
	explained(t, w, "lonely", "no-network", "network connect")
	run("--name", "web", "whoami")
	explained(t, w, "web", "port-not-published", "--publish-add")
	w.Must(w.Shoal("stop", "-t", "0", "deaf"))
	explained(t, w, "8311", "port-of-stopped", "deaf")
	explained(t, w, "8312", "port-of-nobody", "shoal run -p 8312")
	var l net.Listener
	w.InNet(func() { l, _ = net.Listen("tcp", "127.0.0.1:8313") })
	defer l.Close()
	explained(t, w, "8313", "port-of-host-process", fmt.Sprintf(" (pid %d) listens", os.Getpid()))

	explained(t, w, "toolbox", "image-in-use", "lonely (running)")
	explained(t, w, "127.0.0.1:1/no/image", "registry-unreachable", "127.0.0.1:1")
	var r struct{ Kind, ID string }
	if err := json.Unmarshal([]byte(w.Must(w.Shoal("explain", "--format", "json", "web"))), &r); err != nil || r.Kind != "container" || len(r.ID) != 64 {
		t.Error(r, err)
	}
	for args, want := range map[string]string{"--type container nothing": "No such container", "--type sheep x": "want container, image", "Not/A_NAME!": "lower case"} {
		if r := w.Shoal(append([]string{"explain"}, strings.Fields(args)...)...); r.Code == 0 || !strings.Contains(r.Err, want) {
			t.Errorf("%s: %+v", args, r)
		}
	}
}
