package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// writeImages unpacks a docker save archive of the images that the tests expect into a directory. All are made of this
// machine's busybox: the real ones are on Docker Hub, and no test looks at more than their programs.
func writeImages(dir string) error {
	layer, err := busyboxLayer()
	if err != nil {
		return err
	}
	var manifest []map[string]any
	put := func(data []byte, suffix string) (string, error) {
		name := fmt.Sprintf("%x%s", sha256.Sum256(data), suffix)
		return name, os.WriteFile(filepath.Join(dir, name), data, 0o644)
	}
	for _, image := range []struct {
		names   []string
		label   string // makes images of the same layer differ
		arch    string
		command []string
	}{
		{[]string{"busybox:latest"}, "", "amd64", []string{"sh"}},
		{[]string{"busybox:glibc"}, "glibc", "amd64", []string{"sh"}},
		{[]string{"debian:trixie-slim"}, "debian", "amd64", []string{"bash"}},
		{[]string{"hello-world:frozen", "hello-world:latest", "hello-world:amd64"}, "hello", "amd64", []string{"/hello"}},
		{[]string{"hello-world:arm64"}, "hello", "arm64", []string{"/hello"}},
	} {
		config, err := json.Marshal(map[string]any{
			"architecture": image.arch, "os": "linux", "created": "2025-01-01T00:00:00Z",
			"config":  map[string]any{"Env": []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, "Cmd": image.command},
			"comment": image.label,
			"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
			"history": []any{map[string]any{"created": "2025-01-01T00:00:00Z", "created_by": "busybox"}},
		})
		if err != nil {
			return err
		}
		configName, err := put(config, ".json")
		if err != nil {
			return err
		}
		layerName, err := put(layer, ".tar")
		if err != nil {
			return err
		}
		manifest = append(manifest, map[string]any{"Config": configName, "RepoTags": image.names, "Layers": []string{layerName}})
	}
	data, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "manifest.json"), data, 0o644)
}

func busyboxLayer() ([]byte, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("the tests' images are made of busybox (Debian: busybox-static): %w", err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	applets, err := exec.Command(path, "--list").Output()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	dir := func(name string, mode int64) {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode})
	}
	file := func(name string, mode int64, data []byte) {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))})
		w.Write(data)
	}
	for _, d := range []string{"bin", "dev", "etc", "home", "root", "usr", "usr/bin", "usr/sbin", "var", "var/spool", "var/www", "lib", "sbin"} {
		dir(d, 0o755)
	}
	dir("tmp", 0o1777)
	file("bin/busybox", 0o755, program)
	have := map[string]bool{"busybox": true, "addgroup": true, "adduser": true}
	for name := range strings.FieldsSeq(string(applets) + " bash") {
		if !have[name] {
			have[name] = true
			target := "busybox"
			if name == "bash" {
				target = "sh"
			}
			w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: target, Mode: 0o777})
		}
	}
	// Debian leaves these two out of its busybox; the tests need what is below and no more of them.
	file("bin/addgroup", 0o755, []byte("#!/bin/sh\nwhile [ $# -gt 1 ]; do case $1 in -g) gid=$2; shift;; esac; shift; done\n"+
		"echo \"$1:x:${gid:-1000}:\" >> /etc/group\n"))
	file("bin/adduser", 0o755, []byte("#!/bin/sh\nuid=1000; while [ $# -gt 1 ]; do case $1 in -u) uid=$2; shift;; -G) group=$2; shift;; esac; shift; done\n"+
		"[ -n \"$group\" ] || { group=$1; echo \"$1:x:$uid:\" >> /etc/group; }\n"+
		"gid=$(sed -n \"s/^$group:x:\\([0-9]*\\):.*/\\1/p\" /etc/group)\n"+
		"echo \"$1:x:$uid:$gid::/home/$1:/bin/sh\" >> /etc/passwd; mkdir -p /home/$1; chown $uid:$gid /home/$1\n"))
	file("hello", 0o755, []byte("#!/bin/sh\necho Hello from Docker!\n"))
	file("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nbin:x:2:2:bin:/bin:/bin/false\n"+
		"www-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"))
	file("etc/group", 0o644, []byte("root:x:0:\ndaemon:x:1:\nbin:x:2:\nwww-data:x:33:\nstaff:x:50:\nwheel:x:10:\nnogroup:x:65534:\n"))
	return out.Bytes(), w.Close()
}
