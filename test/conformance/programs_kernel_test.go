//go:build kernel

package conformance

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// bin gives a built program of this project.
func bin(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("SHOAL_BIN")
	if dir == "" {
		dir = "../../bin"
	}
	p, err := filepath.Abs(filepath.Join(dir, name))
	if err == nil {
		_, err = os.Stat(p)
	}
	if err != nil {
		t.Fatalf("%v: build first (make build)", err)
	}
	return p
}

func TestValidationPrograms(t *testing.T) {
	expected, err := ReadExpected("expected.txt")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o711); err != nil { // bundles with user namespaces are entered by other users
		t.Fatal(err)
	}
	p, err := Build(t.Context(), "oci", dir)
	if err != nil {
		t.Skipf("cannot build the validation programs (a network is needed the first time): %v", err)
	}
	names := p.Select(os.Getenv("CONFORMANCE_PROGRAM"))
	results, err := Runtime{Name: "shoal-runtime", Path: bin(t, "shoal-runtime")}.Run(t.Context(), p, names, dir)
	if err != nil {
		t.Fatal(err)
	}
	passed := 0
	for _, r := range results {
		if wrong := expected[r.Program].Against(r); wrong != "" {
			t.Error(wrong)
		}
		if r.Verdict == Pass {
			passed++
		}
	}
	t.Logf("%d of %d programs pass", passed, len(results))
	for name := range expected {
		if !slices.Contains(p.Names, name) {
			t.Errorf("expected.txt names %s, which is no program", name)
		}
	}
}
