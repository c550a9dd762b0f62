package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"
)

const (
	pullRef    = "127.0.0.1:5099/bench:1"
	pullLayers = 5
	pullFiles  = 16
	pullBytes  = 100 << 20 // of a layer
	manyImages = 1000
)

// archive is a Docker archive under way.
type archive struct {
	w    *tar.Writer
	list []map[string]any
	err  error
}

func (a *archive) add(name string, data []byte) {
	if a.err == nil {
		a.err = a.w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))})
	}
	if a.err == nil {
		_, a.err = a.w.Write(data)
	}
}

// image adds an image of layers: plain archives by diff ID, and what is put into the archive for them.
func (a *archive) image(name string, diffIDs []string, layers [][]byte) {
	var names []string
	for i, l := range layers {
		n := diffIDs[i][len("sha256:"):] + "/layer.tar"
		a.add(n, l)
		names = append(names, n)
	}
	config, _ := json.Marshal(map[string]any{"os": "linux", "architecture": "amd64", "config": map[string]any{"Cmd": []string{"/x"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}})
	c := fmt.Sprintf("%x.json", sha256.Sum256(config))
	a.add(c, config)
	a.list = append(a.list, map[string]any{"Config": c, "RepoTags": []string{name}, "Layers": names})
}

func writeArchive(path string, fill func(a *archive)) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	a := &archive{w: tar.NewWriter(f)}
	fill(a)
	manifest, _ := json.Marshal(a.list)
	a.add("manifest.json", manifest)
	if a.err != nil {
		return a.err
	}
	return a.w.Close()
}

// layerOf makes a layer of files with data that gzip halves, as programs do.
func layerOf(seed uint64, files, size int) (diffID string, plain []byte) {
	r := rand.New(rand.NewPCG(seed, 1))
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = make([]byte, 3+r.IntN(12))
		for k := range words[i] {
			words[i][k] = byte(r.Uint32())
		}
	}
	var b, body bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range files {
		body.Reset()
		for body.Len() < size {
			body.Write(words[r.IntN(len(words))])
		}
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("layer%d/file%d", seed, i), Mode: 0o644, Size: int64(size)})
		w.Write(body.Bytes()[:size])
	}
	w.Close()
	return fmt.Sprintf("sha256:%x", sha256.Sum256(b.Bytes())), b.Bytes()
}

// pullSpeed measures the pull of a large image from a registry on this machine, to runnable, beside the bare work.
func pullSpeed(r *report, o options, engines []*engine, dir, _ string) error {
	stop, err := startRegistry(dir)
	if err != nil {
		r.note("pull: %v", err)
		return nil
	}
	defer stop()
	var packed []string
	path := filepath.Join(dir, "pull.tar")
	err = writeArchive(path, func(a *archive) {
		var ids []string
		var layers [][]byte
		for i := range pullLayers {
			id, plain := layerOf(uint64(i), pullFiles, pullBytes/pullFiles)
			var z bytes.Buffer
			w, _ := gzip.NewWriterLevel(&z, gzip.BestSpeed)
			w.Write(plain)
			w.Close()
			ids, layers = append(ids, id), append(layers, z.Bytes())
			name := filepath.Join(dir, fmt.Sprintf("packed%d", i))
			if err := os.WriteFile(name, z.Bytes(), 0o600); err != nil {
				a.err = err
			}
			packed = append(packed, name)
		}
		a.image(pullRef, ids, layers)
	})
	if err != nil {
		return err
	}
	defer os.Remove(path)
	for _, e := range engines {
		if e.name == "shoal" { // puts it into the registry
			if _, err := e.run("load", "-q", "-i", path); err != nil {
				return err
			}
			if _, err := e.run("push", "-q", pullRef); err != nil {
				return err
			}
		}
	}
	what := fmt.Sprintf("pull of %d layers, %d MB, from a registry on this machine", pullLayers, pullLayers*pullBytes>>20)
	names := []string{"bare work (decompress; write; sync)"}
	fs := []func() (time.Duration, error){func() (time.Duration, error) { return bareWork(dir, packed) }}
	for _, e := range engines {
		args := []string{"pull", "-q", pullRef}
		if e.name == "podman" {
			args = []string{"pull", "-q", "--tls-verify=false", pullRef}
		}
		names = append(names, e.name)
		fs = append(fs, func() (time.Duration, error) {
			e.run("rmi", "-f", pullRef)
			unix.Sync()
			start := time.Now()
			_, err := e.run(args...)
			return time.Since(start), err
		})
	}
	got := make([][]time.Duration, len(fs))
	for range min(o.runs, 5) {
		for i, f := range fs {
			d, err := f()
			if err != nil {
				return fmt.Errorf("%s: %w", names[i], err)
			}
			got[i] = append(got[i], d)
		}
	}
	for i, name := range names {
		r.add(what, "≤ 0.6 of docker, ≤ 1.5 of bare work (decompress; write; sync)", name, sorted(got[i]))
	}
	for _, e := range engines {
		e.run("rmi", "-f", pullRef)
	}
	return nil
}

