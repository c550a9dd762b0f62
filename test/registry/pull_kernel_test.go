//go:build kernel

package registry_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/image/registry"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

func TestPullFromDebiansRegistry(t *testing.T) {
	addr := debian(t, "")
	for _, format := range []string{"v2s2", "oci"} {
		t.Run(format, func(t *testing.T) {
			ref := addr + "/team/app:" + format
			put(t, imagetest.Docker(sample(t, "app:1", "amd64")), ref, "--format", format)
			s := freshStore(t)
			c := client(s, registry.Settings{})
			var l lines
			if err := c.Pull(t.Context(), ref, "", nil, l.tell); err != nil {
				t.Fatal(err)
			}
			t.Log(l.text())
			l.want(t, format+": Pulling from team/app", "Pulling fs layer", "Downloading", "Download complete", "Pull complete", "Digest: sha256:", "Status: Downloaded newer image for "+ref)
			img, err := s.Resolve(t.Context(), ref, "")
			if err != nil {
				t.Fatal(err)
			}
			if len(img.RepoTags) != 1 || len(img.RepoDigests) != 1 || img.Config.Labels["name"] != "app:1" {
				t.Fatalf("%+v", img)
			}
			dirs, err := s.Lowers(t.Context(), img.ID)
			if err != nil || len(dirs) != 3 {
				t.Fatal(dirs, err)
			}
			if st, err := os.Stat(filepath.Join(dirs[1], "run")); err != nil || st.Size() == 0 {
				t.Fatal(err)
			}
			if st, err := os.Stat(filepath.Join(dirs[0], "tmp")); err != nil || st.Mode().Perm() != 0o777 || st.Mode()&os.ModeSticky == 0 {
				t.Fatal("a directory that a layer only implies lost its mode:", st.Mode(), err)
			}
			var again lines
			if err := c.Pull(t.Context(), ref, "", nil, again.tell); err != nil {
				t.Fatal(err)
			}
			again.want(t, "Already exists", "Status: Image is up to date for")
			var digest lines
			if err := c.Pull(t.Context(), img.RepoDigests[0], "", nil, digest.tell); err != nil {
				t.Fatal(err)
			}
			digest.want(t, "Image is up to date")
			if err := c.Pull(t.Context(), addr+"/team/app:none", "", nil, nil); !errs.Is(err, errs.NotFound) {
				t.Fatal(err)
			} else {
				t.Log(err)
			}
			if _, err := s.Remove(t.Context(), ref, removeOptions); err != nil {
				t.Fatal(err)
			}
			if u, err := s.DiskUsage(t.Context()); err != nil || u.ContentSize != 0 || u.LayersSize != 0 || len(u.Images) != 0 {
				t.Fatalf("after removing the only tag: %+v %v", u, err)
			}
		})
	}
}

var removeOptions model.ImageRemoveOptions
