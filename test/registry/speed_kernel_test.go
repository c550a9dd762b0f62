//go:build kernel

package registry_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/image/registry"
)

// textLike makes data that gzip halves or better, as programs do.
func textLike(n int, seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 1))
	words := make([][]byte, 4096)
	for i := range words {
		w := make([]byte, 3+r.IntN(12))
		for k := range w {
			w[k] = byte(r.Uint32())
		}
		words[i] = w
	}
	var b bytes.Buffer
	for b.Len() < n {
		b.Write(words[r.IntN(len(words))])
	}
	return string(b.Bytes()[:n])
}

// TestPullSpeed compares a pull of five layers with the bare work: decompress, write, sync with the same cores. The size
// in megabytes of a layer is SHOAL_PULL_MB, 4 unless told otherwise; then only the order of magnitude counts.
func TestPullSpeed(t *testing.T) {
	size := 4
	fmt.Sscan(os.Getenv("SHOAL_PULL_MB"), &size)
	addr := debian(t, "")
	ref := addr + "/big:1"
	img := imagetest.Image{Tags: []string{ref}, Pack: imagetest.Gzip}
	var packed [][]byte
	for i := range 5 {
		var files []imagetest.File
		for k := range 16 {
			files = append(files, imagetest.File{Name: fmt.Sprintf("layer%d/file%d", i, k), Data: textLike(size<<16, uint64(i*100+k))})
		}
		l := imagetest.Layer(t, files...)
		img.Layers = append(img.Layers, l)
		packed = append(packed, imagetest.Gzip(l))
	}
	s := freshStore(t)
	load(t, s, imagetest.Docker(img))
	push := time.Now()
	if err := client(s, registry.Settings{}).Push(t.Context(), ref, "", nil, nil); err != nil {
		t.Fatal(err)
	}
	pushed := time.Since(push)

	dir := t.TempDir()
	start := time.Now()
	var wg sync.WaitGroup
	for i, p := range packed {
		wg.Go(func() {
			z, err := gzip.NewReader(bytes.NewReader(p))
			if err != nil {
				t.Error(err)
				return
			}
			f, _ := os.Create(filepath.Join(dir, fmt.Sprint(i)))
			io.Copy(f, z)
			f.Close()
			os.WriteFile(filepath.Join(dir, fmt.Sprint(i, ".gz")), p, 0o600) // the blobs are kept too
		})
	}
	wg.Wait()
	d, _ := os.Open(dir)
	unix.Syncfs(int(d.Fd()))
	d.Close()
	bare := time.Since(start)

	fresh := freshStore(t)
	start = time.Now()
	if err := client(fresh, registry.Settings{}).Pull(t.Context(), ref, "", nil, nil); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	t.Logf("5 layers of %d MB: pull %v, bare work %v, ratio %.2f; push %v", size, took.Round(time.Millisecond), bare.Round(time.Millisecond), took.Seconds()/bare.Seconds(), pushed.Round(time.Millisecond))
	if size >= 50 {
		peers(t, ref)
	}
	if size >= 50 && took > 3*bare {
		t.Errorf("a pull takes %v, the bare work %v", took, bare)
	}
}

// peers tells how long the other engines of this machine take for the same pull.
func peers(t *testing.T, ref string) {
	dir := t.TempDir()
	time1 := func(name string, args ...string) {
		start := time.Now()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Logf("%s: %v %s", name, err, out)
			return
		}
		t.Logf("%s takes %v", name, time.Since(start).Round(time.Millisecond))
	}
	if _, err := exec.LookPath("podman"); err == nil {
		root := []string{"--root", filepath.Join(dir, "podman"), "--runroot", filepath.Join(dir, "podrun")}
		time1("podman", append(root, "pull", "-q", "--tls-verify=false", ref)...)
		exec.Command("podman", append(root, "rmi", "-f", ref)...).Run()
	}
	if _, err := exec.LookPath("dockerd"); err == nil {
		host := "unix://" + filepath.Join(dir, "docker.sock")
		d := exec.Command("dockerd", "-H", host, "--data-root", filepath.Join(dir, "docker"), "--exec-root", filepath.Join(dir, "dockerx"), "--pidfile", filepath.Join(dir, "pid"),
			"--bridge", "none", "--iptables=false", "--ip6tables=false")
		if err := d.Start(); err != nil {
			t.Log(err)
			return
		}
		defer d.Wait()
		defer d.Process.Signal(unix.SIGTERM)
		for end := time.Now().Add(20 * time.Second); exec.Command("docker", "-H", host, "version").Run() != nil; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				t.Log("dockerd does not answer")
				return
			}
		}
		time1("docker", "-H", host, "pull", "-q", ref)
	}
}
