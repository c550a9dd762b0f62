//go:build kernel

package registry_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/image/registry"
	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/test/world"
)

// A daemon that dies at any point of a pull leaves no half image, and the next one pulls it.
func TestDeathInAPull(t *testing.T) {
	w := world.New(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: '127.0.0.1:5055'}\n", filepath.Join(dir, "data"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("docker-registry"); err != nil {
		t.Skip("docker-registry is not installed")
	}
	cmd := exec.Command("docker-registry", "serve", config)
	var err error
	w.InNet(func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	const ref = "127.0.0.1:5055/toolbox:1"
	w.Must(w.Shoal("run", "--rm", "toolbox", "true"))
	w.Must(w.Shoal("tag", "toolbox", ref))
	until(t, "a push works", func() bool { return w.Shoal("push", ref).Code == 0 })
	w.Must(w.Shoal("rmi", "-f", ref, "toolbox"))
	for _, point := range []string{"image/pull/commit=kill", "image/pull/commit=2*kill", "image/unpack/sync=kill", "image/unpack/commit=kill"} {
		w.StopDaemon()
		w.AwaitDaemonEnd()
		w.StartDaemon("SHOAL_FAILPOINTS=" + point)
		if r := w.Shoal("pull", ref); r.Code == 0 {
			t.Fatalf("%s: the daemon lives: %+v", point, r)
		}
		w.AwaitDaemonEnd()
		w.StartDaemon()
		if out := w.Must(w.Shoal("images", "-aq")); out != "" {
			t.Fatalf("%s: something is recorded: %s", point, out)
		}
		w.Must(w.Shoal("pull", ref))
		if out := w.Must(w.Shoal("run", "--rm", ref, "echo", "whole")); out != "whole" {
			t.Fatalf("%s: %s", point, out)
		}
		w.Must(w.Shoal("rmi", ref))
		if out := w.Must(w.Shoal("system", "df", "--format", "{{.Type}} {{.Size}}")); !strings.Contains(out, "Images 0B") {
			t.Errorf("%s: left behind: %s", point, out)
		}
	}
}

// A disk that is too small says so, keeps room for others, and works again when there is room.
func TestSmallDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=240m"); err != nil {
		t.Skip("cannot mount tmpfs:", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	addr := ours(t, nil)
	ref := addr + "/big:1"
	big := imagetest.Image{Tags: []string{ref}}
	for i := range 3 {
		big.Layers = append(big.Layers, imagetest.Layer(t, imagetest.File{Name: fmt.Sprint("file", i), Data: textLike(40<<20, uint64(i))}))
	}
	s := freshStore(t)
	load(t, s, imagetest.Docker(big))
	if err := client(s, registry.Settings{}).Push(t.Context(), ref, "", nil, nil); err != nil {
		t.Fatal(err)
	}
	small := store.New(store.Config{Root: filepath.Join(dir, "images")})
	t.Cleanup(func() { small.Close() })
	c := client(small, registry.Settings{})
	err := c.Pull(t.Context(), ref, "", nil, nil)
	if !errs.Is(err, errs.Exhausted) || !strings.Contains(err.Error(), "the disk") {
		t.Fatal(err)
	}
	t.Log(err)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || int64(st.Bavail)*st.Bsize < 32<<20 {
		t.Fatalf("the disk was filled: %d MB left, %v", int64(st.Bavail)*st.Bsize>>20, err)
	}
	if u, err := small.DiskUsage(t.Context()); err != nil || len(u.Images) != 0 || u.LayersSize != 0 {
		t.Fatalf("something was recorded: %+v %v", u, err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=800m"); err != nil {
		t.Fatal(err)
	}
	if err := c.Pull(t.Context(), ref, "", nil, nil); err != nil {
		t.Fatal(err)
	}
}
