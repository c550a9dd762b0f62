//go:build kernel

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/world"
)

func foreign(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed: it is not tried as a runtime", name)
	}
	return path
}

// Debian's runc under our engine must do all that our own runtime does.
func TestForeignRuntime(t *testing.T) {
	w := world.New(t, "--add-runtime", "other="+foreign(t, "runc"))
	before := w.Count().Mounts
	run := func(args ...string) world.Result {
		return w.Docker(append([]string{"run", "--runtime", "other"}, args...)...)
	}
	r := run("--rm", "-v", "vol:/data", "toolbox", "sh", "-c", "echo hello; echo err >&2; hostname -i; echo kept > /data/f; echo x > /new; exit 5")
	if r.Code != 5 || !strings.HasPrefix(r.Out, "hello\n172.") || r.Err != "err\n" {
		t.Fatalf("%+v", r)
	}
	want(t, "a terminal", w.Must(run("--rm", "-t", "--network", "none", "toolbox", "sh", "-c", "test -t 1 && echo yes")), "yes")
	for code, args := range map[int][]string{127: {"toolbox", "no-such-program"}, 126: {"toolbox", "/etc/passwd"}} {
		if r := run(append([]string{"--rm"}, args...)...); r.Code != code {
			t.Errorf("%v: exit code %d, want %d: %s", args, r.Code, code, r.Err)
		}
	}
	w.Must(run("-d", "--name", "life", "-v", "vol:/data", "--memory", "64m", "--pids-limit", "50", "--cap-drop", "ALL", "toolbox",
		"sh", "-c", "echo up; while ! test -e /end; do sleep 0.05; done; exit 9"))
	if got := w.Count().Mounts; got != before {
		t.Errorf("the host has %d mounts more", got-before)
	}
	want(t, "runtime", w.Must(w.Docker("inspect", "-f", "{{.HostConfig.Runtime}}", "life")), "other")
	want(t, "exec", w.Must(w.Docker("exec", "life", "cat", "/data/f")), "kept")
	want(t, "exec's exit code", exitOf(w.Docker("exec", "life", "sh", "-c", "exit 7")), "7")
	eventually(t, "the log", func() bool { return w.Must(w.Docker("logs", "life")) == "up" })
	wantIn(t, "no capabilities", w.Must(w.Docker("exec", "life", "grep", "CapEff", "/proc/1/status")), "0000000000000000")
	wantIn(t, "stats", w.Must(w.Docker("stats", "--no-stream", "--format", "{{.MemUsage}}", "life")), "/ 64MiB")
	wantIn(t, "top", w.Must(w.Docker("top", "life")), "sleep")
	w.Must(w.Docker("exec", "life", "touch", "/made"))
	wantIn(t, "diff", w.Must(w.Docker("diff", "life")), "A /made")
	os.WriteFile(w.Dir+"/in", []byte("copied"), 0o644)
	w.Must(w.Docker("cp", w.Dir+"/in", "life:/in"))
	want(t, "cp", w.Must(w.Docker("exec", "life", "cat", "/in")), "copied")
	w.Must(w.Docker("pause", "life"))
	w.Must(w.Docker("unpause", "life"))
	w.Must(w.Docker("update", "--memory", "80m", "--memory-swap", "80m", "life"))
	wantIn(t, "updated", w.Must(w.Docker("stats", "--no-stream", "--format", "{{.MemUsage}}", "life")), "/ 80MiB")
	w.KillDaemon()
	w.StartDaemon()
	want(t, "after the daemon's death", w.Must(w.Docker("exec", "life", "cat", "/in")), "copied")
	w.Must(w.Docker("exec", "life", "touch", "/end"))
	want(t, "wait", w.Must(w.Docker("wait", "life")), "9")
	want(t, "its own exit code", w.Must(w.Docker("inspect", "-f", "{{.State.ExitCode}}", "life")), "9")
	w.Must(w.Docker("commit", "life", "gone:1"))
	w.Must(w.Docker("cp", "life:/end", w.Dir+"/end"))
	w.Must(w.Docker("rm", "life"))
	w.Must(run("-d", "--name", "life", "toolbox", "sleep", "1000"))
	w.Must(w.Docker("kill", "life"))
	want(t, "killed", w.Must(w.Docker("wait", "life")), "137")
	w.Must(w.Docker("rm", "life"))
	w.Must(run("-d", "--name", "web", "-p", "127.0.0.1:8093:80", "whoami"))
	eventually(t, "the web server answers", func() bool {
		resp, err := w.WebClient().Get("http://127.0.0.1:8093/")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	})
	if left, _ := os.ReadDir(w.Dir + "/exec/runtime-other"); len(left) != 1 {
		t.Errorf("the runtime keeps %d records, want that of the one running container", len(left))
	}
}

func exitOf(r world.Result) string { return strconv.Itoa(r.Code) }

// What a runtime that cannot work says reaches the user whole.
func TestForeignRuntimeRefuses(t *testing.T) {
	w := world.New(t, "--add-runtime", "crun="+foreign(t, "crun"), "--add-runtime", "gone=/no/such/runtime")
	r := w.Docker("run", "--rm", "--runtime", "crun", "toolbox", "true")
	if r.Code != 0 { // Debian's crun refuses hybrid cgroups
		wantIn(t, "crun's reason", r.Err, "crun create: ", "cgroup")
	}
	wantIn(t, "a runtime that is not there", w.Docker("run", "--rm", "--runtime", "gone", "toolbox", "true").Err, "/no/such/runtime", "no such file")
	wantIn(t, "an unknown one", w.Docker("run", "--rm", "--runtime", "what", "toolbox", "true").Err, "unknown or invalid runtime name: what", "crun, gone")
	want(t, "records left", w.Must(w.Docker("ps", "-aq")), "")
}

