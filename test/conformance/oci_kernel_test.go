//go:build kernel

package conformance

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	rewrite   = flag.Bool("rewrite", false, "write testdata/oci-runtime.txt anew")
	yardstick = flag.Bool("yardstick", false, "run the programs with runc and crun too (with -rewrite)")
)

// golden lists, for each program of the Open Container Initiative's runtime-tools, whether it passes with
// shoal-runtime, runc and crun on the reference machine, and why not with shoal-runtime.
const golden = "testdata/oci-runtime.txt"

const tools = "github.com/opencontainers/runtime-tools"

// module is where the programs' module is; they need modules that Shoal does not.
const module = "oci"

func TestKernelOCIRuntime(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the programs come with a root file system for amd64 only")
	}
	dir := t.TempDir()
	programs := buildPrograms(t, dir)
	binary := filepath.Join(t.TempDir(), "shoal-runtime")
	build(t, "../..", binary, "./cmd/shoal-runtime")
	known := readGolden(t)
	results := map[string][]string{}
	for _, name := range programs {
		results[name] = []string{"-", "-", "-"}
	}
	runAll(t, dir, binary, programs, 0, results)
	if *rewrite {
		if *yardstick {
			for i, peer := range []string{"runc", "crun"} {
				if path, err := exec.LookPath(peer); err == nil {
					runAll(t, dir, path, programs, i+1, results)
				}
			}
		}
		writeGolden(t, programs, results, known)
		return
	}
	for _, name := range programs {
		want := known[name]
		if got := results[name][0]; got != want.result {
			t.Errorf("%s: %s, want %q (go test -tags kernel ./test/conformance -rewrite, when that is right)", name, got, want.result)
		}
	}
}

func build(t *testing.T, dir, out string, packages ...string) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"build", "-o", out}, packages...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %v: %v\n%s", packages, err, text)
	}
}

// buildPrograms builds the programs into dir, with the files they look for in their working directory.
func buildPrograms(t *testing.T, dir string) []string {
	t.Helper()
	build(t, module, dir+"/", tools+"/cmd/runtimetest", tools+"/validation/...")
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", tools)
	cmd.Dir = module
	source, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	rootfs := "rootfs-" + runtime.GOARCH + ".tar.gz"
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(source)), rootfs))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != "runtimetest" {
			names = append(names, e.Name())
		}
	}
	if err := os.WriteFile(filepath.Join(dir, rootfs), data, 0o644); err != nil {
		t.Fatal(err)
	}
	return names
}

// runAll runs the programs, two at a time (they sleep much), with a runtime that has a root of its own. Those about
// cgroups all use the same one, so they take turns.
func runAll(t *testing.T, dir, binary string, programs []string, column int, results map[string][]string) {
	t.Helper()
	root := t.TempDir()
	wrapper := filepath.Join(t.TempDir(), filepath.Base(binary))
	script := fmt.Sprintf("#!/bin/sh\nexec %s --root %s \"$@\"\n", binary, root)
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	defer sweep(t, binary, root)
	var mu, cgroups sync.Mutex
	var wait sync.WaitGroup
	slots := make(chan struct{}, 2)
	for _, name := range programs {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			if strings.HasPrefix(name, "linux_cgroups_") {
				cgroups.Lock()
				defer cgroups.Unlock()
			}
			result, output := runProgram(dir, name, wrapper)
			mu.Lock()
			defer mu.Unlock()
			results[name][column] = result
			if result != "pass" {
				t.Logf("%s with %s:\n%s", name, filepath.Base(binary), output)
			}
		})
	}
	wait.Wait()
}

func runProgram(dir, name, wrapper string) (result, output string) {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, name))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "RUNTIME="+wrapper)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	failed := err != nil
	var said []string
	for line := range strings.Lines(out.String()) {
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "not ok") && !strings.Contains(trimmed, "# TODO") && !strings.Contains(trimmed, "# SKIP") {
			failed = true
			said = append(said, trimmed)
		}
	}
	if !failed {
		return "pass", ""
	}
	return "fail", strings.Join(said, "\n") + "\n" + errOut.String()
}

// sweep removes containers that programs left behind, which happens when they fail.
func sweep(t *testing.T, binary, root string) {
	t.Helper()
	ids, _ := exec.Command(binary, "--root", root, "list", "-q").Output()
	for _, id := range strings.Fields(string(ids)) {
		if out, err := exec.Command(binary, "--root", root, "delete", "--force", id).CombinedOutput(); err != nil {
			t.Logf("remove %s: %v: %s", id, err, out)
		}
	}
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), "ocitest*"))
	for _, dir := range left {
		os.RemoveAll(dir)
	}
}

type entry struct {
	result string
	line   []string // all results
	reason string
}

func readGolden(t *testing.T) map[string]entry {
	t.Helper()
	known := map[string]entry{}
	data, err := os.ReadFile(golden)
	if err != nil && !*rewrite {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		known[fields[0]] = entry{fields[1], fields[1:4], strings.Join(fields[4:], " ")}
	}
	return known
}

func writeGolden(t *testing.T, programs []string, results map[string][]string, known map[string]entry) {
	t.Helper()
	var b strings.Builder
	count := [3]int{}
	slices.Sort(programs)
	for _, name := range programs {
		line := results[name]
		if !*yardstick && known[name].line != nil {
			copy(line[1:], known[name].line[1:])
		}
		for i, r := range line {
			if r == "pass" {
				count[i]++
			}
		}
		b.WriteString(strings.TrimRight(fmt.Sprintf("%-33s %-6s %-5s %-5s %s", name, line[0], line[1], line[2], known[name].reason), " ") + "\n")
	}
	head := fmt.Sprintf("# The validation programs of %s v0.9.0 on the reference machine (hybrid cgroups, root without\n"+
		"# CAP_SYS_RESOURCE, no SELinux, no AppArmor). Passed: shoal-runtime %d, runc %d, crun %d of %d.\n"+
		"%-33s %-6s %-5s %-5s %s\n", tools, count[0], count[1], count[2], len(programs), "# program", "shoal", "runc", "crun", "why not with shoal-runtime")
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(golden, []byte(head+b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
