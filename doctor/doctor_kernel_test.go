//go:build kernel

package doctor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestKernelCollect(t *testing.T) {
	root := t.TempDir()
	start := time.Now()
	f := Collect(context.Background(), Options{DataRoot: filepath.Join(root, "not", "there")})
	t.Logf("collected in %v", time.Since(start))
	if !f.Storage.Overlay.OK || !f.Network.NFTables.OK || !f.Network.Links["bridge"].OK || !f.Network.Links["veth"].OK || !f.Security.Seccomp.OK ||
		!f.Namespaces["user"].OK || !f.Cgroups.Writable.OK {
		t.Errorf("%+v", f)
	}
	for _, g := range Evaluate(f) {
		t.Logf("%s %s: %s", g.Severity, g.Code, g.Cause)
		if g.Severity == Error {
			t.Error(g)
		}
	}
	after, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(after), ".shoal-doctor-") {
		t.Errorf("a mount is left:\n%s", after)
	}
	if left, _ := os.ReadDir(root); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
