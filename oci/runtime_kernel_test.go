//go:build kernel

package oci

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Our runtime passes all of its checks, runc those of its age, and what is no runtime fails them.
func TestRuntimeValidate(t *testing.T) {
	bin := os.Getenv("SHOAL_BIN")
	if bin == "" {
		bin = "../bin"
	}
	ours := filepath.Join(bin, "shoal-runtime")
	if code, out := call(t, "runtime", "validate", ours); code != exitSound || strings.Contains(out, failed) {
		t.Errorf("%d\n%s", code, out)
	}
	if runc, err := exec.LookPath("runc"); err == nil {
		// It takes a configuration without ociVersion.
		if code, out := call(t, "runtime", "validate", runc); strings.Count(out, failed+" ") > 1 {
			t.Errorf("%d\n%s", code, out)
		}
	}
	if code, out := call(t, "runtime", "validate", "--only", "life", "--format", "json", "/bin/true"); code != exitUnsound || !strings.Contains(out, `"valid": false`) {
		t.Error(code, out)
	}
}
