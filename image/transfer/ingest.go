package transfer

import (
	"context"
	"slices"
	"strings"
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

	mu       sync.Mutex
	refs     []string
	unpacked map[string]content.Info // packed layers by what they hold; nil until asked for
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

// byUnpacked is how the archive's reader asks, for each image, whether the store has a layer packed.
const byUnpacked = `labels."containerd.io/uncompressed"==`

// Walk is the store's. What is asked for each image is answered from one walk: with many images here, looking at every
// blob for every image takes longer than all the rest.
func (i *ingest) Walk(ctx context.Context, fn content.WalkFunc, filters ...string) error {
	if slices.ContainsFunc(filters, func(f string) bool { return !strings.HasPrefix(f, byUnpacked) }) || len(filters) == 0 {
		return i.Store.Walk(ctx, fn, filters...)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.unpacked == nil {
		i.unpacked = map[string]content.Info{}
		err := i.Store.Walk(ctx, func(info content.Info) error {
			i.unpacked[info.Labels["containerd.io/uncompressed"]] = info
			return nil
		}, `labels."containerd.io/uncompressed"`)
		if err != nil {
			return err
		}
	}
	for _, f := range filters {
		if info, ok := i.unpacked[strings.TrimPrefix(f, byUnpacked)]; ok {
			if err := fn(info); err != nil {
				return err
			}
		}
	}
	return nil
}

// abort drops what was not finished.
func (i *ingest) abort(ctx context.Context) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, ref := range i.refs {
		i.Abort(context.WithoutCancel(ctx), ref) // of the finished ones there is nothing to drop
	}
}
