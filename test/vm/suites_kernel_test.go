//go:build kernel

package vm

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/vm/plan"
)

var (
	long   = flag.Bool("long", false, "all suites on all file systems, and many power cuts; about an hour without KVM")
	only   = flag.String("suites", "", "these packages instead, with commas: ./runtime/cgroup,./test/e2e=TestName")
	onDisk = flag.String("disk", "", "ext4, xfs or btrfs only")
	peer   = flag.Bool("peer", false, "with the programs of a machine that serves files, and AppArmor's; without -suites what needs them or such a kernel")
)

// suite is a package whose kernel tests run in the guest.
type suite struct{ pkg, run string }

// short is what CI runs: what differs most on another kernel and with cgroup v2.
var short = []suite{{"./runtime/cgroup", "."}}

// all is everything that the guest can run.
var all = []suite{{"./runtime/cgroup", "."}, {"./runtime/seccomp", "."}, {"./lib/overlay", "."}, {"./rootview", "."}, {"./runtime/ocicli", "."},
	{"./task", "."}, {"./image", "."}, {"./image/store", "."}, {"./volume", "."}, {"./doctor", "."}, {"./network/kernel", "."}, {"./network", "."},
	{"./node", "."}, {"./test/escape", "."}, {"./test/e2e", "."}, {"./test/chaos", "."}, {"./test/soak", "."}}

// features is what this machine's kernel may not have: file servers, ipvlan and VLANs, AppArmor, cgroup v2.
var features = []suite{{"./network", "TestMacvlan$|TestIPvlan$"}, {"./doctor", "."}, {"./runtime/ocicli", "BesideCrun"}, {"./test/e2e", "TestNFS|TestCIFS|TestDirect|TestCgroup2|TestAppArmor"}}

// needed are the host's programs without which there is no virtual machine.
var needed = []string{"qemu-system-x86_64", "mkfs.ext4", "busybox", "dpkg", "apt-get"}

func need(t *testing.T, names ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			t.Skipf("%v: install qemu-system-x86, busybox-static, e2fsprogs, xfsprogs and btrfs-progs", err)
		}
	}
}

// TestSuites runs kernel tests in the guest and reports each of them as its own.
func TestSuites(t *testing.T) {
	if *release || *cuts > 0 {
		t.Skip("-release or -cuts is asked for")
	}
	need(t, needed...)
	suites, disks := short, []string{"ext4"}
	if *long {
		suites, disks = all, []string{"ext4", "xfs", "btrfs"}
	}
	if *peer {
		need(t, "debootstrap")
		suites = features
	}
	if *only != "" {
		suites = nil
		for s := range strings.SplitSeq(*only, ",") {
			pkg, run, named := strings.Cut(s, "=")
			if !named {
				run = "."
			}
			suites = append(suites, suite{pkg, run})
		}
	}
	if *onDisk != "" {
		disks = []string{*onDisk}
	}
	root := filepath.Join(workDir(t), "suites.img")
	if err := makeRoot(t, root, func(dir string) error {
		if *peer {
			if err := addPeer(t, dir); err != nil {
				return err
			}
		}
		return buildTests(dir, suites)
	}); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(root)
	for _, kind := range disks {
		t.Run(kind, func(t *testing.T) {
			need(t, "mkfs."+kind)
			data := filepath.Join(t.TempDir(), kind)
			if err := makeDisk(data, kind, "4G", ""); err != nil {
				t.Fatal(err)
			}
			options := map[string]string{"ext4": "prjquota", "xfs": "prjquota"}[kind]
			m := Boot(t, Config{Name: kind, Root: root, Disks: []Disk{{File: data, Type: kind, Options: options, At: "/data"}},
				Steps: steps(suites), Memory: 3072})
			report(t, m, filepath.Join(workDir(t), kind+".log"))
		})
	}
}

// buildTests compiles the suites into /tests of the guest.
func buildTests(root string, suites []suite) error {
	args := []string{"test", "-c", "-tags", "kernel", "-ldflags", "-s -w", "-o", root + "/tests/"}
	for _, s := range suites {
		args = append(args, s.pkg)
	}
	if err := os.MkdirAll(root+"/tests", 0o755); err != nil {
		return err
	}
	_, err := run(repository(), "go", args...)
	return err
}

// measuring are the tests whose result is a figure, which here is the emulator's, and which take minutes.
const measuring = "Cost$|Speed$|Latency$|Throughput$|TestScale$|TestManyPortsOfOne$"

func steps(suites []suite) (out []plan.Step) {
	repo := repository()
	for _, s := range suites {
		out = append(out, plan.Step{Name: strings.TrimPrefix(s.pkg, "./"), Dir: filepath.Join(repo, s.pkg), Seconds: 3000,
			Args: []string{"/tests/" + path.Base(s.pkg) + ".test", "-test.v", "-test.timeout", "0", "-test.run", s.run, "-test.skip", measuring},
			Env:  []string{"SHOAL_BIN=" + filepath.Join(repo, "bin"), "TMPDIR=/data", "SHOAL_PEER=/peer"}})
	}
	return out
}

var (
	began = regexp.MustCompile(`^=== RUN +(\S+)$`)
	ended = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+) \(([\d.]+)s\)$`)
)

// report turns the guest's events into results of subtests. Everything is in the log file, too.
func report(t *testing.T, m *Machine, logFile string) {
	t.Helper()
	log, err := os.Create(logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	start := time.Now()
	var lines []string // of the test that runs
	running := ""
	steps := 0
	for e := range m.Events {
		switch {
		case e.Fail != "":
			t.Errorf("the guest: %s", e.Fail)
		case e.Exit != nil:
			steps++
			fmt.Fprintf(log, "==== %s: exit %d after %.1f s\n", e.Step, *e.Exit, e.Seconds)
			t.Logf("%s: exit %d after %.1f s", e.Step, *e.Exit, e.Seconds)
			if *e.Exit != 0 {
				t.Errorf("%s ended with %d in %q:\n%s", e.Step, *e.Exit, running, strings.Join(lines, "\n"))
			}
			lines, running = nil, ""
		default:
			fmt.Fprintf(log, "%7.1f %s\n", time.Since(start).Seconds(), e.Line)
			lines = append(lines, e.Line)
			if x := began.FindStringSubmatch(e.Line); x != nil && !strings.Contains(x[1], "/") {
				running, lines = x[1], nil
			}
			if x := ended.FindStringSubmatch(e.Line); x != nil {
				one(t, e.Step+"/"+x[2], x[1], strings.Join(lines, "\n"))
				lines = nil
			}
		}
	}
	if steps == 0 || t.Failed() {
		t.Logf("the guest's console:\n%s", m.Console())
	}
	if steps == 0 {
		t.Fatal("no step came to its end")
	}
}

func one(t *testing.T, name, result, output string) {
	t.Run(name, func(t *testing.T) {
		switch result {
		case "FAIL":
			t.Error(output)
		case "SKIP":
			t.Skip(output)
		}
	})
}
