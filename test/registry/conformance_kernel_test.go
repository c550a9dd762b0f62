//go:build kernel

package registry_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/gomod"
)

// The distribution specification's own conformance suite, the newest that the Go module proxy gives (of specification 1.1, November 2023).
// The checksum database does not know it everywhere, so its sum stands here.
const (
	suiteModule  = "github.com/opencontainers/distribution-spec/conformance"
	suiteVersion = "v0.0.0-20231101194043-f2182352d4cc"
	suiteSum     = "h1:jL+CgYEEZluGb08ZcLpEyhn389kNMlwrWOHaIqXazq0="
)

// conformanceSuite gives the suite's program, built once.
func conformanceSuite() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	program := filepath.Join(cache, "shoal-test", "oci-distribution-"+suiteVersion)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	dir, err := os.MkdirTemp("", "shoal-suite-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	env := []string{"GOFLAGS=-mod=mod", "GOWORK=off", "CGO_ENABLED=0", "GONOSUMDB=" + suiteModule}
	module, err := gomod.Download(ctx, "/", suiteModule+"@"+suiteVersion, env...)
	if err != nil {
		return "", err
	}
	if module.Sum != suiteSum {
		return "", fmt.Errorf("%s@%s has the checksum %s instead of %s", suiteModule, suiteVersion, module.Sum, suiteSum)
	}
	if err := os.CopyFS(dir, os.DirFS(module.Dir)); err != nil {
		return "", err
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o600); err != nil {
			return "", err
		}
	}
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", program+".new", ".")
	build.Dir, build.Env = dir, append(os.Environ(), env...)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the suite: %w: %s", err, out)
	}
	return program, os.Rename(program+".new", program)
}

// TestOfficialConformance runs all workflows of the specification's own suite against our registry.
func TestOfficialConformance(t *testing.T) {
	suite, err := conformanceSuite()
	if err != nil {
		t.Skipf("the suite cannot be had here; image/server/spec_test.go goes the same way: %.1000v", err)
	}
	cmd := exec.Command(suite, "-ginkgo.no-color")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "OCI_ROOT_URL=http://"+ours(t, nil), "OCI_NAMESPACE=conformance/one", "OCI_CROSSMOUNT_NAMESPACE=conformance/two",
		"OCI_TEST_PULL=1", "OCI_TEST_PUSH=1", "OCI_TEST_CONTENT_DISCOVERY=1", "OCI_TEST_CONTENT_MANAGEMENT=1", "OCI_AUTOMATIC_CROSSMOUNT=1",
		"OCI_HIDE_SKIPPED_WORKFLOWS=0", "OCI_REPORT_DIR="+cmd.Dir)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
