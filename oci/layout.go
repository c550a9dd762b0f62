package oci

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/image/layer"
	"github.com/shoalhq/shoal/lib/errs"
)

// maxDocument bounds manifests, indexes and configs.
const maxDocument = 8 << 20

// layout is an OCI image layout in a directory.
type layout struct {
	dir   string
	index ocispec.Index
	close func()
}

// openLayout opens a directory, or an archive of one, which is unpacked beside the system's temporary files.
func openLayout(ctx context.Context, path string) (*layout, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, errs.New(errs.NotFound, "%w; want a directory with oci-layout, or a tar archive of one", err)
	}
	l := &layout{dir: path, close: func() {}}
	if !st.IsDir() {
		if l.dir, err = os.MkdirTemp("", "shoal-oci-"); err != nil {
			return nil, err
		}
		l.close = func() { os.RemoveAll(l.dir) }
		if err := unarchive(ctx, path, l.dir); err != nil {
			l.close()
			return nil, errs.Wrap(err, "read the archive %s", path)
		}
	}
	if _, err := os.Lstat(filepath.Join(l.dir, ocispec.ImageLayoutFile)); err != nil {
		defer l.close()
		if _, merr := os.Lstat(filepath.Join(l.dir, "manifest.json")); merr == nil {
			return nil, errs.New(errs.Unsupported, "%s is an archive of Docker's old format (manifest.json); load it and save it with `shoal save`, which writes an OCI layout, too", path)
		}
		return nil, errs.New(errs.Invalid, "%s is no OCI image layout: it has no file %s", path, ocispec.ImageLayoutFile)
	}
	if err := l.read(ocispec.ImageIndexFile, &l.index); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func unarchive(ctx context.Context, path, dir string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := layer.Decompress(bufio.NewReaderSize(f, 1<<16))
	if err != nil {
		return err
	}
	defer r.Close()
	return layer.Apply(ctx, dir, r, layer.Options{})
}

// open opens a file of the layout, which may come from anywhere: no link leads out of it.
func (l *layout) open(name string) (*os.File, int64, error) {
	root, err := os.OpenRoot(l.dir)
	if err != nil {
		return nil, 0, err
	}
	defer root.Close()
	st, err := root.Stat(name)
	if err != nil {
		return nil, 0, err
	}
	if !st.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is no regular file", name)
	}
	f, err := root.Open(name)
	return f, st.Size(), err
}

func (l *layout) read(name string, into any) error {
	f, size, err := l.open(name)
	if err != nil {
		return errs.New(errs.Invalid, "%w", err)
	}
	defer f.Close()
	if size > maxDocument {
		return errs.New(errs.Invalid, "%s has %d bytes; at most %d make sense", name, size, maxDocument)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return errs.New(errs.Invalid, "%s is no JSON of its kind: %w", name, err)
	}
	return nil
}

func blobName(d digest.Digest) string {
	return filepath.Join("blobs", d.Algorithm().String(), d.Encoded())
}

// document reads a blob that is JSON, and verifies it.
func (l *layout) document(desc ocispec.Descriptor, into any) error {
	if err := l.verify(desc); err != nil {
		return err
	}
	return l.read(blobName(desc.Digest), into)
}

// verify compares a blob with its descriptor.
func (l *layout) verify(desc ocispec.Descriptor) error {
	if err := desc.Digest.Validate(); err != nil {
		return errs.New(errs.Invalid, "digest %q: %w", desc.Digest, err)
	}
	f, size, err := l.open(blobName(desc.Digest))
	if err != nil {
		return errs.New(errs.NotFound, "the blob is missing: %w", err)
	}
	defer f.Close()
	if size != desc.Size {
		return errs.New(errs.Invalid, "the blob has %d bytes, its descriptor says %d", size, desc.Size)
	}
	sum := desc.Digest.Algorithm().Hash()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if got := digest.NewDigest(desc.Digest.Algorithm(), sum); got != desc.Digest {
		return errs.New(errs.Invalid, "the blob's content has digest %s", got)
	}
	return nil
}

// layerOf opens a layer unpacked.
func (l *layout) layerOf(desc ocispec.Descriptor, use func(io.Reader) error) error {
	f, _, err := l.open(blobName(desc.Digest))
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := layer.Decompress(bufio.NewReaderSize(f, 1<<16))
	if err != nil {
		return err
	}
	defer r.Close()
	return use(r)
}