// A supervisor that is killed takes its container with it, whatever runtime runs it, and leaves nothing behind.
func TestForeignRuntimeKilledSupervisor(t *testing.T) {
	w := world.New(t, "--add-runtime", "other="+foreign(t, "runc"))
	id := w.Must(w.Docker("run", "-d", "--name", "cc", "--runtime", "other", "--restart", "on-failure:1", "toolbox", "sleep", "1000"))
	pid := w.Must(w.Docker("inspect", "-f", "{{.State.Pid}}", "cc"))
	b, err := os.ReadFile(w.Dir + "/exec/tasks/" + id + "/state.json")
	if err != nil {
		t.Fatal(err)
	}
	var state struct{ SupervisorPid int }
	if err := json.Unmarshal(b, &state); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the supervisor has settled", func() bool {
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(state.SupervisorPid) + "/cmdline")
		return strings.Contains(string(b), "--resume")
	})
	want(t, "exec under a settled supervisor", w.Must(w.Docker("exec", "cc", "echo", "here")), "here")
	syscall.Kill(state.SupervisorPid, syscall.SIGKILL)
	eventually(t, "it is restarted", func() bool {
		s := w.Must(w.Docker("inspect", "-f", "{{.State.Status}} {{.RestartCount}} {{.State.Pid}}", "cc"))
		return strings.HasPrefix(s, "running 1") && !strings.HasSuffix(s, " "+pid)
	})
	w.Must(w.Docker("exec", "cc", "true"))
	w.Must(w.Docker("rm", "-f", "cc"))
	if left, _ := os.ReadDir(w.Dir + "/exec/runtime-other"); len(left) != 0 {
		t.Errorf("the runtime keeps %d records", len(left))
	}
}

func TestForeignRuntimeIO(t *testing.T) {
	w := world.New(t, "--add-runtime", "other="+foreign(t, "runc"))
	cmd := w.Command("/bin/sh", "-c", "echo to stdin | docker run --rm -i --runtime other --network none toolbox cat")
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "to stdin\n" {
		t.Errorf("%q %v", out, err)
	}
	r := w.Docker("run", "--name", "oom", "--runtime", "other", "--network", "none", "--memory", "16m", "--memory-swap", "16m", "toolbox", "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")
	want(t, "killed for lack of memory", w.Must(w.Docker("inspect", "-f", "{{.State.OOMKilled}}", "oom")), "true")
	for i := range 3 { // its second and third start as the first
		want(t, "start "+strconv.Itoa(i), exitOf(w.Docker("start", "-a", "oom")), exitOf(r))
	}
}

func TestRuntimesReload(t *testing.T) {
	w := world.New(t)
	runc := foreign(t, "runc")
	cfg := filepath.Join(w.Dir, "daemon.json")
	os.WriteFile(cfg, []byte(`{}`), 0o600)
	w.StopDaemon()
	w.Flag("--config-file", cfg)
	w.StartDaemon()
	run := func() world.Result {
		return w.Docker("run", "--rm", "--network", "none", "--runtime", "later", "toolbox", "echo", "hello")
	}
	wantIn(t, "before", run().Err, "unknown or invalid runtime name: later")
	os.WriteFile(cfg, []byte(`{"runtimes":{"later":{"path":"`+runc+`"}}}`), 0o600)
	syscall.Kill(w.DaemonPid(), syscall.SIGHUP)
	eventually(t, "the runtime is known", func() bool { return run().Out == "hello\n" })
	wantIn(t, "info", w.Must(w.Docker("info", "-f", "{{json .Runtimes}}")), `"later"`)
	os.WriteFile(cfg, []byte(`{"default-runtime":"nope"}`), 0o600)
	syscall.Kill(w.DaemonPid(), syscall.SIGHUP)
	eventually(t, "the refusal is logged", func() bool { return strings.Contains(w.DaemonLog(), `default runtime \"nope\" is not known`) })
	want(t, "the old configuration holds", run().Out, "hello\n")
	os.WriteFile(cfg, []byte(`{}`), 0o600)
}

// A container that dies at once is started again, each time after a longer while; a user's stop ends that.
func TestRestartBackOff(t *testing.T) {
	w := world.New(t)
	w.Must(w.Docker("run", "-d", "--name", "dies", "--network", "none", "--restart", "always", "toolbox", "date", "+%s.%N"))
	eventually(t, "four starts", func() bool {
		return w.Must(w.Docker("inspect", "-f", "{{.RestartCount}}", "dies")) >= "4"
	})
	w.Must(w.Docker("stop", "-t", "0", "dies"))
	count := w.Must(w.Docker("inspect", "-f", "{{.RestartCount}}", "dies"))
	var last float64
	wait := 0.1 // what a start itself takes comes on top, and differs
	for i, line := range strings.Fields(w.Must(w.Docker("logs", "dies"))) {
		at, err := strconv.ParseFloat(line, 64)
		if err != nil {
			t.Skipf("date does not know %%N: %q", line)
		}
		if i > 0 {
			if at-last < wait {
				t.Errorf("start %d came after %.3f s, want at least %.3f s", i, at-last, wait)
			}
			wait *= 2
		}
		last = at
	}
	time.Sleep(time.Second)
	want(t, "restarts after the stop", w.Must(w.Docker("inspect", "-f", "{{.RestartCount}}", "dies")), count)
	want(t, "state", w.Must(w.Docker("inspect", "-f", "{{.State.Status}}", "dies")), "exited")
}
