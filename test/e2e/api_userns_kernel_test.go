//go:build kernel

package e2e

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// With --userns-remap root of a container is nobody on the host, and everything else is as without.
func TestUsernsRemap(t *testing.T) {
	w := world.New(t, "--userns-remap", "400000+65536")
	wantIn(t, "info", w.Must(w.Docker("info", "-f", "{{.SecurityOptions}}")), "name=userns")
	run := func(args ...string) string {
		t.Helper()
		return w.Must(w.Docker(append([]string{"run", "--rm"}, args...)...))
	}
	want(t, "who", run("toolbox", "sh", "-c", "id -u; cat /proc/self/uid_map"), "0\n         0     400000      65536")
	want(t, "the root's owner", run("toolbox", "sh", "-c", "stat -c %u / /bin; touch /x; stat -c %u /x"), "0\n0\n0")
	want(t, "a user", run("--user", "7:8", "toolbox", "sh", "-c", "id -u; echo out > /dev/stdout; touch /tmp/x; stat -c %u:%g /tmp/x"), "7\nout\n7:8")
	wantIn(t, "sysfs", run("toolbox", "grep", " /sys ", "/proc/self/mountinfo"), "sysfs")
	wantIn(t, "the container's own network", run("toolbox", "cat", "/etc/hosts"), "localhost")
	run("--cap-add", "NET_ADMIN", "toolbox", "sh", "-c", "ip link set lo down && ip link set lo up")
	want(t, "a terminal", strings.TrimSpace(run("-t", "toolbox", "sh", "-c", "test -t 0 && readlink /proc/self/fd/0")), "/dev/pts/0")
	want(t, "a volume", run("-v", "data:/d", "toolbox", "sh", "-c", "echo kept > /d/f; stat -c %u /d/f"), "0")
	want(t, "the same from the host's namespace", run("--userns=host", "-v", "data:/d", "toolbox", "sh", "-c", "stat -c %u /d/f; cat /d/f; cat /proc/self/uid_map"),
		"0\nkept\n         0          0 4294967295")
	secret := filepath.Join(w.Dir, "secret")
	if err := os.WriteFile(secret, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := w.Docker("run", "--rm", "-v", secret+":/s", "toolbox", "cat", "/s"); r.Code == 0 {
		t.Errorf("the container's root reads a file of the host's root: %s", r.Out)
	}
	for _, bad := range [][]string{{"--privileged"}, {"--network", "host"}, {"--pid", "host"}, {"--ipc", "host"}} {
		if r := w.Docker(append(append([]string{"run", "--rm"}, bad...), "toolbox", "true")...); r.Code != 125 || !strings.Contains(r.Err, "--userns=host") {
			t.Errorf("%v: exit code %d, %s", bad, r.Code, r.Err)
		}
	}
	run("--privileged", "--userns=host", "toolbox", "true")
	usernsLife(t, w)
}

// usernsLife is exec, cp, commit, logs and a restart of the daemon with a container that runs.
func usernsLife(t *testing.T, w *world.World) {
	t.Helper()
	id := w.Must(w.Docker("run", "-d", "--name", "live", "--network", "bridge", "toolbox", "sh", "-c", "echo started; sleep 1000"))
	stat, err := os.Stat("/proc/" + w.Must(w.Docker("inspect", "-f", "{{.State.Pid}}", id)) + "/root")
	if err != nil {
		t.Fatal(err)
	}
	if uid := owner(stat); uid != 400000 {
		t.Errorf("the root directory as the host sees it belongs to %d", uid)
	}
	want(t, "exec", w.Must(w.Docker("exec", "live", "sh", "-c", "id -u; mkdir /m; echo x > /m/f; stat -c %u /m/f")), "0\n0")
	want(t, "exec as a user", w.Must(w.Docker("exec", "-u", "5", "live", "id", "-u")), "5")
	r := tar.NewReader(strings.NewReader(w.Docker("cp", "live:/m/f", "-").Out))
	if h, err := r.Next(); err != nil || h.Uid != 0 {
		t.Errorf("cp out of the running container: %v, %v", h, err)
	}
	file := filepath.Join(w.Dir, "in")
	if err := os.WriteFile(file, []byte("in"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.Must(w.Docker("cp", file, "live:/m/in"))
	want(t, "cp into it", w.Must(w.Docker("exec", "live", "stat", "-c", "%u", "/m/in")), "0")
	w.Must(w.Docker("commit", "live", "made"))
	want(t, "the committed image", w.Must(w.Docker("run", "--rm", "made", "stat", "-c", "%u", "/m/f")), "0")
	want(t, "a shared network", w.Must(w.Docker("run", "--rm", "--network", "container:live", "--pid", "container:live", "toolbox", "sh", "-c", "id -u")), "0")
	if r := w.Docker("run", "--rm", "--userns=host", "--network", "container:live", "toolbox", "true"); r.Code == 0 || !strings.Contains(r.Err, "user namespace") {
		t.Errorf("a network across user namespaces: exit code %d, %s", r.Code, r.Err)
	}
	w.KillDaemon()
	w.StartDaemon()
	want(t, "exec after a restart", w.Must(w.Docker("exec", "live", "cat", "/m/f")), "x")
	want(t, "logs", w.Must(w.Docker("logs", "live")), "started")
	w.Must(w.Docker("stop", "-t", "0", "live"))
	out := w.Docker("cp", "live:/m/in", "-").Out
	if h, err := tar.NewReader(strings.NewReader(out)).Next(); err != nil || h.Uid != 0 {
		t.Errorf("cp out of the stopped container: %v, %v", h, err)
	}
	w.Must(w.Docker("start", "live"))
	want(t, "after another start", w.Must(w.Docker("exec", "live", "stat", "-c", "%u", "/m/in")), "0")
}

func owner(info os.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }
