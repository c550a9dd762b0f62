//go:build kernel

package registry_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/test/world"
)

// An index of two platforms is made of images in other repositories, annotated, pushed and pulled; docker's command line
// and skopeo read it back from the registry.
func TestManifestVerbs(t *testing.T) {
	w := world.New(t, "--registry-listen", "127.0.0.1:5000")
	const reg = "127.0.0.1:5000"
	archive := filepath.Join(t.TempDir(), "root.tar")
	if err := os.WriteFile(archive, imagetest.Layer(t, imagetest.File{Name: "hello", Data: "x"}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		w.Must(w.Shoal("import", "--platform", "linux/"+arch, "-c", "CMD "+arch, archive, reg+"/one/"+arch+":1"))
		w.Must(w.Shoal("push", reg+"/one/"+arch+":1"))
	}
	list := reg + "/all/app:1"
	raw := w.Must(w.Shoal("manifest", "inspect", reg+"/one/arm64:1"))
	if !strings.Contains(raw, `"layers"`) {
		t.Fatal(raw)
	}
	for args, want := range map[string]string{
		"manifest inspect " + reg + "/none:1":                               "not found",
		"manifest inspect UPPER":                                            "not an image name",
		"manifest push " + list:                                             "No such manifest",
		"manifest rm " + list:                                               "No such manifest",
		"manifest create " + list + " elsewhere.example/x:1":                "different registry",
		"manifest create " + list + " " + reg + "/none:1":                   "not found",
		"manifest annotate " + list + " " + reg + "/one/arm64:1 --arch arm": "No such manifest",
		"manifest create " + list:                                           "2",
	} {
		r := w.Shoal(strings.Fields(args)...)
		if r.Code == 0 || !strings.Contains(r.Err, want) {
			t.Errorf("%s: %d %s", args, r.Code, r.Err)
		}
	}
	w.Must(w.Shoal("manifest", "create", list, reg+"/one/amd64:1"))
	if r := w.Shoal("manifest", "create", list, reg+"/one/arm64:1"); r.Code == 0 || !strings.Contains(r.Err, "--amend") {
		t.Error(r)
	}
	w.Must(w.Shoal("manifest", "create", "--amend", list, reg+"/one/arm64:1"))
	w.Must(w.Shoal("manifest", "annotate", list, reg+"/one/arm64:1", "--variant", "v8", "--os-version", "9"))
	digest := w.Must(w.Shoal("manifest", "push", "--purge", list))
	if !strings.HasPrefix(digest, "sha256:") {
		t.Fatal(digest)
	}
	if r := w.Shoal("manifest", "rm", list); r.Code == 0 {
		t.Error("--purge left the draft")
	}
	check := func(who, text string) {
		var index ocispec.Index
		if err := json.Unmarshal([]byte(text), &index); err != nil || len(index.Manifests) != 2 || index.Manifests[1].Platform.Architecture != "arm64" ||
			index.Manifests[1].Platform.Variant != "v8" || index.Manifests[1].Platform.OSVersion != "9" {
			t.Errorf("%s: %v\n%s", who, err, text)
		}
	}
	check("shoal", w.Must(w.Shoal("manifest", "inspect", list)))
	var docker world.Result
	w.InNet(func() { docker = w.Docker("manifest", "inspect", "--insecure", list) })
	check("docker", w.Must(docker))
	if _, err := exec.LookPath("skopeo"); err == nil {
		w.InNet(func() {
			out, err := exec.Command("skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+list).Output()
			if err != nil {
				t.Error(err)
			}
			check("skopeo", string(out))
		})
	}
	var verbose []struct {
		Ref        string
		Descriptor ocispec.Descriptor
	}
	if err := json.Unmarshal([]byte(w.Must(w.Shoal("manifest", "inspect", "-v", list))), &verbose); err != nil || len(verbose) != 2 || !strings.HasPrefix(verbose[0].Ref, reg+"/all/app@sha256:") {
		t.Error(verbose, err)
	}
	w.Must(w.Shoal("pull", "--platform", "linux/arm64", list))
	if out := w.Must(w.Shoal("image", "inspect", "--platform", "linux/arm64", "--format", "{{.Architecture}} {{.Config.Cmd}}", list)); !strings.Contains(out, "arm64") {
		t.Error(out)
	}
	for who, out := range map[string]string{"shoal": w.Must(w.Shoal("images", "--tree")), "docker": w.Must(w.Docker("images", "--tree"))} {
		if !strings.Contains(out, "linux/arm64") {
			t.Error(who, out)
		}
	}
	if out := w.Must(w.Shoal("image", "inspect", list)); strings.Contains(out, "Manifests") {
		t.Error(out)
	}
}
