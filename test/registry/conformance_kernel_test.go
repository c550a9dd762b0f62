//go:build kernel

package registry_test

import (
	"os"
	"os/exec"
	"testing"
)

// TestOfficialConformance runs the distribution specification's own suite, built with `go test -c` from its conformance
// directory, against our registry. SHOAL_OCI_CONFORMANCE is the path of that program.
func TestOfficialConformance(t *testing.T) {
	suite := os.Getenv("SHOAL_OCI_CONFORMANCE")
	if suite == "" {
		t.Skip("SHOAL_OCI_CONFORMANCE does not name the suite's program; image/server/spec_test.go goes the same way")
	}
	cmd := exec.Command(suite)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "OCI_ROOT_URL=http://"+ours(t, nil), "OCI_NAMESPACE=conformance/one", "OCI_CROSSMOUNT_NAMESPACE=conformance/two",
		"OCI_TEST_PULL=1", "OCI_TEST_PUSH=1", "OCI_TEST_CONTENT_DISCOVERY=1", "OCI_TEST_CONTENT_MANAGEMENT=1",
		"OCI_HIDE_SKIPPED_WORKFLOWS=0", "OCI_REPORT_DIR="+cmd.Dir)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
