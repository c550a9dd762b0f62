//go:build kernel

package conformance

import (
	"os"
	"slices"
	"testing"
)

func TestValidationPrograms(t *testing.T) {
	expected, err := ReadExpected("expected.txt")
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir, whose parent only root may enter: bundles with user namespaces are entered by other users.
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil {
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
