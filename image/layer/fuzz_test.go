package layer_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/image/layer"
)

// Whatever is in an archive, nothing beside the layer's directory is touched.
func FuzzApply(f *testing.F) {
	f.Add(imagetest.Layer(f, imagetest.File{Name: "d", Kind: tar.TypeSymlink, Link: "../out"}, imagetest.File{Name: "d/victim", Data: "x"}))
	f.Add(imagetest.Layer(f, imagetest.File{Name: "../../victim"}, imagetest.File{Name: "a/.wh.b"}, imagetest.File{Name: "a/.wh..wh..opq"}))
	f.Add(imagetest.Layer(f, imagetest.File{Name: "h", Kind: tar.TypeLink, Link: "../out/victim"}, imagetest.File{Name: "h", Data: "x"}))
	f.Add(imagetest.Layer(f, imagetest.File{Name: "a/"}, imagetest.File{Name: "a/f", Pax: map[string]string{"SCHILY.xattr.user.x": "y"}}))
	f.Fuzz(func(t *testing.T, archive []byte) {
		top := t.TempDir()
		dir, out := filepath.Join(top, "layer"), filepath.Join(top, "out")
		os.Mkdir(dir, 0o755)
		os.Mkdir(out, 0o700)
		if err := os.WriteFile(out+"/victim", []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if layer.Apply(t.Context(), dir, bytes.NewReader(archive), layer.Options{}) == nil {
			if _, err := layer.Check(t.Context(), dir, bytes.NewReader(archive)); err != nil {
				t.Fatal("unpacked, but cannot be read again:", err)
			}
		}
		data, err := os.ReadFile(out + "/victim")
		list, _ := os.ReadDir(out)
		beside, _ := os.ReadDir(top)
		st, serr := os.Stat(out + "/victim")
		if err != nil || serr != nil || string(data) != "precious" || st.Mode() != 0o600 || len(list) != 1 || len(beside) != 2 {
			t.Fatal("something outside was touched", err, list, beside)
		}
	})
}
