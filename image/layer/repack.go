package layer

import (
	"archive/tar"
	"bufio"
	"context"
	"io"

	"github.com/shoalhq/shoal/lib/errs"
)

// Repack copies an archive, unpacked, to w. It makes sure that it is one, so that nothing else becomes a layer.
func Repack(ctx context.Context, w io.Writer, r io.Reader) error {
	plain, err := Decompress(bufio.NewReaderSize(r, 1<<16))
	if err != nil {
		return err
	}
	defer plain.Close()
	tee := io.TeeReader(plain, w)
	tr := tar.NewReader(tee)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return errs.New(errs.Invalid, "entry %d of the archive cannot be read: %w; it must be a tar archive of a root filesystem, as `shoal export` makes it", n+1, err)
		}
	}
	_, err = io.Copy(io.Discard, tee)
	return err
}
