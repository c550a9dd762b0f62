package transfer

import (
	"context"
	"sync"

	"github.com/containerd/containerd/v2/core/content"

	"github.com/shoalhq/shoal/lib/ids"
)

// ingest gives the names under which blobs are being written ("tar-index.json") a prefix of their own. Without it, two
// archives that are loaded at once would wait for each other, and one that comes after another that was cut off would
// take the other's half-written file for the beginning of its own.
type ingest struct {
	content.Store
	prefix string

	mu   sync.Mutex
	refs []string
}

func newIngest(s content.Store) *ingest { return &ingest{Store: s, prefix: ids.New() + "-"} }

// Writer is the store's, under the prefixed name.
func (i *ingest) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, f := range opts {
		if err := f(&o); err != nil {
			return nil, err
		}
	}
	ref := i.prefix + o.Ref
	i.mu.Lock()
	i.refs = append(i.refs, ref)
	i.mu.Unlock()
	return i.Store.Writer(ctx, append(opts, content.WithRef(ref))...)
}

// abort drops what was not finished.
func (i *ingest) abort(ctx context.Context) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, ref := range i.refs {
		i.Abort(context.WithoutCancel(ctx), ref) // of the finished ones there is nothing to drop
	}
}
