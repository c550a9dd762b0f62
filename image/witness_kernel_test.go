//go:build kernel

package image

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/image/builtin"
)

// What save writes must be read by another program, in both of its formats, and what that program writes by load.
func TestSkopeoAgrees(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil || len(builtin.Names()) == 0 {
		t.Skip("needs skopeo and the built-in images")
	}
	dir := t.TempDir()
	i := Open(Config{Root: filepath.Join(dir, "images")})
	defer i.Close()
	img, err := i.Resolve(t.Context(), "whoami", "")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := i.Save(t.Context(), []string{"whoami"}, nil, &b); err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(dir, "saved.tar")
	if err := os.WriteFile(saved, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(skopeo, append([]string{"--insecure-policy", "--tmpdir", dir}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("skopeo %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	for _, format := range []string{"oci-archive:", "docker-archive:"} {
		if out := run("inspect", "--config", format+saved); !strings.Contains(out, `"/whoami"`) {
			t.Error(format, out)
		}
		for _, to := range []string{"oci-archive:", "docker-archive:"} {
			made := filepath.Join(dir, "made.tar")
			os.Remove(made)
			run("copy", format+saved, to+made+":again:1")
			f, err := os.Open(made)
			if err != nil {
				t.Fatal(err)
			}
			fresh := Open(Config{Root: filepath.Join(t.TempDir(), "images")})
			err = fresh.Load(t.Context(), f, nil, nil)
			f.Close()
			if err != nil {
				t.Fatal(format, to, err)
			}
			got, err := fresh.Inspect(t.Context(), "again:1", "")
			if err != nil || len(got.DiffIDs) != 1 || got.DiffIDs[0] != img.DiffIDs[0] || got.Config.Healthcheck == nil && to == "docker-archive:" {
				t.Errorf("%s to %s: %+v %v", format, to, got, err)
			}
			if _, err := fresh.Lowers(t.Context(), got.ID); err != nil {
				t.Error(err)
			}
			fresh.Close()
		}
	}
}
