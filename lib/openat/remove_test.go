package openat_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/shoalhq/shoal/lib/openat"
	"github.com/shoalhq/shoal/lib/openat/openattest"
)

// A tree that is deeper than the process may have files open is removed, with few of them.
func TestRemoveAllOfADeepTree(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	openattest.Deep(t, dir)
	if err := os.WriteFile(filepath.Join(dir, ".deep-1"), nil, 0o600); err != nil { // the name is taken
		t.Fatal(err)
	}
	if err := openat.RemoveAll(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Error("still there", err)
	}
}

func TestRemoveAll(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(dir, "kept")
	for _, p := range []string{"tree/a/b", "tree/c", "kept"} {
		if err := os.MkdirAll(filepath.Join(dir, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3000 {
		if err := os.WriteFile(filepath.Join(dir, "tree/c", strconv.Itoa(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(kept, filepath.Join(dir, "tree/a/out")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tree", "tree", "link", "file"} {
		path := filepath.Join(dir, name)
		switch name {
		case "link":
			os.Symlink(kept, path)
		case "file":
			os.WriteFile(path, nil, 0o600)
		}
		if err := openat.RemoveAll(path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error("a link was followed:", err)
	}
}
