package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	unpack "github.com/shoalhq/shoal/image/layer"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
)

// Bounds against registries that lie: a manifest is some kilobytes, and no manifest has more layers than overlay mounts.
const (
	maxManifest = 4 << 20
	maxLayers   = 500
	maxIndexed  = 5000
	maxDepth    = 4
)

// tellEvery is how often a download tells how far it is, in bytes.
const tellEvery = 256 << 10

// blobs fetches content into the store for one operation.
type blobs struct {
	*operation
	from remotes.Fetcher
	into content.Store
}

// watcher sees a blob's bytes as they arrive. Both may be nil.
type watcher struct {
	count func(done int64)         // how much has arrived, from earlier tries too
	retry func(d time.Duration)    // the try failed, the next one comes after d
	tee   func(at int64) io.Writer // asked when a try begins at the offset; nil: no
}

// ingestRef names an unfinished download. It is the same for every image that has the blob: two pulls share it, and one
// that was broken off is taken up where it ended.
func ingestRef(d digest.Digest) string { return "fetch-" + strings.ReplaceAll(d.String(), ":", "-") }

// have says whether the blob is in the store whole.
func (b *blobs) have(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	info, err := b.into.Info(ctx, desc.Digest)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err == nil && info.Size != desc.Size {
		return false, errs.New(errs.Invalid, "the manifest says that %s has %d bytes, but content of this digest has %d: the manifest is wrong", desc.Digest, desc.Size, info.Size)
	}
	return err == nil, err
}

// fetch brings a blob into the store, unless it is there, in as many tries as it takes and may take.
func (b *blobs) fetch(ctx context.Context, desc ocispec.Descriptor, w watcher) error {
	if err := desc.Digest.Validate(); err != nil {
		return errs.New(errs.Invalid, "the manifest names %q, which is no digest: %w", desc.Digest, err)
	}
	if desc.Size < 0 {
		return errs.New(errs.Invalid, "the manifest says that %s has %d bytes", desc.Digest, desc.Size)
	}
	fresh := false // started anew because what an earlier pull left was wrong
	return b.again(ctx, func(d time.Duration, _ error) {
		if w.retry != nil {
			w.retry(d)
		}
	}, func() error {
		started, err := b.try(ctx, desc, w)
		if errs.Is(err, errs.Damaged) && started > 0 && !fresh {
			fresh = true
			_, err = b.try(ctx, desc, w)
		}
		return err
	})
}

// try makes one attempt, from where the last one ended; it returns the offset at which it began.
func (b *blobs) try(ctx context.Context, desc ocispec.Descriptor, w watcher) (started int64, err error) {
	to, err := content.OpenWriter(ctx, b.into, content.WithRef(ingestRef(desc.Digest)), content.WithDescriptor(desc))
	if errdefs.IsAlreadyExists(err) {
		_, err := b.have(ctx, desc)
		return 0, err
	}
	if err != nil {
		return 0, err
	}
	defer to.Close()
	st, err := to.Status()
	if err != nil {
		return 0, err
	}
	started = st.Offset
	if started > desc.Size {
		if err := to.Truncate(0); err != nil {
			return started, err
		}
		started = 0
	}
	if err := b.copy(ctx, desc, to, started, w); err != nil {
		return started, err
	}
	if err := failpoint.Hit("image/pull/commit"); err != nil {
		return started, err
	}
	err = to.Commit(ctx, desc.Size, desc.Digest, content.WithLabels(b.source()))
	if err == nil || errdefs.IsAlreadyExists(err) {
		return started, nil
	}
	if errdefs.IsFailedPrecondition(err) {
		to.Close()
		b.into.Abort(context.WithoutCancel(ctx), ingestRef(desc.Digest))
		return started, errs.New(errs.Damaged, "filesystem layer verification failed for digest %s: the registry %s sent something else (%w); nothing of it was kept", desc.Digest, b.ref.Domain, err)
	}
	return started, err
}

// source is the label that tells from which repository a blob came, for mounts at a later push. It is containerd's own,
// which leaves the port out: a wrong guess costs one request.
func (o *operation) source() map[string]string { return map[string]string{o.sourceKey(): o.ref.Path} }

func (o *operation) sourceKey() string {
	host := o.ref.Domain
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return labels.LabelDistributionSource + "." + strings.Trim(host, "[]")
}

