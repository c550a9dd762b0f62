package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// lostContent hides blobs whose bytes were found damaged and thrown away. Their records stay, because they hold what the
// blobs refer to, so that a layer that a container uses is not collected with its manifest. A writer for a lost blob
// brings it back.
type lostContent struct {
	content.Store
	raw content.Store // beneath the records

	mu   sync.Mutex
	lost map[digest.Digest]bool
}

func (l *lostContent) lose(d digest.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost[d] = true
}

func (l *lostContent) found(d digest.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.lost, d)
}

func (l *lostContent) isLost(d digest.Digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost[d]
}

func (l *lostContent) all() []digest.Digest {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.lost))
}

// missed lists what is lost and has not been collected since.
func (l *lostContent) missed(ctx context.Context) []digest.Digest {
	return slices.DeleteFunc(l.all(), func(d digest.Digest) bool {
		_, err := l.Store.Info(ctx, d)
		if errdefs.IsNotFound(err) {
			l.found(d)
			return true
		}
		return false
	})
}

func (l *lostContent) gone(d digest.Digest) error {
	return fmt.Errorf("%s was damaged on disk and thrown away: %w", d, errdefs.ErrNotFound)
}

func (l *lostContent) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	if l.isLost(d) {
		return content.Info{}, l.gone(d)
	}
	return l.Store.Info(ctx, d)
}

func (l *lostContent) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	if l.isLost(desc.Digest) {
		return nil, l.gone(desc.Digest)
	}
	return l.Store.ReaderAt(ctx, desc)
}

func (l *lostContent) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	from := l.Store
	if l.isLost(o.Desc.Digest) {
		from = l.raw // those above would say that it exists
	}
	w, err := from.Writer(ctx, opts...)
	if err != nil || len(l.all()) == 0 {
		return w, err
	}
	return &findingWriter{w, l}, nil
}

// findingWriter notices when a lost blob comes back, also by a writer that did not say at first which one it writes.
type findingWriter struct {
	content.Writer
	l *lostContent
}

func (w *findingWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	d := w.Digest()
	if expected != "" {
		d = expected
	}
	err := w.Writer.Commit(ctx, size, expected, opts...)
	if (err == nil || errdefs.IsAlreadyExists(err)) && w.l.isLost(d) {
		if _, rerr := w.l.raw.Info(ctx, d); rerr == nil {
			w.l.found(d)
		}
	}
	return err
}
