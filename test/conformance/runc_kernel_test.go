//go:build kernel

package conformance

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go/features"
)

// Every verb and flag that runc has, shoal-runtime knows, by the names runc gives them.
func TestKnowsRuncsCommandLine(t *testing.T) {
	need(t, "runc")
	ours := bin(t, "shoal-runtime")
	flag := regexp.MustCompile(`(?m)^ +--([a-z0-9-]+)(?: value)?(?:, -([a-z])(?: value)?)? {2,}`)
	global, rest, _ := strings.Cut(run(t, nil, "runc", "--help").out, "GLOBAL OPTIONS:")
	_, commands, _ := strings.Cut(global, "COMMANDS:")
	verbs := regexp.MustCompile(`(?m)^ +([a-z]+) {2,}`).FindAllStringSubmatch(commands, -1)
	if len(verbs) < 15 {
		t.Fatalf("runc's verbs: %v", verbs)
	}
	unknown := func(a answer) bool {
		return strings.Contains(a.err, "not defined") || strings.Contains(a.err, "not a verb")
	}
	for _, f := range flag.FindAllStringSubmatch(rest, -1) {
		if a := run(t, nil, ours, "--"+f[1]+"=true", "--version"); unknown(a) {
			t.Errorf("--%s: %v", f[1], a)
		}
	}
	for _, v := range verbs {
		if v[1] == "help" || v[1] == "checkpoint" || v[1] == "restore" {
			continue // checkpoints are not supported, and say so
		}
		if a := run(t, nil, ours, v[1], "--help"); a.code != 0 {
			t.Errorf("%s --help: %v", v[1], a)
		}
		for _, f := range flag.FindAllStringSubmatch(run(t, nil, "runc", v[1], "--help").out, -1) {
			for _, name := range []string{"--" + f[1], "-" + f[2]} {
				if name == "-" || f[1] == "help" {
					continue
				}
				if a := run(t, nil, ours, v[1], name, "--help"); unknown(a) {
					t.Errorf("%s %s: %v", v[1], name, a)
				}
			}
		}
	}
}

// What runc's callers do with a container that is not there, and with wrong usage.
func TestFailsAsRunc(t *testing.T) {
	need(t, "runc")
	for _, k := range []struct{ args, says string }{
		{"state none", "does not exist"}, // the words that containerd looks for
		{"kill none KILL", "does not exist"},
		{"delete none", "does not exist"},
		{"delete --force none", ""},
		{"start none", "does not exist"},
		{"pause none", "does not exist"},
		{"exec none true", "does not exist"},
		{"update --memory 1 none", "does not exist"},
		{"state", ""},
		{"kill a b c", ""},
		{"create --nosuch x", "not defined"},
		{"--log-format x list", ""},
		{"list", ""},
		{"features", ""},
	} {
		args := append([]string{"--root", t.TempDir()}, strings.Fields(k.args)...)
		theirs := run(t, nil, "runc", args...)
		got := run(t, nil, bin(t, "shoal-runtime"), args...)
		if got.code != theirs.code || !strings.Contains(got.err, k.says) {
			t.Errorf("%s: %v; runc: %v; want its exit code and %q", k.args, got, theirs, k.says)
		}
	}
}

// features has the shape of the specification's, and whatever runc recognizes.
func TestFeatures(t *testing.T) {
	need(t, "runc")
	var ours, theirs features.Features
	in := json.NewDecoder(strings.NewReader(run(t, nil, bin(t, "shoal-runtime"), "features").out))
	in.DisallowUnknownFields()
	if err := in.Decode(&ours); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(run(t, nil, "runc", "features").out), &theirs); err != nil {
		t.Fatal(err)
	}
	if ours.OCIVersionMin != "1.0.0" || ours.OCIVersionMax < theirs.OCIVersionMax {
		t.Errorf("versions %s to %s", ours.OCIVersionMin, ours.OCIVersionMax)
	}
	for what, lists := range map[string][2][]string{
		"hooks":         {ours.Hooks, theirs.Hooks},
		"mount options": {ours.MountOptions, theirs.MountOptions},
		"namespaces":    {ours.Linux.Namespaces, theirs.Linux.Namespaces},
		"capabilities":  {ours.Linux.Capabilities, theirs.Linux.Capabilities},
		"actions":       {ours.Linux.Seccomp.Actions, theirs.Linux.Seccomp.Actions},
		"operators":     {ours.Linux.Seccomp.Operators, theirs.Linux.Seccomp.Operators},
		"architectures": {ours.Linux.Seccomp.Archs, theirs.Linux.Seccomp.Archs},
	} {
		for _, name := range lists[1] {
			if !slices.Contains(lists[0], name) {
				t.Errorf("%s: runc knows %s", what, name)
			}
		}
	}
}
