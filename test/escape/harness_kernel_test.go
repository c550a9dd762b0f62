//go:build kernel

package escape

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// runtimeBinary is the runtime under test: SHOAL_BIN, or built here.
var runtimeBinary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "shoal-escape-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// A copy of its own: one test tries to overwrite it.
	runtimeBinary = filepath.Join(dir, "shoal-runtime")
	if bin := os.Getenv("SHOAL_BIN"); bin != "" {
		err = copyFile(filepath.Join(bin, "shoal-runtime"), runtimeBinary)
	} else {
		build := exec.Command("go", "build", "-o", runtimeBinary, "../../cmd/shoal-runtime")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the runtime:", err)
		return 1
	}
	return m.Run()
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// cage is one bundle with its runtime state.
type cage struct {
	t      *testing.T
	dir    string // host directory with everything of this test
	rootfs string
	spec   *specs.Spec
	id     string
}

var serial atomic.Int64

// newCage makes a bundle with busybox, and a configuration as an engine would write it: few capabilities, masked paths, a
// cgroup namespace, no terminal.
func newCage(t *testing.T) *cage {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is not installed: apt-get install busybox-static")
	}
	dir := t.TempDir()
	c := &cage{t: t, dir: dir, rootfs: filepath.Join(dir, "rootfs"), id: fmt.Sprintf("escape-%d-%d", os.Getpid(), serial.Add(1))}
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp"} {
		c.must(os.MkdirAll(filepath.Join(c.rootfs, d), 0o755))
	}
	c.must(copyFile(busybox, filepath.Join(c.rootfs, "bin/busybox")))
	for _, a := range []string{"sh", "cat", "ls", "id", "readlink", "sleep", "mount", "mkdir", "mknod", "mkfifo", "dd", "grep", "unshare", "sort", "test", "echo", "rm"} {
		c.must(os.Symlink("busybox", filepath.Join(c.rootfs, "bin", a)))
	}
	c.spec = example(t, dir)
	c.spec.Process.Terminal = false
	c.spec.Root.Readonly = false
	t.Cleanup(func() { c.run("delete", "--force", c.id) })
	return c
}

// example is the runtime's own example configuration.
func example(t *testing.T, dir string) *specs.Spec {
	t.Helper()
	if out, err := exec.Command(runtimeBinary, "spec", "--bundle", dir).CombinedOutput(); err != nil {
		t.Fatalf("spec: %v: %s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	s := &specs.Spec{}
	if err := json.Unmarshal(b, s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (c *cage) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// sh sets the script that the container runs.
func (c *cage) sh(script string) *cage {
	c.spec.Process.Args = []string{"/bin/sh", "-c", script}
	return c
}

func (c *cage) dropMount(destination string) {
	kept := c.spec.Mounts[:0]
	for _, m := range c.spec.Mounts {
		if m.Destination != destination && !strings.HasPrefix(m.Destination, destination+"/") {
			kept = append(kept, m)
		}
	}
	c.spec.Mounts = kept
}

// run calls the runtime and gives all it printed.
func (c *cage) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, runtimeBinary, append([]string{"--root", filepath.Join(c.dir, "state")}, args...)...)
	// A file, not a pipe: detached processes keep it open, and nobody shall wait for them.
	out, err := os.CreateTemp(c.dir, "out")
	c.must(err)
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Dir = c.dir
	err = cmd.Run()
	text, _ := os.ReadFile(out.Name())
	return string(text), err
}

func (c *cage) write() {
	c.t.Helper()
	b, err := json.Marshal(c.spec)
	c.must(err)
	c.must(os.WriteFile(filepath.Join(c.dir, "config.json"), b, 0o644))
}

// start writes the configuration and runs the container to its end.
func (c *cage) start() (string, error) {
	c.t.Helper()
	c.write()
	return c.run("run", "--bundle", c.dir, c.id)
}

// background runs the container until the test ends.
func (c *cage) background() {
	c.t.Helper()
	c.write()
	if out, err := c.run("run", "--detach", "--bundle", c.dir, c.id); err != nil {
		c.t.Fatalf("run --detach: %v: %s", err, out)
	}
}

// outside makes a directory of the host with a file that containers must not see or change, and checks it at the end.
func (c *cage) outside() string {
	c.t.Helper()
	dir := filepath.Join(c.dir, "outside")
	c.must(os.MkdirAll(dir, 0o755))
	c.must(os.WriteFile(filepath.Join(dir, "ptmx"), []byte(secret), 0o644))
	before := tree(dir)
	c.t.Cleanup(func() {
		if after := tree(dir); after != before {
			c.t.Errorf("the host's files were changed:\nbefore:\n%safter:\n%s", before, after)
		}
	})
	return dir
}

const secret = "the host's secret"

// tree describes a directory: names, kinds, contents.
func tree(dir string) string {
	var b strings.Builder
	_ = filepath.Walk(dir, func(p string, st os.FileInfo, err error) error {
		if err != nil {
			return nil
		}
		fmt.Fprintf(&b, "%s %v", p, st.Mode())
		if st.Mode().IsRegular() {
			data, _ := os.ReadFile(p)
			fmt.Fprintf(&b, " %x", sha256.Sum256(data))
		}
		b.WriteString("\n")
		return nil
	})
	return b.String()
}

// startTerminal runs the container with a terminal to its end and gives what the terminal and the runtime said.
func (c *cage) startTerminal() (string, error) {
	c.t.Helper()
	c.write()
	path := filepath.Join(c.dir, "console.sock")
	_ = os.Remove(path)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	c.must(err)
	said := make(chan string, 1)
	go func() { said <- readTerminal(listener) }()
	out, err := c.run("run", "--console-socket", path, "--bundle", c.dir, c.id)
	listener.Close()
	return out + <-said, err
}

// readTerminal takes a terminal from the socket and reads it until the container is gone.
func readTerminal(listener *net.UnixListener) string {
	conn, err := listener.AcceptUnix()
	if err != nil {
		return ""
	}
	defer conn.Close()
	name, oob := make([]byte, 4096), make([]byte, 64)
	_, n, _, _, err := conn.ReadMsgUnix(name, oob)
	if err != nil {
		return err.Error()
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) == 0 {
		return "no descriptor was sent"
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return err.Error()
	}
	terminal := os.NewFile(uintptr(fds[0]), "terminal")
	defer terminal.Close()
	text, _ := io.ReadAll(terminal) // ends with EIO when the other side is closed
	return string(text)
}

func refused(t *testing.T, out string, err error, why string) {
	t.Helper()
	if err == nil {
		t.Errorf("it was not refused: %s", out)
	} else if !strings.Contains(out, why) {
		t.Errorf("refused with %q, which does not say %q", out, why)
	}
}
