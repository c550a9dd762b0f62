package openat

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWalkStaysBelow: a directory that is exchanged for a link while it is visited leads nowhere.
func TestWalkStaysBelow(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	for _, err := range []error{os.MkdirAll(dir+"/a/b", 0o755), os.MkdirAll(dir+"/swapped/c", 0o755), os.WriteFile(outside+"/secret", nil, 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	err := Walk(dir, func(name string, _ int, _ string, _ *unix.Stat_t) error {
		names = append(names, name)
		if name == "swapped" {
			if err := os.RemoveAll(dir + "/swapped"); err != nil {
				return err
			}
			return os.Symlink(outside, dir+"/swapped")
		}
		return nil
	})
	slices.Sort(names)
	if err != nil || !slices.Equal(names, []string{"a", "a/b", "swapped"}) {
		t.Errorf("%q %v", names, err)
	}
}
