package registry

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/model"
)

// layers fetches the layers, several at once, and unpacks them. Each is unpacked while it arrives, where the store can.
func (b *blobs) layers(ctx context.Context, target ocispec.Descriptor, platform string, d document) error {
	arrival, err := b.cfg.Store.Arrive(ctx, *d.Config, d.diffIDs)
	if err != nil {
		return err
	}
	if arrival != nil {
		defer arrival.Abort(ctx)
	}
	places := map[digest.Digest][]int{} // a layer may be in an image more than once
	for i, l := range d.Layers {
		places[l.Digest] = append(places[l.Digest], i)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	slots := make(chan struct{}, b.settings.Downloads)
	for i, l := range d.Layers {
		if places[l.Digest][0] != i {
			continue
		}
		one := &layer{blobs: b, desc: l, arrival: arrival}
		for _, at := range places[l.Digest] {
			if arrival != nil && arrival.Needs(at) {
				one.places = append(one.places, at)
			}
		}
		if one.there, err = b.have(ctx, l); err != nil {
			cancel()
			g.Wait()
			return err
		}
		if one.there {
			b.layer(l, "Already exists", 0)
			if len(one.places) == 0 {
				continue
			}
		} else {
			b.layer(l, "Pulling fs layer", 0)
		}
		g.Go(func() error { return one.bring(gctx, slots) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if arrival == nil {
		return b.cfg.Store.UnpackTarget(ctx, target, platform, func(p model.ImageProgress) {
			p.ID = shortDigest(p.ID)
			b.tell(p)
		})
	}
	return arrival.Finish(ctx, func(i int) { b.layer(d.Layers[i], "Pull complete", 0) })
}

// layer is one layer on its way.
type layer struct {
	*blobs
	desc    ocispec.Descriptor
	arrival *store.Arrival
	places  []int // where in the image it is to be unpacked
	there   bool  // in the store already
	stream  *stream
}

// bring waits for its turn, fetches the layer and unpacks it.
func (l *layer) bring(ctx context.Context, slots chan struct{}) error {
	select {
	case slots <- struct{}{}:
	default:
		l.layer(l.desc, "Waiting", 0)
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() { <-slots }()
	places := l.places
	if !l.there {
		if err := l.download(ctx); err != nil {
			return err
		}
		if l.stream != nil && l.stream.whole {
			places = places[1:]
		}
	}
	for _, i := range places {
		if err := l.unpackStored(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// download fetches the layer with progress, and unpacks what arrives if it arrives from its beginning.
func (l *layer) download(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := watcher{
		count: func(n int64) {
			l.layer(l.desc, "Downloading", n)
			if n == l.desc.Size {
				l.layer(l.desc, "Verifying Checksum", 0)
			}
		},
		retry: func(d time.Duration) {
			l.layer(l.desc, fmt.Sprintf("Retrying in %v", d.Round(100*time.Millisecond)), 0)
		},
	}
	if len(l.places) > 0 {
		w.tee = func(at int64) io.Writer {
			switch {
			case at == 0 && l.stream == nil:
				l.stream = startStream(func(r io.Reader) error { return l.arrival.Unpack(ctx, l.places[0], r) })
			case l.stream == nil || l.stream.at != at:
				return nil // what is missing here will be read from the store
			}
			return l.stream
		}
	}
	err := l.fetch(ctx, l.desc, w)
	if err == nil {
		l.layer(l.desc, "Download complete", 0)
	}
	if l.stream == nil {
		return err
	}
	if uerr := l.stream.end(err, l.desc.Size); uerr != nil {
		return uerr
	}
	if err == nil && l.stream.whole {
		l.layer(l.desc, "Extracting", l.desc.Size)
	} else {
		l.arrival.Drop(ctx, l.places[0])
	}
	return err
}

// unpackStored unpacks from the store.
func (l *layer) unpackStored(ctx context.Context, i int) error {
	from, err := l.into.ReaderAt(ctx, l.desc)
	if err != nil {
		return err
	}
	defer from.Close()
	return l.arrival.Unpack(ctx, i, &telling{Reader: content.NewReader(from), tell: func(n int64) { l.layer(l.desc, "Extracting", n) }})
}

// telling tells how much was read.
type telling struct {
	io.Reader
	n, told int64
	tell    func(int64)
}

func (t *telling) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.n += int64(n)
	if t.n-t.told >= 4*tellEvery || err == io.EOF && t.n != t.told {
		t.told = t.n
		t.tell(t.n)
	}
	return n, err
}

// stream passes what is downloaded on to the unpacking, with some bytes in between so that neither waits for the other
// at every turn. A failure of the unpacking is the answer to the next write.
type stream struct {
	w     *io.PipeWriter
	at    int64
	whole bool // everything was passed on and unpacked

	done chan struct{}
	err  error
}

// streamBuffers times 64 KB may be under way between download and unpacking.
const streamBuffers = 32

func startStream(unpack func(io.Reader) error) *stream {
	pr, pw := io.Pipe()
	s := &stream{w: pw, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		ahead := newAhead(pr)
		s.err = unpack(ahead)
		pr.CloseWithError(s.err)
		ahead.stop()
	}()
	return s
}

func (s *stream) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.at += int64(n)
	return n, err
}

// end closes the stream after a download that ended with err, and waits for the unpacking. It returns the unpacking's own
// error.
func (s *stream) end(err error, size int64) error {
	s.whole = err == nil && s.at == size
	if !s.whole {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		s.w.CloseWithError(err)
		<-s.done
		return nil
	}
	s.w.Close()
	<-s.done
	return s.err
}

// ahead reads from a pipe in its own goroutine.
type ahead struct {
	full  chan []byte
	free  chan []byte
	quit  chan struct{}
	once  sync.Once
	cur   []byte
	whole []byte // the buffer that cur is in
	err   error  // valid when full is closed
}

func newAhead(r io.Reader) *ahead {
	a := &ahead{full: make(chan []byte, streamBuffers), free: make(chan []byte, streamBuffers), quit: make(chan struct{})}
	go func() {
		defer close(a.full)
		for made := 0; ; {
			var buf []byte
			if made < streamBuffers {
				buf = make([]byte, 64<<10)
				made++
			} else {
				select {
				case buf = <-a.free:
				case <-a.quit:
					return
				}
			}
			n, err := r.Read(buf[:cap(buf)])
			if n > 0 {
				select {
				case a.full <- buf[:n]:
				case <-a.quit:
					return
				}
			}
			if err != nil {
				a.err = err
				return
			}
		}
	}()
	return a
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.cur) == 0 {
		if a.whole != nil {
			a.free <- a.whole
			a.whole = nil
		}
		buf, ok := <-a.full
		if !ok {
			return 0, a.err
		}
		a.cur, a.whole = buf, buf
	}
	n := copy(p, a.cur)
	a.cur = a.cur[n:]
	return n, nil
}

func (a *ahead) stop() { a.once.Do(func() { close(a.quit) }) }
