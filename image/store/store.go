// Package store keeps images: their content (blobs by digest), their names, and their unpacked layers as snapshots, all
// with containerd's core packages in process, so that a build on the same store needs no copy. It answers what a name
// means, gives the read-only layer directories of an image, and removes what nothing refers to. It must not talk to
// registries or read archives (image/registry, image/transfer do, through the low-level part in content.go), and it
// must not know containers beyond their identifiers.
//
// On disk under the root: metadata.db (names, labels, leases, references), content/ (blobs), snapshots/ (layers) and
// driver (which snapshotter made them). Nothing is opened before the first use, so a daemon starts without waiting.
package store

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"os"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/lib/clock"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/keylock"
	"github.com/shoalhq/shoal/model"
)

// namespace is the one containerd namespace that all records live in.
const namespace = "shoal"

// Config says where the store is and whom it tells what.
type Config struct {
	Root   string            // directory of its own; made when missing
	Driver string            // "overlay", "native" (copies whole directories), or "" for the best that works here
	Events func(model.Event) // told of every change; may be nil; must not block
	Clock  clock.Clock       // nil: the machine's
	Log    *slog.Logger      // nil: nowhere
	// Fetch brings a blob or manifest of the repository that the name is in, for what was damaged on disk; nil: nobody can.
	Reclaim func() Watermarks // asked after each addition; nil: never
	Fetch   func(ctx context.Context, name string, into content.Store, desc ocispec.Descriptor) error
}

// Store is an image store. It is safe for concurrent use.
type Store struct {
	cfg      Config
	platform platforms.MatchComparer

	opening sync.Mutex // held while the backend is being opened
	back    *backend   // nil until first used

	mu    sync.Mutex
	gen   uint64             // counts changes of the names; an index made before the last one is not kept
	idx   *index             // nil: to be read again
	seen  map[key]*described // what is known of content, which never changes
	lower map[string][]string
	users map[string]string // container → image ID

	unpacking keylock.Set // one unpack of a layer at a time
	later
}

// later is the work besides operations.
type later struct {
	reclaiming sync.Mutex
	sweeping   sync.Mutex      // what is in the store is collected, or must not be
	life       context.Context // ends with Close
	end        context.CancelFunc
	background sync.WaitGroup
}

// New makes a store without touching the disk.
func New(cfg Config) *Store {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Events == nil {
		cfg.Events = func(model.Event) {}
	}
	life, end := context.WithCancel(context.Background())
	return &Store{cfg: cfg, later: later{life: life, end: end}, platform: platforms.Default(), seen: map[key]*described{}, lower: map[string][]string{},
		users: map[string]string{}}
}

// Close closes the files. Operations that still run fail.
func (s *Store) Close() error {
	s.end()
	s.background.Wait()
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.back == nil {
		return nil
	}
	b := s.back
	s.back = nil
	return b.close()
}

// backend opens the store's files at the first call. The context it returns carries the namespace.
func (s *Store) backend(ctx context.Context) (context.Context, *backend, error) {
	ctx = namespaces.WithNamespace(ctx, namespace)
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.back != nil {
		return ctx, s.back, nil
	}
	b, err := openBackend(ctx, s.cfg)
	if err != nil {
		return ctx, nil, errs.Wrap(err, "open image store %s", s.cfg.Root)
	}
	s.back = b
	if b.stale {
		go s.Tidy(context.Background())
	}
	return ctx, b, nil
}

// Empty says, without opening anything, whether the store was never used.
func (s *Store) Empty() bool {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.back != nil {
		return false
	}
	_, err := os.Lstat(metadataPath(s.cfg.Root))
	return os.IsNotExist(err)
}

// Root is the store's directory.
func (s *Store) Root() string { return s.cfg.Root }

// Event tells the listener of what was done to an image, with the labels of the image. Without a name it is the actor's ID,
// which is the image's or, where a registry is spoken to, the reference.
func (s *Store) Event(ctx context.Context, action, actor, name string) {
	s.tell(action, actor, name, s.labels(ctx, actor))
}

// labels are those of an image that is here.
func (s *Store) labels(ctx context.Context, ref string) map[string]string {
	img, err := s.Resolve(ctx, ref, "")
	if err != nil {
		return nil
	}
	return img.Config.Labels
}

// Driver is the name of the snapshotter that holds the layers: "overlay" or "native".
func (s *Store) Driver(ctx context.Context) (string, error) {
	_, b, err := s.backend(ctx)
	if err != nil {
		return "", err
	}
	return b.driver, nil
}

// Use notes that a container is made from the image, which is then kept. The engine calls it when it makes a container
// and for every container it finds at start; the note itself lives in memory only, the container's record is the truth.
func (s *Store) Use(_ context.Context, container, imageID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[container] = imageID
	return nil
}

// Release takes the note back; taking back what is not noted is no error.
func (s *Store) Release(_ context.Context, container string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.users, container)
	return nil
}

// usersOf lists the containers of the image.
func (s *Store) usersOf(imageID string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for c, id := range s.users {
		if id == imageID {
			list = append(list, c)
		}
	}
	return list
}

// changed makes the next reader read the names again.
func (s *Store) changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gen++
	s.idx = nil
}

func (s *Store) tell(action, actor, name string, labels map[string]string) {
	e := model.Event{Type: "image", Action: action, ID: actor, Attrs: make(map[string]string, len(labels)+1)}
	maps.Copy(e.Attrs, labels)
	e.Attrs["name"] = cmp.Or(name, actor)
	s.cfg.Events(e)
}
