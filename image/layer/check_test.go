package layer_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/image/layer"
	"github.com/shoalhq/shoal/lib/openat/openattest"
)

// What Apply made of an archive, Check finds sound, whatever the archive does with its names: else a verification would
// unpack again and again what nobody damaged. What is then damaged it finds, and Apply of these entries mends.
func TestCheckAgreesWithApply(t *testing.T) {
	openattest.Need(t)
	names := []string{"a", "b", "a/b", "a/c", "a/b/c", "d/e", "./a", "/b", "../a", "l", "l/x"}
	for seed := range uint64(250) {
		r := rand.New(rand.NewPCG(seed, 7))
		var files []imagetest.File
		for i := range 2 + r.IntN(9) {
			f := imagetest.File{Name: names[r.IntN(len(names))]}
			switch r.IntN(6) {
			case 0:
				f.Name += "/"
			case 1:
				f.Kind, f.Link = tar.TypeSymlink, names[r.IntN(len(names))]
			case 2:
				f.Kind, f.Link = tar.TypeLink, names[r.IntN(len(names))]
			default:
				f.Data = fmt.Sprint("content ", seed, " ", i)
			}
			files = append(files, f)
		}
		archive, dir := imagetest.Layer(t, files...), t.TempDir()
		if layer.Apply(t.Context(), dir, bytes.NewReader(archive), layer.Options{}) != nil {
			continue // refused
		}
		bad, err := layer.Check(t.Context(), dir, bytes.NewReader(archive))
		if err != nil || len(bad) > 0 {
			t.Fatalf("seed %d: %v %v\n%+v", seed, bad, err, files)
		}
		harmed := ""
		filepath.WalkDir(dir, func(path string, d os.DirEntry, _ error) error {
			if info, err := d.Info(); harmed == "" && err == nil && info.Mode().IsRegular() && info.Size() > 0 {
				harmed = path
			}
			return nil
		})
		if harmed == "" || slices.ContainsFunc(files, func(f imagetest.File) bool { return f.Kind == tar.TypeLink }) {
			continue // a hard link may be all that is left of a file that was replaced: nothing says what it held
		}
		want, err := os.ReadFile(harmed)
		if err == nil {
			err = os.WriteFile(harmed, make([]byte, len(want)), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		bad, err = layer.Check(t.Context(), dir, bytes.NewReader(archive))
		if bad == nil && err == nil {
			continue // it writes through its own links
		}
		if err != nil || len(bad) == 0 {
			t.Fatalf("seed %d: damage of %s was not found: %v\n%+v", seed, harmed, err, files)
		}
		only := map[string]bool{}
		for name := range bad {
			only[name] = true
		}
		if err := layer.Apply(t.Context(), dir, bytes.NewReader(archive), layer.Options{Only: only}); err != nil {
			t.Fatalf("seed %d: mend %v: %v\n%+v", seed, bad, err, files)
		}
		if got, err := os.ReadFile(harmed); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("seed %d: %s was not mended: %q %v\n%+v", seed, harmed, got, err, files)
		}
	}
}
