package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/shoalhq/shoal/lib/errs"
)

// maxWindow bounds the memory that a zstd stream may ask for.
const maxWindow = 256 << 20

// readAhead is how much is decompressed before it is asked for.
const readAhead = 1 << 18

// Decompress finds out how r is compressed (gzip, zstd, bzip2, not at all) and gives what is inside. The decompression
// runs ahead in its own goroutine until Close. Other programs are never started for it.
func Decompress(r *bufio.Reader) (io.ReadCloser, error) {
	magic, err := r.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	var inner io.Reader
	var stop func()
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, errs.New(errs.Invalid, "bad gzip stream: %w", err)
		}
		inner = z
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(magic) > 3 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:4], []byte{0x2a, 0x4d, 0x18}):
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, errs.New(errs.Invalid, "bad zstd stream: %w", err)
		}
		inner, stop = z, z.Close
	case bytes.HasPrefix(magic, []byte("BZh")):
		inner = bzip2.NewReader(r)
	case bytes.HasPrefix(magic, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return nil, errs.New(errs.Unsupported, "xz compression is not supported; recompress the archive with gzip or zstd (xz -dc FILE | zstd)")
	default:
		return io.NopCloser(r), nil
	}
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		out := bufio.NewWriterSize(pw, readAhead)
		_, err := io.Copy(out, inner)
		if err == nil {
			err = out.Flush()
		}
		pw.CloseWithError(err)
		if stop != nil {
			stop()
		}
	}()
	return &ahead{pr, done}, nil
}

// ahead is the reading end. Close waits until nothing reads from the source any more.
type ahead struct {
	*io.PipeReader
	done chan struct{}
}

func (a *ahead) Close() error {
	err := a.PipeReader.Close()
	<-a.done
	return err
}

// Compress gives a writer that packs with gzip at its fastest, which every engine reads. Close ends the stream, not w.
func Compress(w io.Writer) io.WriteCloser {
	z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // the level is legal
	return z
}
