package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// buildSteps is a Dockerfile of ten steps.
func buildSteps() string {
	var b strings.Builder
	fmt.Fprintf(&b, "FROM %s\nWORKDIR /w\nCOPY f /f\n", image)
	for i := range 6 {
		fmt.Fprintf(&b, "RUN echo %d > /out%d\n", i, i)
	}
	b.WriteString("CMD [\"/bin/cat\", \"/out0\"]\n")
	return b.String()
}

// buildSpeed measures whole `build` commands of a ten-step Dockerfile, with every step run and with none.
func buildSpeed(r *report, o options, engines []*engine, dir, _ string) error {
	work := filepath.Join(dir, "build")
	if err := os.Mkdir(work, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{"Dockerfile": buildSteps(), "f": "x"} {
		if err := os.WriteFile(filepath.Join(work, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	builders := buildersOf(r, engines, dir)
	for _, mode := range []struct {
		what, target string
		runs         int
		args         []string
	}{
		{"`build` of 10 steps, no cache", "no slower than docker with BuildKit", min(o.runs, 6), []string{"--no-cache"}},
		{"`build` of 10 steps, all cached", "≤ 150 ms, no slower than docker with BuildKit", min(o.runs, 20), nil},
	} {
		var fs []func() error
		var who []string
		for _, b := range builders {
			args := append(append(append([]string{}, b.args...), mode.args...), "-q", "-t", "bench-built", work)
			run := func() error {
				_, err := b.engine.run(args...)
				return err
			}
			if err := run(); err != nil {
				r.note("%s left out of %s: %v", b.name, mode.what, err)
				continue
			}
			fs, who = append(fs, run), append(who, b.name)
		}
		got, err := timed(mode.runs, fs)
		if err != nil {
			return err
		}
		for i := range fs {
			r.add(mode.what, mode.target, who[i], got[i])
		}
	}
	return nil
}

// builder is one way to build with an engine.
type builder struct {
	name   string
	engine *engine
	args   []string
}

// buildersOf gives Shoal's own command, docker's plug-in buildx on Shoal and on Docker where it is in the user's cache (the
// end-to-end tests put it there), and podman's. Docker without the plug-in has its classic builder only.
func buildersOf(r *report, engines []*engine, dir string) (list []builder) {
	plugin := ""
	if cache, err := os.UserCacheDir(); err == nil {
		if found, _ := filepath.Glob(filepath.Join(cache, "shoal-test", "buildx-*", "buildx")); len(found) > 0 {
			plugin = found[len(found)-1]
		}
	}
	config := filepath.Join(dir, "buildx", "cli-plugins")
	if plugin != "" && (os.MkdirAll(config, 0o755) != nil || os.Symlink(plugin, filepath.Join(config, "docker-buildx")) != nil) {
		plugin = ""
	}
	docker, err := exec.LookPath("docker")
	if plugin == "" || err != nil {
		plugin = ""
		r.note("build: the plug-in buildx is not in the user's cache; docker builds with its classic builder")
	}
	for _, e := range engines {
		if e.name != "docker" || plugin == "" {
			list = append(list, builder{e.name, e, []string{"build"}})
		}
		if plugin != "" && e.name != "podman" {
			x := *e
			x.client, x.env = []string{docker}, append(append([]string{}, e.env...), "DOCKER_CONFIG="+filepath.Dir(config))
			name := e.name
			if ours(name) {
				name += ", docker buildx"
			}
			list = append(list, builder{name, &x, []string{"buildx", "build", "--provenance=false"}})
		}
	}
	return list
}
