package store

import (
	"context"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"

	"github.com/shoalhq/shoal/lib/writeback"
)

// earlyContent is containerd's content store on files, whose large blobs are on their way to the disk while they arrive:
// its Commit waits for the whole blob otherwise.
type earlyContent struct {
	content.Store
	root  string
	clean *cleanliness
}

func (e earlyContent) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if err := e.clean.touch(); err != nil {
		return nil, err
	}
	w, err := e.Store.Writer(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return &earlyWriter{Writer: w, start: writeback.New(ingestDir(e.root, o.Ref))}, nil
}

// ingestDir is where containerd's store keeps what it has of a blob that arrives, in the file "data". If that should
// change, blobs are synced at the end only.
func ingestDir(root, ref string) string {
	return filepath.Join(root, "ingest", digest.FromString(ref).Encoded())
}

type earlyWriter struct {
	content.Writer
	start *writeback.Starter
	since int64
}

func (w *earlyWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if w.since += int64(n); w.since >= writeback.Step {
		w.since = 0
		w.start.File("data")
	}
	return n, err
}

func (w *earlyWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	w.start.Close()
	return w.Writer.Commit(ctx, size, expected, opts...)
}

func (w *earlyWriter) Close() error {
	w.start.Close()
	return w.Writer.Close()
}
