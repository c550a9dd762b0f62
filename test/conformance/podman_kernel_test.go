//go:build kernel

package conformance

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// podman, through conmon, drives shoal-runtime.
func TestInRuncsPlaceForPodman(t *testing.T) {
	need(t, "podman", "conmon", "unshare")
	archive, err := RootArchive(t.Context(), "oci")
	if err != nil {
		t.Skipf("no root file system for an image: %v", err)
	}
	dir, err := os.MkdirTemp("", "shoal-podman-")
	if err != nil {
		t.Fatal(err)
	}
	base := []string{"podman", "--root", dir + "/root", "--runroot", dir + "/run", "--tmpdir", dir + "/tmp", "--storage-driver", "vfs",
		"--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", bin(t, "shoal-runtime")}
	podman := func(args ...string) answer {
		return run(t, nil, base[0], append(base[1:len(base):len(base)], args...)...)
	}
	t.Cleanup(func() {
		podman("rm", "-af", "-t", "0")
		exec.Command("umount", dir+"/root").Run() // podman binds it onto itself
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	want := func(code int, text string, args ...string) {
		t.Helper()
		if a := podman(args...); a.code != code || !strings.Contains(a.out+a.err, text) {
			t.Errorf("podman %s: %v; want exit code %d and %q", strings.Join(args, " "), a, code, text)
		}
	}
	// podman raises limits on its own, which root may not everywhere.
	on := func(args ...string) []string {
		return append([]string{"run", "--network", "none", "--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000"}, args...)
	}
	want(0, "", "import", "-q", archive, "base:1")
	want(0, "hello", on("--rm", "base:1", "echo", "hello")...)
	want(7, "", on("--rm", "base:1", "sh", "-c", "exit 7")...)
	want(127, "command that was not found", on("--rm", "base:1", "/nosuch")...)
	want(126, "permission denied", on("--rm", "base:1", "/etc")...)
	want(0, "/dev/pts/0", on("--rm", "-t", "base:1", "tty")...)
	want(0, "CapBnd:\t0000000000000000", on("--rm", "--read-only", "--user", "5", "--cap-drop", "all", "base:1", "grep", "CapBnd", "/proc/self/status")...)

	want(0, "", on("-d", "--name", "live", "-m", "64m", "--health-cmd", "true", "base:1", "sleep", "1000")...)
	want(0, "uid=0(root)", "exec", "live", "id")
	want(5, "", "exec", "live", "sh", "-c", "exit 5")
	want(127, "command that was not found", "exec", "live", "nosuch")
	want(0, "/dev/pts/0", "exec", "-t", "live", "tty")
	want(0, "", "healthcheck", "run", "live")
	want(0, "67.11MB", "stats", "--no-stream", "live")
	want(0, "sleep 1000", "top", "live")
	want(0, "", "pause", "live")
	want(0, "", "unpause", "live")
	want(0, "", "kill", "-s", "USR1", "live")
	want(0, "", "restart", "-t", "0", "live")
	want(0, "", "stop", "-t", "0", "live")
	want(0, "137", "inspect", "-f", "{{.State.ExitCode}}", "live")
}
