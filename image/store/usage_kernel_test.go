//go:build kernel

package store_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/content"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/model"
)

// du counts the blocks of everything below the directories, as the program does, and the files.
func du(t *testing.T, dirs ...string) (bytes int64, files []string) {
	t.Helper()
	seen := map[uint64]bool{}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err == nil {
				st := info.Sys().(*syscall.Stat_t)
				if !seen[st.Ino] { // hard links count once
					bytes += st.Blocks * 512
				}
				seen[st.Ino] = true
				if !d.IsDir() {
					files = append(files, path)
				}
			}
			return err
		})
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	return bytes, files
}

// What df says is what the disk says, to a block for each file and directory, and nothing is left when all is removed.
func TestUsageIsTrue(t *testing.T) {
	root := filepath.Join(t.TempDir(), "images")
	s := overlayStore(t, root)
	base := imagetest.Layer(t, imagetest.File{Name: "base", Data: strings.Repeat("b", 3<<20)}, imagetest.File{Name: "link", Kind: '1', Link: "base"})
	for _, name := range []string{"one", "two", "three"} {
		load(t, s, imagetest.Image{Tags: []string{name}, Pack: imagetest.Gzip, Layers: [][]byte{base, imagetest.Layer(t, imagetest.File{Name: name, Data: strings.Repeat(name, 1<<19)})}})
	}
	ctx, blobs, done, err := s.Content(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	w, err := content.OpenWriter(ctx, blobs, content.WithRef("broken off"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if driver, _ := s.Driver(ctx); driver != store.DriverOverlay {
		t.Skip("overlay does not work here")
	}
	layers, content := filepath.Join(root, "snapshots/overlay/snapshots"), filepath.Join(root, "content")
	u, err := s.DiskUsage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	disk, files := du(t, layers, content)
	said := u.LayersSize + u.ContentSize
	if off := max(disk-said, said-disk); off > int64(len(files)+60)*4096 {
		t.Errorf("df says %d bytes, the disk %d in %d files", said, disk, len(files))
	}
	done()
	if _, err := s.Prune(t.Context(), model.Filters{"dangling": {"false"}}); err != nil {
		t.Fatal(err)
	}
	s.Close() // ends the removal in the background
	if _, left := du(t, layers, content); len(left) > 0 {
		t.Error("left when all is removed:", left)
	}
	s = overlayStore(t, root)
	if u, err = s.DiskUsage(t.Context()); err != nil || u.LayersSize+u.ContentSize != 0 {
		t.Errorf("%+v %v", u, err)
	}
}
