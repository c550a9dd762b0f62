//go:build kernel

package registry_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/image/registry"
	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/image/transfer"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/test/world"
)

// debian starts Debian's docker-registry on loopback and gives its address.
func debian(t *testing.T, extra string) string {
	t.Helper()
	if _, err := exec.LookPath("docker-registry"); err != nil {
		t.Skip("docker-registry is not installed")
	}
	dir := t.TempDir()
	addr := freePort(t)
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %s}\n%s", filepath.Join(dir, "data"), addr, extra)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	until(t, "docker-registry answers", func() bool {
		res, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			res.Body.Close()
		}
		return err == nil
	})
	return addr
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	world.Eventually(t, what, ok)
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// skopeo runs the witness.
func skopeo(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("skopeo", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("skopeo %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func freshStore(t testing.TB) *store.Store {
	s := store.New(store.Config{Root: filepath.Join(t.TempDir(), "images")})
	t.Cleanup(func() { s.Close() })
	return s
}

func client(s *store.Store, set registry.Settings) *registry.Client {
	return registry.New(registry.Config{Store: s, Settings: func() registry.Settings { return set }})
}

// lines collects progress.
type lines struct {
	mu   sync.Mutex
	list []string
}

func (l *lines) tell(p model.ImageProgress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := p.Action
	if p.ID != "" {
		text = p.ID + ": " + text
	}
	if n := len(l.list); n == 0 || l.list[n-1] != text {
		l.list = append(l.list, text)
	}
}

func (l *lines) text() string { return strings.Join(l.list, "\n") }

func (l *lines) want(t *testing.T, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(l.text(), p) {
			t.Errorf("progress lacks %q:\n%s", p, l.text())
		}
	}
}

// sample is an image of three layers, one of which hides a file of another.
func sample(t *testing.T, name, arch string) imagetest.Image {
	return imagetest.Image{Tags: []string{name}, Arch: arch, Config: ocispec.ImageConfig{Cmd: []string{"/run"}, Labels: map[string]string{"name": name}},
		Layers: [][]byte{
			imagetest.Layer(t, imagetest.File{Name: "etc/"}, imagetest.File{Name: "etc/gone", Data: "x"}, imagetest.File{Name: "tmp/", Mode: 0o1777}),
			imagetest.Layer(t, imagetest.File{Name: "run", Data: strings.Repeat("program of "+name, 50000)}),
			imagetest.Layer(t, imagetest.File{Name: "etc/.wh.gone"}, imagetest.File{Name: "tmp/implied", Data: "y"}),
		}}
}

func load(t testing.TB, s *store.Store, archive []byte) {
	t.Helper()
	if _, err := transfer.Load(context.Background(), s, bytes.NewReader(archive), nil, nil); err != nil {
		t.Fatal(err)
	}
}

// put brings archives into a registry by skopeo.
func put(t *testing.T, archive []byte, to string, args ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	from := "docker-archive:" + file
	if bytes.Contains(archive, []byte("oci-layout")) {
		from = "oci-archive:" + file
	}
	skopeo(t, append(append([]string{"copy", "--insecure-policy", "--dest-tls-verify=false"}, args...), from, "docker://"+to)...)
}