// startRegistry serves Debian's docker-registry.
func startRegistry(dir string) (func(), error) {
	path, err := exec.LookPath("docker-registry")
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/registry}}\nhttp: {addr: %q}\n", dir, "127.0.0.1:5099")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(path, "serve", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop := func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	if _, err := answers("tcp", "127.0.0.1:5099"); err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

// answers waits until somebody answers.
func answers(network, addr string) (time.Duration, error) {
	start := time.Now()
	for {
		c, err := net.Dial(network, addr)
		if err == nil {
			fmt.Fprint(c, "GET /_ping HTTP/1.0\r\n\r\n")
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if err == nil {
			return time.Since(start), nil
		}
		if time.Since(start) > 20*time.Second {
			return 0, err
		}
		time.Sleep(time.Millisecond)
	}
}

// bareWork is what no pull can do without.
func bareWork(dir string, packed []string) (time.Duration, error) {
	out, err := os.MkdirTemp(dir, "bare-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(out)
	unix.Sync()
	start := time.Now()
	errs := make([]error, len(packed))
	var wg sync.WaitGroup
	for i, name := range packed {
		wg.Go(func() {
			data, err := os.ReadFile(name)
			if err == nil {
				err = os.WriteFile(filepath.Join(out, fmt.Sprint(i, ".gz")), data, 0o600) // the blobs are kept, too
			}
			var z *gzip.Reader
			if err == nil {
				z, err = gzip.NewReader(bytes.NewReader(data))
			}
			var f *os.File
			if err == nil {
				f, err = os.Create(filepath.Join(out, fmt.Sprint(i)))
			}
			if err == nil {
				_, err = io.Copy(f, z)
				f.Close()
			}
			errs[i] = err
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	d, err := os.Open(out)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	err = unix.Syncfs(int(d.Fd()))
	return time.Since(start), err
}

// manyImagesSpeed measures a store with many images, on memory, where filling it takes less than an hour.
func manyImagesSpeed(r *report, o options, _ []*engine, _, bin string) error {
	dir, err := os.MkdirTemp("/dev/shm", "shoal-bench-")
	if err != nil {
		r.note("many images: %v", err)
		return nil
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "many.tar")
	err = writeArchive(path, func(a *archive) {
		for i := range manyImages {
			var ids []string
			var layers [][]byte
			for k := range 5 {
				id, plain := layerOf(uint64(i*5+k), 1, 200)
				ids, layers = append(ids, id), append(layers, plain)
			}
			a.image(fmt.Sprintf("many/image%d:1", i), ids, layers)
		}
	})
	if err != nil {
		return err
	}
	e, err := startShoal(dir, bin)
	if e != nil {
		defer e.stop()
	}
	if err != nil {
		return err
	}
	if _, err := e.run("load", "-q", "-i", path); err != nil {
		return err
	}
	var start, first, warm []time.Duration
	for range min(o.runs, 5) {
		d, err := e.restart(syscall.SIGTERM)
		if err != nil {
			return err
		}
		start = append(start, d)
		for i := range 6 {
			at := time.Now()
			if _, err := e.run("images"); err != nil {
				return err
			}
			if d := time.Since(at); i == 0 {
				first = append(first, d)
			} else {
				warm = append(warm, d)
			}
		}
	}
	with := fmt.Sprintf(" with %d images, %d layers", manyImages, 5*manyImages)
	r.add("daemon start to served API"+with, "< 1000 ms", "shoal", sorted(start))
	r.add("`images`"+with, "≤ 50 ms", "shoal", sorted(warm))
	r.add("first `images` after a start"+with, "", "shoal", sorted(first))
	return nil
}
