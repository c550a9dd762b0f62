package store

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
)

// What arrives is where earlyContent thinks that it is.
func TestIngestDir(t *testing.T) {
	root := t.TempDir()
	base, err := local.NewStore(root)
	if err != nil {
		t.Fatal(err)
	}
	w, err := earlyContent{base, root, newCleanliness(t.TempDir())}.Writer(context.Background(), content.WithRef("some/ref"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := os.Stat(filepath.Join(ingestDir(root, "some/ref"), "data")); err != nil {
		t.Fatal(err)
	}
}
