//go:build kernel

package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/test/world"
)

// bin gives the path of a built program of this project.
func bin(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(world.Bin(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// need skips the test where a peer is not installed.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
}

// answer is what a command did.
type answer struct {
	code     int
	out, err string
}

func (a answer) String() string { return fmt.Sprintf("exit code %d, %q, %q", a.code, a.out, a.err) }

func run(t *testing.T, env []string, name string, args ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second) // not the test's: clean-ups run after its end
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", name, err)
	}
	return answer{cmd.ProcessState.ExitCode(), strings.TrimSpace(out.String()), strings.TrimSpace(errOut.String())}
}

// dockerd is a Docker daemon in namespaces of its own that knows shoal-runtime as the runtime "shoal".
type dockerd struct {
	t   *testing.T
	env []string
}

func startDockerd(t *testing.T, flags ...string) *dockerd {
	t.Helper()
	need(t, "dockerd", "docker", "containerd", "runc")
	dir, err := os.MkdirTemp("", "shoal-dockerd-")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	socket := "unix://" + dir + "/docker.sock"
	cmd := exec.Command("dockerd", append([]string{"--data-root", dir + "/data", "--exec-root", dir + "/exec", "--pidfile", dir + "/pid",
		"-H", socket, "--config-file", config, "--iptables=false", "--ip-masq=false", "--bridge=none", "--storage-driver", "vfs",
		"--add-runtime", "shoal=" + bin(t, "shoal-runtime")}, flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := &dockerd{t: t, env: []string{"DOCKER_HOST=" + socket}}
	t.Cleanup(func() {
		for _, id := range strings.Fields(d.docker("ps", "-aq").out) {
			d.docker("rm", "-f", id)
		}
		cmd.Process.Signal(unix.SIGTERM)
		cmd.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("the daemon's log ends with:\n%s", text[max(0, len(text)-3000):])
		}
		log.Close()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	d.wait("the daemon", func() bool { return d.docker("version").code == 0 })
	d.importBase()
	return d
}

func (d *dockerd) docker(args ...string) answer {
	d.t.Helper()
	return run(d.t, d.env, "docker", args...)
}

// want runs docker and fails the test unless it ends with code and its output holds text.
func (d *dockerd) want(code int, text string, args ...string) {
	d.t.Helper()
	if a := d.docker(args...); a.code != code || !strings.Contains(a.out+a.err, text) {
		d.t.Errorf("docker %s: %v; want exit code %d and %q", strings.Join(args, " "), a, code, text)
	}
}

// wait waits for something that only asking can tell.
func (d *dockerd) wait(what string, done func() bool) {
	d.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); !done(); {
		select {
		case <-tick.C:
		case <-end:
			d.t.Fatalf("%s: not within a minute", what)
		}
	}
}

// importBase makes the image base:1 from the root file system that comes with the validation programs.
func (d *dockerd) importBase() {
	d.t.Helper()
	archive, err := RootArchive(d.t.Context(), "oci")
	if err != nil {
		d.t.Skipf("no root file system for an image: %v", err)
	}
	d.want(0, "sha256:", "import", archive, "base:1")
}
