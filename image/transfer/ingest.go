package transfer

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"

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
	w, err := i.Store.Writer(ctx, append(opts, content.WithRef(ref))...)
	if d := blobName(o.Ref); d != "" && err == nil {
		return named{w, d}, nil
	}
	return w, err
}

// named is the writer of a blob that must have the digest which the archive names it by.
type named struct {
	content.Writer
	digest digest.Digest
}

func (n named) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	return n.Writer.Commit(ctx, size, cmp.Or(expected, n.digest), opts...)
}

// blobName is the digest that a layout names a file by, when that is not of the usual algorithm: the archive's reader tells
// the store none, and so it would be kept by the usual one and not be found.
func blobName(ref string) digest.Digest {
	algorithm, hex, ok := strings.Cut(strings.TrimPrefix(ref, "tar-blobs/"), "/")
	d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
	if !ok || d.Algorithm() == digest.Canonical || d.Validate() != nil {
		return ""
	}
	return d
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
