//go:build kernel

package e2e

import (
	"io/fs"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// TestUsageAddsUp: what the lines of `system df` add up to is what the disk says, with images, a build cache, containers and
// volumes, and after their removal; but for the databases and a block or two for each file and directory.
func TestUsageAddsUp(t *testing.T) {
	w := world.New(t)
	file := `FROM toolbox AS base
RUN --mount=type=cache,target=/c head -c 5000000 /dev/urandom > /c/f
RUN head -c 3000000 /dev/urandom > /a
FROM base AS unused
RUN head -c 4000000 /dev/urandom > /b
FROM base
COPY --from=unused /b /copied
`
	w.Must(w.Shoal("build", "-q", "-t", "built", write(t, t.TempDir(), map[string]string{"Dockerfile": file})))
	w.Must(w.Shoal("run", "--name", "writer", "-v", "kept:/v", "built", "sh", "-c", "head -c 6000000 /dev/urandom > /w; head -c 7000000 /dev/urandom > /v/f"))
	addsUp(t, w, "with everything", 30<<20)
	w.Must(w.Shoal("rm", "writer"))
	w.Must(w.Shoal("builder", "prune", "-af"))
	w.Must(w.Shoal("volume", "rm", "kept"))
	addsUp(t, w, "with the image alone", 10<<20)
	w.Must(w.Shoal("image", "prune", "-af"))
	w.Must(w.Shoal("builder", "prune", "-af"))
	addsUp(t, w, "with nothing", 0)
}

// addsUp compares; least is what there must be at least.
func addsUp(t *testing.T, w *world.World, when string, least int64) {
	t.Helper()
	var df struct {
		LayersSize int64
		Containers []struct{ SizeRw int64 }
		Volumes    []struct{ UsageData struct{ Size int64 } }
		BuildCache []struct {
			Size   int64
			Shared bool
		}
	}
	if err := w.API("GET", "/v1.47/system/df", nil).Into(&df); err != nil {
		t.Fatal(err)
	}
	said := df.LayersSize
	for _, c := range df.Containers {
		said += c.SizeRw
	}
	for _, v := range df.Volumes {
		said += v.UsageData.Size
	}
	for _, c := range df.BuildCache {
		if !c.Shared {
			said += c.Size
		}
	}
	var disk, files int64
	filepath.WalkDir(w.Dir+"/data", func(path string, e fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) == ".db" || filepath.Base(path) == "reserve" {
			return nil
		}
		if info, err := e.Info(); err == nil {
			disk += info.Sys().(*syscall.Stat_t).Blocks * 512
			files++
		}
		return nil
	})
	if off := max(said-disk, disk-said); off > files*8192 || said < least {
		t.Errorf("%s: df says %d bytes, the disk %d in %d files: %+v", when, said, disk, files, df)
	}
}
