// Command moby runs the integration tests of Docker's own daemon (github.com/moby/moby/v2/integration) against Shoal. It
// fetches their sources by the Go module proxy, compiles them unchanged (but for the directory of their images) and runs
// each test in a process of its own against a throw-away shoald, in namespaces of their own. It compares with
// testdata/expected.txt, where what fails stands with its reason. It must not change the machine it runs on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/shoalhq/shoal/test/gomod"
)

const module = "github.com/moby/moby/v2"

// frozenDir is where the tests look for the archive of their images.
const frozenDir = `"/docker-frozen-images"`

type options struct {
	bin, suites, run, version string
	expected, out, witness    string
	daemons, verbose          bool
	timeout                   time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of shoald and shoal-runtime")
	flag.StringVar(&o.suites, "suites", "container,image,network,volume,system,session,build", "directories below integration/ to run")
	flag.StringVar(&o.run, "run", ".", "run only tests whose name this expression matches")
	flag.StringVar(&o.version, "moby", "v2.0.0-beta.24", "version of "+module)
	flag.StringVar(&o.expected, "expected", "test/moby/testdata/expected.txt", "tests that fail, with the reasons")
	flag.StringVar(&o.out, "o", "", "file that gets everything the tests print")
	flag.StringVar(&o.witness, "dockerd", "", "directory of a dockerd with its containerd to test in Shoal's place, to see what fails there")
	flag.BoolVar(&o.daemons, "daemons", true, "also those tests that start daemons of their own")
	flag.BoolVar(&o.verbose, "v", false, "print what failing tests print")
	flag.DurationVar(&o.timeout, "timeout", 90*time.Second, "time that a test may take")
	flag.Parse()
	if os.Getenv("SHOAL_MOBY_INSIDE") == "" {
		os.Exit(outside(o))
	}
	ok, err := inside(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "moby:", err)
		os.Exit(1)
	}
	if !ok {
		os.Exit(1)
	}
}

// outside compiles, and runs this program again as the first process of new namespaces: whatever it starts ends with it.
func outside(o options) int {
	if err := compile(o); err != nil {
		fmt.Fprintln(os.Stderr, "moby:", err)
		return 1
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), "SHOAL_MOBY_INSIDE=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "moby:", err)
		return 1
	}
	return 0
}

func cacheDir(o options) (string, error) {
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "shoal-test", "moby", o.version), err
}

// compile makes the suites' test programs once for each version.
func compile(o options) error {
	published, err := gomod.Download(context.Background(), "/", module+"@"+o.version)
	if err != nil {
		return err
	}
	cache, err := cacheDir(o)
	if err != nil {
		return err
	}
	images := filepath.Join(cache, "images")
	if err := os.MkdirAll(images, 0o755); err != nil {
		return err
	}
	// A copy, for the one change: images are found in the cache in place of the root directory.
	dir := filepath.Join(cache, "src")
	if _, err := os.Stat(dir); err != nil {
		if err := copySource(published.Dir, dir, images); err != nil {
			return err
		}
	}
	for suite := range strings.SplitSeq(o.suites, ",") {
		program := filepath.Join(cache, strings.ReplaceAll(suite, "/", "-")+".test")
		if _, err := os.Stat(program); err == nil {
			continue
		}
		fmt.Println("compiling", suite)
		cmd := exec.Command("go", "test", "-c", "-o", program, "./integration/"+suite)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("compile %s: %w\n%s", suite, err, out)
		}
	}
	return writeImages(images)
}

func copySource(published, dir, images string) error {
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if err := os.CopyFS(part, os.DirFS(published)); err != nil {
		return err
	}
	frozen := filepath.Join(part, "internal/testutil/fixtures/load/frozen.go")
	text, err := os.ReadFile(frozen)
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), frozenDir) {
		return fmt.Errorf("%s does not name %s: look where this version keeps its images", frozen, frozenDir)
	}
	changed := strings.Replace(string(text), frozenDir, fmt.Sprintf("%q", images), 1)
	if err := errors.Join(os.Chmod(frozen, 0o644), os.WriteFile(frozen, []byte(changed), 0o644)); err != nil {
		return err
	}
	return os.Rename(part, dir)
}

// inside runs the suites and says whether everything was as expected.
func inside(o options) (bool, error) {
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return false, fmt.Errorf("mount /proc: %w", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return false, fmt.Errorf("loopback: %w: %s", err, out)
	}
	cache, err := cacheDir(o)
	if err != nil {
		return false, err
	}
	src := filepath.Join(cache, "src")
	tmp, err := os.MkdirTemp("/var/tmp", "shoal-moby-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(tmp)
	list, err := readExpected(o.expected)
	if err != nil {
		return false, err
	}
	d := &daemon{dir: tmp, options: o}
	if err := d.prepare(); err != nil {
		return false, err
	}
	defer d.stop()
	log := os.Stdout
	if o.out != "" {
		if log, err = os.Create(o.out); err != nil {
			return false, err
		}
		defer log.Close()
	}
	only, err := regexp.Compile(o.run)
	if err != nil {
		return false, err
	}
	all := results{}
	for suite := range strings.SplitSeq(o.suites, ",") {
		program := filepath.Join(cache, strings.ReplaceAll(suite, "/", "-")+".test")
		tests, err := topLevel(d, program, filepath.Join(src, "integration", suite), !o.daemons)
		if err != nil {
			return false, fmt.Errorf("%s: %w", suite, err)
		}
		for _, name := range tests {
			if !only.MatchString(name) {
				continue
			}
			if err := d.ensure(); err != nil {
				return false, err
			}
			text, took := d.test(program, filepath.Join(src, "integration", suite), name)
			found := all.add(suite, name, text)
			fmt.Printf("%-6s %s %s (%.1fs)\n", found, suite, name, took.Seconds())
			if o.out != "" || (o.verbose && found == failed) {
				fmt.Fprintf(log, "### %s %s\n%s\n", suite, name, text)
			}
		}
	}
	return report(all, list, o.run == "."), nil
}
