//go:build kernel

package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// Single platforms of an image are removed: the others stay, and the content goes.
func TestRemovePlatforms(t *testing.T) {
	other, w := world.New(t), world.New(t)
	dir := write(t, t.TempDir(), map[string]string{"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY f /$TARGETARCH\n", "f": "x"})
	// Built elsewhere, since the build cache has the same layers.
	other.Must(other.Shoal("build", "-q", "--platform", "linux/amd64,linux/arm64,linux/riscv64", "--provenance", "mode=min", "-t", "multi:1", dir))
	other.Must(other.Docker("save", "-o", dir+"/saved", "multi:1"))
	w.Must(w.Docker("load", "-i", dir+"/saved"))
	w.Must(w.Docker("tag", "multi:1", "multi:2"))
	blobs := func() int {
		list, _ := filepath.Glob(w.Dir + "/data/image/content/blobs/sha256/*")
		return len(list)
	}
	refused := func(says string, args ...string) {
		t.Helper()
		if r := w.Docker(args...); r.Code == 0 || !strings.Contains(r.Err, says) {
			t.Errorf("%s: want %q: %+v", args, says, r)
		}
	}
	arch := func(ref string) string { return w.Must(w.Docker("image", "inspect", "-f", "{{.Architecture}}", ref)) }
	all := blobs()
	refused("Use --force", "image", "rm", "--platform", "linux/arm64", "multi:1")
	a := w.API("DELETE", `/images/multi:1?force=1&platforms={"os":"linux","architecture":"s390x"}`, nil)
	if a.Code != 404 || !strings.Contains(a.Message(), "it is here for linux/amd64, linux/arm64, linux/riscv64") {
		t.Errorf("a platform that is not here: %d %s", a.Code, a.Body)
	}
	out := w.Must(w.Docker("image", "rm", "-f", "--platform", "linux/arm64", "multi:1"))
	if strings.Count(out, "Deleted: sha256:") != 2 || strings.Contains(out, "Untagged") { // with its attestation
		t.Error(out)
	}
	if n := blobs(); n != all-6 { // manifest, config and layer, of the platform and of its attestation
		t.Errorf("%d blobs are left of %d", n, all)
	}
	refused("linux/arm64", "image", "inspect", "--platform", "linux/arm64", "multi:2")
	want(t, "what the name means", arch("multi:2"), "amd64")
	w.Must(w.Docker("create", "--name", "user", "multi:1", "/x"))
	refused("is being used by container", "image", "rm", "-f", "--platform", "linux/amd64", "multi:1")
	w.Must(w.Docker("rm", "user"))
	w.Must(w.Shoal("image", "rm", "-f", "--platform", "linux/amd64", "multi:1"))
	want(t, "what the name means", arch("multi:1")+" "+arch("multi:2"), "riscv64 riscv64")
	refused("remove the image itself", "image", "rm", "-f", "--platform", "linux/riscv64", "multi:1")
	w.StopDaemon()
	w.StartDaemon()
	want(t, "what the name means after a restart", arch("multi:1"), "riscv64")
	w.Must(w.Docker("rmi", "multi:1", "multi:2"))
	want(t, "images", w.Must(w.Docker("images", "-aq")), "")
}
