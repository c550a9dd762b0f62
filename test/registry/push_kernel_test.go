//go:build kernel

package registry_test

import (
	"encoding/json"
	"testing"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/image/registry"
	"github.com/shoalhq/shoal/model"
)

func TestPushToDebiansRegistry(t *testing.T) { pushTo(t, debian(t, "")) }

// pushTo sends an image, sees that nothing is sent twice, mounts it into another repository, and lets skopeo judge.
func pushTo(t *testing.T, addr string) {
	s := freshStore(t)
	ref := addr + "/team/app:1"
	load(t, s, imagetest.Docker(sample(t, ref, "amd64")))
	c := client(s, registry.Settings{})
	var first, second, third lines
	if err := c.Push(t.Context(), ref, "", nil, first.tell); err != nil {
		t.Fatal(err, first.text())
	}
	first.want(t, "The push refers to repository ["+addr+"/team/app]", "Preparing", "Pushing", "Pushed", "1: digest: sha256:")
	if err := c.Push(t.Context(), ref, "", nil, second.tell); err != nil {
		t.Fatal(err)
	}
	second.want(t, "Layer already exists", "1: digest: sha256:")
	other := addr + "/other/copy:2"
	if err := s.Tag(t.Context(), ref, other); err != nil {
		t.Fatal(err)
	}
	if err := c.Push(t.Context(), addr+"/other/copy", "", nil, third.tell); err != nil {
		t.Fatal(err)
	}
	third.want(t, "Mounted from team/app", "2: digest: sha256:")
	img, err := s.Resolve(t.Context(), ref, "")
	if err != nil || len(img.RepoDigests) != 2 {
		t.Fatal(img.RepoDigests, err)
	}
	var seen struct {
		Name   string
		Digest string
		Labels map[string]string
		Layers []string
	}
	for _, r := range []string{ref, other} {
		out := skopeo(t, "inspect", "--tls-verify=false", "docker://"+r)
		if err := json.Unmarshal([]byte(out), &seen); err != nil || seen.Digest != img.Target.Digest || len(seen.Layers) != 3 || seen.Labels["name"] != ref {
			t.Fatalf("%v %+v", err, seen)
		}
	}
	dir := t.TempDir()
	skopeo(t, "copy", "--insecure-policy", "--src-tls-verify=false", "docker://"+ref, "dir:"+dir) // verifies every digest
	if _, err := s.Remove(t.Context(), img.ID, model.ImageRemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if err := c.Pull(t.Context(), ref, "", nil, nil); err != nil {
		t.Fatal(err)
	}
	if again, err := s.Resolve(t.Context(), ref, ""); err != nil || again.ID != img.ID {
		t.Fatal(again, err)
	}
}
