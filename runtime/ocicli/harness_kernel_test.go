//go:build kernel

package ocicli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/runtime/spec"
)

// binary is the real shoal-runtime, built once for all tests here.
var binary string

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ocicli-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if bin := os.Getenv("SHOAL_BIN"); bin != "" {
		binary = filepath.Join(bin, "shoal-runtime")
	} else {
		binary = filepath.Join(dir, "shoal-runtime")
		build := exec.Command("go", "build", "-o", binary, "github.com/shoalhq/shoal/cmd/shoal-runtime")
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // a dynamic program could not be executed in a container
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build shoal-runtime: %v\n%s", err, out)
			return 1
		}
	}
	code := m.Run()
	parents, _ := filepath.Glob("/sys/fs/cgroup/*" + cgroupParent)
	for _, dir := range append(parents, "/sys/fs/cgroup"+cgroupParent) {
		os.Remove(dir) // not when a test elsewhere still uses it
	}
	return code
}

const cgroupParent = "/shoal-test"

var applets = []string{"sh", "true", "false", "cat", "ls", "id", "mount", "sleep", "echo", "hostname", "readlink", "touch", "grep", "test",
	"stat", "env", "pwd", "kill", "mkdir", "rm", "tty", "ip", "dd", "date", "head", "chmod", "nproc", "ps", "wc", "sed", "printf", "sync"}

// bundle is a bundle with busybox as its root file system, and a runtime root of its own.
type bundle struct {
	t         *testing.T
	dir, root string
	id        string
	spec      *specs.Spec
}

func newBundle(t *testing.T) *bundle {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("kernel tests need root")
	}
	dir := t.TempDir()
	os.Chmod(dir, 0o755)
	for p := dir; p != "/" && p != "/tmp"; p = filepath.Dir(p) {
		os.Chmod(p, 0o755) // reachable for mapped users
	}
	b := &bundle{t: t, dir: dir, root: filepath.Join(dir, "state"), id: fmt.Sprintf("test-%d-%s", os.Getpid(), filepath.Base(filepath.Dir(dir))+filepath.Base(dir))}
	b.id = strings.Map(func(r rune) rune {
		if strings.ContainsRune("/: ", r) {
			return '-'
		}
		return r
	}, b.id)
	rootfs := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp", "etc", "mnt"} {
		if err := os.MkdirAll(filepath.Join(rootfs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	b.file("bin/busybox", string(data), 0o755)
	for _, a := range applets {
		if err := os.Symlink("busybox", filepath.Join(rootfs, "bin", a)); err != nil {
			t.Fatal(err)
		}
	}
	b.spec = spec.Example()
	b.spec.Process.Terminal = false
	b.spec.Root.Readonly = false
	b.spec.Process.Args = []string{"true"}
	b.spec.Process.Rlimits = nil
	b.spec.Linux.CgroupsPath = cgroupParent + "/" + b.id
	t.Cleanup(func() {
		out, _, code := b.try("delete", "--force", b.id)
		if code != 0 {
			t.Errorf("delete --force: %s", out)
		}
	})
	return b
}

func (b *bundle) path(name string) string { return filepath.Join(b.dir, "rootfs", name) }

func (b *bundle) file(name, content string, mode os.FileMode) {
	b.t.Helper()
	if err := os.WriteFile(b.path(name), []byte(content), mode); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Chmod(b.path(name), mode); err != nil {
		b.t.Fatal(err)
	}
}

// write writes config.json.
func (b *bundle) write() {
	b.t.Helper()
	data, err := json.Marshal(b.spec)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "config.json"), data, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bundle) command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, append([]string{"--root", b.root}, args...)...)
	cmd.Dir = b.dir
	return cmd
}

// try runs the runtime.
func (b *bundle) try(args ...string) (stdout, stderr string, code int) {
	b.t.Helper()
	var out, errOut bytes.Buffer
	cmd := b.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// must runs the runtime and fails the test when it fails.
func (b *bundle) must(args ...string) string {
	b.t.Helper()
	out, errOut, code := b.try(args...)
	if code != 0 {
		b.t.Fatalf("%v: exit code %d\n%s%s", args, code, out, errOut)
	}
	return out
}

// sh runs a script as the container's program and returns what it prints, without the last line break.
func (b *bundle) sh(script string) string {
	b.t.Helper()
	b.spec.Process.Args = []string{"sh", "-c", script}
	b.write()
	return strings.TrimSuffix(b.must("run", b.id), "\n")
}

// fails runs the container, which must fail with a message that contains want, and must leave nothing.
func (b *bundle) fails(want string) {
	b.t.Helper()
	b.write()
	out, errOut, code := b.try("run", b.id)
	if code == 0 || !strings.Contains(errOut, want) {
		b.t.Errorf("exit code %d, %q; want a failure with %q in it", code, out+errOut, want)
	}
	b.gone()
}

// gone checks that nothing of the container is left.
func (b *bundle) gone() {
	b.t.Helper()
	if _, err := os.Stat(filepath.Join(b.root, b.id)); err == nil {
		b.t.Error("the container's state directory is left")
	}
	for _, h := range []string{"memory", "pids", "devices", "unified", "."} {
		if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", h, b.spec.Linux.CgroupsPath)); err == nil {
			b.t.Errorf("the container's cgroup in %s is left", h)
		}
	}
}

func (b *bundle) mount(dest, typ, source string, options ...string) {
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: dest, Type: typ, Source: source, Options: options})
}

func (b *bundle) is(got, want string) {
	b.t.Helper()
	if got != want {
		b.t.Errorf("got %q, want %q", got, want)
	}
}

func (b *bundle) contains(got, want string) {
	b.t.Helper()
	if !strings.Contains(got, want) {
		b.t.Errorf("got %q, want %q in it", got, want)
	}
}

// create makes the container; it can be started.
func (b *bundle) create(args ...string) {
	b.t.Helper()
	b.spec.Process.Args = args
	b.write()
	cmd := b.command("create", b.id)
	// Not pipes: the container's init would hold them open.
	out, err := os.Create(filepath.Join(b.dir, "output"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		b.t.Fatalf("create: %v\n%s", err, b.output())
	}
}

func (b *bundle) output() string {
	data, _ := os.ReadFile(filepath.Join(b.dir, "output"))
	return string(data)
}

func (b *bundle) state() map[string]any {
	b.t.Helper()
	var s map[string]any
	if err := json.Unmarshal([]byte(b.must("state", b.id)), &s); err != nil {
		b.t.Fatal(err)
	}
	return s
}

// chown gives the root file system to a user namespace's root.
func (b *bundle) chown(uid int) {
	b.t.Helper()
	err := filepath.WalkDir(b.path(""), func(path string, _ os.DirEntry, err error) error {
		if err == nil {
			err = os.Lchown(path, uid, uid)
		}
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
}