func (b *blobs) copy(ctx context.Context, desc ocispec.Descriptor, to io.Writer, at int64, w watcher) error {
	if at == desc.Size {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	from, err := b.open(ctx, desc)
	if err != nil {
		return err
	}
	defer from.Close()
	if s, ok := from.(io.Seeker); ok && at > 0 {
		if _, err := s.Seek(at, io.SeekStart); err != nil {
			return err
		}
	}
	if w.tee != nil {
		if tee := w.tee(at); tee != nil {
			to = io.MultiWriter(to, tee)
		}
	}
	watched := b.watch(unpack.Guard(from, b.cfg.Store.Root()), func() { cancel(errStalled) })
	defer watched.stop()
	n, err := copyCounting(to, watched, desc.Size-at, func(n int64) {
		if w.count != nil {
			w.count(at + n)
		}
	})
	if errors.Is(context.Cause(ctx), errStalled) {
		return fmt.Errorf("%w: nothing came for %v, after %d of %d bytes of %s", errStalled, b.settings.Stall, at+n, desc.Size, desc.Digest)
	}
	if errdefs.IsFailedPrecondition(err) { // the reader's own guard was faster than ours
		return errs.New(errs.Damaged, "the registry sends more than the %d bytes that the manifest names for %s", desc.Size, desc.Digest)
	}
	if err == nil && at+n < desc.Size {
		err = fmt.Errorf("%s ended after %d of %d bytes: %w", desc.Digest, at+n, desc.Size, io.ErrUnexpectedEOF)
	}
	return err
}

// open asks for the blob. Addresses that a manifest brings along are followed for foreign layers only, and only when the
// registry itself has no such blob: else a manifest could send the daemon anywhere.
func (b *blobs) open(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	ctx = context.WithValue(ctx, expect{}, expectBlob)
	urls := desc.URLs
	desc.URLs = nil
	rc, err := b.from.Fetch(ctx, desc)
	if err != nil || len(urls) == 0 || !images.IsNonDistributable(desc.MediaType) {
		return rc, err
	}
	return &foreign{ReadCloser: rc, next: func() (io.ReadCloser, error) {
		desc.URLs = urls
		return b.from.Fetch(ctx, desc)
	}}, nil
}

// foreign turns to the other addresses when the first read says that the registry has no such blob.
type foreign struct {
	io.ReadCloser
	next func() (io.ReadCloser, error)
}

func (f *foreign) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if n > 0 || f.next == nil || !errdefs.IsNotFound(err) {
		return n, err
	}
	next, nerr := f.next()
	f.next = nil
	if nerr != nil {
		return 0, nerr
	}
	f.ReadCloser.Close()
	f.ReadCloser = next
	return next.Read(p)
}

// copyCounting copies at most size bytes and refuses a source that has more.
func copyCounting(to io.Writer, from io.Reader, size int64, count func(int64)) (n int64, err error) {
	buf := make([]byte, 64<<10)
	told := int64(0)
	for {
		r, rerr := from.Read(buf)
		if n+int64(r) > size {
			return n, errs.New(errs.Damaged, "the registry sends more than the %d bytes that the manifest names", size)
		}
		if r > 0 {
			if _, err := to.Write(buf[:r]); err != nil {
				return n, err
			}
			n += int64(r)
		}
		if n-told >= tellEvery || rerr != nil && n > told {
			told = n
			count(n)
		}
		if rerr == io.EOF {
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
}

// watched calls stalled when a read takes longer than allowed. The time that the other side of the copy takes, for
// example to unpack, does not count.
type watched struct {
	io.Reader
	arm  func() (disarm func() bool)
	last func() bool
}

func (b *blobs) watch(r io.Reader, stalled func()) *watched {
	return &watched{Reader: r, arm: func() func() bool { return b.cfg.Clock.AfterFunc(b.settings.Stall, stalled) }}
}

func (w *watched) Read(p []byte) (int, error) {
	w.last = w.arm()
	n, err := w.Reader.Read(p)
	w.last()
	return n, err
}

func (w *watched) stop() {
	if w.last != nil {
		w.last()
	}
}

// document fetches a manifest, an index or a config and reads it.
func (b *blobs) document(ctx context.Context, desc ocispec.Descriptor, into any) error {
	if desc.Size > maxManifest {
		return errs.New(errs.Invalid, "%s %s is %d bytes; at most %d make sense", desc.MediaType, desc.Digest, desc.Size, maxManifest)
	}
	if err := b.fetch(ctx, desc, watcher{}); err != nil {
		return err
	}
	data, err := content.ReadBlob(ctx, b.into, desc)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return errs.New(errs.Invalid, "%s %s is no JSON document: %w", desc.MediaType, desc.Digest, err)
	}
	return nil
}
