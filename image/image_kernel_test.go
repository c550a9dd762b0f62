//go:build kernel

package image

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/image/builtin"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// The whole way of a built-in image: found by name, loaded, unpacked, saved, removed, loaded again.
func TestBuiltinImages(t *testing.T) {
	if len(builtin.Names()) == 0 {
		t.Skip("the archives of the built-in images were not made: go run ./cmd/build-images")
	}
	var events []string
	i := Open(Config{Root: filepath.Join(t.TempDir(), "images"), Events: func(e model.Event) { events = append(events, e.Action+" "+e.Attrs["name"]) }})
	defer i.Close()
	ctx := t.Context()
	start := time.Now()
	img, err := i.Resolve(ctx, "hello", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("first resolve, with load and unpack: %v", time.Since(start))
	if strings.Join(img.RepoTags, " ") != "hello:latest" || img.Config.Cmd[0] != "/hello" || img.Size < 1<<20 {
		t.Fatalf("%+v", img)
	}
	dirs, err := i.Lowers(ctx, img.ID)
	if err != nil || len(dirs) != 1 {
		t.Fatal(dirs, err)
	}
	if st, err := os.Stat(filepath.Join(dirs[0], "hello")); err != nil || st.Mode().Perm() != 0o755 {
		t.Fatal(st, err)
	}
	start = time.Now()
	for range 1000 {
		img, _ = i.Resolve(ctx, "hello", "")
		i.Lowers(ctx, img.ID)
	}
	t.Logf("resolve and lowers: %v", time.Since(start)/1000)
	if _, err := i.Resolve(ctx, "shoal/hello", ""); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := i.Save(ctx, []string{"hello"}, nil, &archive); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Remove(ctx, img.ID, model.ImageRemoveOptions{}); !errs.Is(err, errs.Conflict) {
		t.Fatal("removed though two repositories name it:", err)
	}
	gone, err := i.Remove(ctx, img.ID, model.ImageRemoveOptions{Force: true})
	if err != nil || len(gone) != 3 || gone[2].Deleted != img.ID {
		t.Fatal(gone, err)
	}
	if _, err := os.Stat(dirs[0]); !os.IsNotExist(err) {
		t.Fatal("layer is still there:", err)
	}
	if u, err := i.DiskUsage(ctx); err != nil || u.LayersSize != 0 || u.ContentSize != 0 {
		t.Fatalf("%+v %v", u, err)
	}
	if err := i.Tag(ctx, "whoami", "other:1"); err != nil {
		t.Fatal("a built-in image cannot be named before its first use:", err)
	}
	if err := i.Load(ctx, &archive, nil, nil); err != nil {
		t.Fatal(err)
	}
	if again, err := i.Inspect(ctx, "hello", ""); err != nil || again.ID != img.ID {
		t.Fatal(again, err)
	}
	t.Log(events)
}
