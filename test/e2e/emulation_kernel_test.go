//go:build kernel

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/test/world"
)

// arm64Images are the built-in images for arm64 as archives, made by this repository's own tool.
func arm64Images(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no Go here to make programs for arm64 with")
	}
	dir := t.TempDir()
	cmd := exec.Command("go", "run", "./cmd/build-images", "-arch", "arm64", "-out", dir)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

const handlers = "/proc/sys/fs/binfmt_misc"

// emulator registers Debian's emulator of arm64 with the kernel as its package does, until the test ends. Kernel tests run one
// after the other, so no other test sees it.
func emulator(t *testing.T) {
	t.Helper()
	qemu, err := exec.LookPath("qemu-aarch64-static")
	if err != nil {
		t.Skip("no qemu-aarch64-static here (Debian's qemu-user-static)")
	}
	if _, err := os.Stat(handlers + "/register"); err != nil {
		exec.Command("modprobe", "binfmt_misc").Run() // where it is a module
		if err := unix.Mount("binfmt_misc", handlers, "binfmt_misc", 0, ""); err != nil {
			t.Skip("the kernel cannot be given handlers for foreign programs:", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(handlers, 0); err != nil {
				t.Error(err)
			}
		})
	}
	const name = "/qemu-aarch64"
	if _, err := os.Stat(handlers + name); err == nil {
		return
	}
	line := fmt.Sprintf(`:%s:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:`+
		`\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:%s:OF`, name[1:], qemu)
	if err := os.WriteFile(handlers+"/register", []byte(line), 0); err != nil {
		t.Skip("the kernel does not take a handler:", err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(handlers+name, []byte("-1"), 0); err != nil {
			t.Error(err)
		}
	})
}

// TestEmulatedPlatform: images of another processor run, answer and are built where the kernel has an emulator; where it has
// none the error says which one is missing.
func TestEmulatedPlatform(t *testing.T) {
	images := arm64Images(t)
	w := world.New(t)
	for _, name := range []string{"toolbox", "whoami"} { // their own names stay with this machine's
		w.Must(w.Docker("load", "-qi", filepath.Join(images, name+".oci.tar")))
		w.Must(w.Docker("tag", name, "arm/"+name))
		w.Must(w.Docker("rmi", name))
	}
	const arm = "--platform=linux/arm64"
	if _, err := os.Stat(handlers + "/qemu-aarch64"); err != nil {
		r := w.Docker("run", "--rm", arm, "arm/toolbox", "true")
		if r.Code != 125 {
			t.Errorf("without an emulator: exit code %d", r.Code)
		}
		wantIn(t, "without an emulator", r.Err, "is a program for aarch64 processors", "no handler qemu-aarch64", "qemu-user-static")
	}
	emulator(t)
	want(t, "machine", w.Must(w.Docker("run", "--rm", arm, "arm/toolbox", "uname", "-m")), "aarch64")
	r := w.Docker("run", "-d", "--name", "web", "-p", "127.0.0.1:8080:80", "arm/whoami")
	wantIn(t, "nobody asked for that platform", r.Err, "image's platform (linux/arm64", "no specific platform was requested")
	w.Must(w.Docker("run", "-d", "--name", "box", "--init", "--user", "1000", "--memory", "256m", arm, "arm/toolbox", "sleep", "1000"))
	want(t, "exec", w.Must(w.Docker("exec", "box", "sh", "-c", "uname -m; id -u")), "aarch64\n1000")
	eventually(t, "an answer over the network", func() bool { return strings.Contains(readPage(w, "http://127.0.0.1:8080/"), "Hostname") })
	wantIn(t, "doctor", w.Shoal("doctor").Out, "emulation: ", "aarch64")
	w.Must(w.Docker("rm", "-f", "web", "box"))

	dir := write(t, t.TempDir(), map[string]string{"Dockerfile": "FROM toolbox AS base-amd64\nFROM --platform=linux/arm64 arm/toolbox AS base-arm64\n" +
		"FROM base-$TARGETARCH\nRUN uname -m > /machine\nCMD cat /machine\n"})
	w.Must(w.Docker("build", "-q", arm, "-t", "classic", dir))
	w.Must(w.Shoal("build", "-q", "--platform", "linux/amd64,linux/arm64", "-t", "both", dir))
	for image, platforms := range map[string][]string{"classic": {"arm64"}, "both": {"arm64", "amd64"}} {
		for _, p := range platforms {
			machine := map[string]string{"arm64": "aarch64", "amd64": "x86_64"}[p]
			want(t, image+" "+p, w.Must(w.Docker("run", "--rm", "--platform=linux/"+p, image)), machine)
		}
	}
	if dir, reason := buildx(); reason != "" {
		t.Log("buildx was not tried:", reason)
	} else {
		wantIn(t, "platforms of the builder", w.Must(w.Run(dir+"/buildx", "ls")), "linux/arm64")
	}
}
