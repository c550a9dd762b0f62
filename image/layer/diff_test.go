package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
)

// TestDiffStaysInside: what a container exchanges for a link while it is committed does not lead to the host's files.
func TestDiffStaysInside(t *testing.T) {
	upper, host := t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.Mkdir(upper+"/d", 0o755), os.WriteFile(upper+"/d/secret", []byte("mine"), 0o600), os.WriteFile(upper+"/e", []byte("e"), 0o600),
		os.WriteFile(host+"/secret", []byte("the host's"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var archive bytes.Buffer
	swapped := false
	out := writerFunc(func(p []byte) (int, error) {
		if !swapped && bytes.HasPrefix(p, []byte("d/\x00")) { // its header is written, what is in it comes next
			swapped = true
			if err := errors.Join(os.Rename(upper+"/d", upper+"/f"), os.Symlink(host, upper+"/d")); err != nil {
				t.Error(err)
			}
		}
		return archive.Write(p)
	})
	if err := Diff(t.Context(), out, upper); err != nil || !swapped {
		t.Fatal(err, swapped)
	}
	var names []string
	for r := tar.NewReader(&archive); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if !slices.Equal(names, []string{"d/", "e"}) {
		t.Errorf("the archive has %q", names)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
