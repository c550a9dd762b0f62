//go:build kernel

package registry_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// The whole way through the daemon, with both command lines: a registry inside the daemon takes an image and gives it back.
func TestThroughTheDaemon(t *testing.T) {
	w := world.New(t, "--registry-listen", "127.0.0.1:5000")
	for name, run := range map[string]func(...string) world.Result{"docker": w.Docker, "shoal": w.Shoal} {
		t.Run(name, func(t *testing.T) {
			ref := "127.0.0.1:5000/" + name + "/toolbox:1"
			w.Must(run("run", "--rm", "toolbox", "true")) // brings the built-in image in
			w.Must(run("tag", "toolbox", ref))
			if out := w.Must(run("push", ref)); !strings.Contains(out, "1: digest: sha256:") {
				t.Error(out)
			}
			w.Must(run("rmi", ref))
			out := w.Must(run("pull", ref))
			for _, part := range []string{"1: Pulling from " + name + "/toolbox", "Digest: sha256:", "Status: Downloaded newer image for " + ref} {
				if !strings.Contains(out, part) {
					t.Errorf("%q is not in\n%s", part, out)
				}
			}
			if out := w.Must(run("run", "--rm", "--pull", "always", ref, "echo", "hello")); !strings.HasSuffix(out, "hello") {
				t.Error(out)
			}
			w.Must(run("rmi", ref))
			if out := w.Must(run("run", "--rm", ref, "echo", "again")); !strings.HasSuffix(out, "again") { // pulls what is missing
				t.Error(out)
			}
			if r := run("pull", "127.0.0.1:5000/none:1"); r.Code == 0 || !strings.Contains(r.Err, "manifest unknown") {
				t.Errorf("%+v", r)
			}
			// No network leads to Docker Hub from here: what is built in still is.
			if out := w.Must(run("pull", "toolbox")); !strings.Contains(out, "is built in") {
				t.Error(out)
			}
			if r := run("pull", "no-such-image"); r.Code == 0 || !strings.Contains(r.Err, "cannot be reached") {
				t.Errorf("%+v", r)
			}
			if r := run("search", "127.0.0.1:5000/tool"); r.Code == 0 || !strings.Contains(r.Err, "offers no search") {
				t.Errorf("%+v", r)
			}
		})
	}
	res, err := w.Client().Get("http://shoal/v1.47/distribution/127.0.0.1:5000/shoal/toolbox:1/json")
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	res.Body.Close()
	t.Run("skopeo", func(t *testing.T) {
		if _, err := exec.LookPath("skopeo"); err != nil {
			t.Skip("skopeo is not installed")
		}
		var out []byte
		var err error
		dir := t.TempDir()
		w.InNet(func() {
			out, err = exec.Command("skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", "docker://127.0.0.1:5000/shoal/toolbox:1", "oci:"+filepath.Join(dir, "oci")).CombinedOutput()
		})
		if err != nil {
			t.Fatalf("%v %s", err, out)
		}
	})
}
