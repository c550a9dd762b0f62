package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	bolt "go.etcd.io/bbolt"

	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/errs"
)

// Drivers: containerd's snapshotters that Shoal knows. The names are those of storage-driver options; snapshotName is
// what containerd calls them, which is also part of the label that ties a config to its snapshot.
const (
	DriverOverlay = "overlay"
	DriverNative  = "native"
)

var snapshotName = map[string]string{DriverOverlay: "overlayfs", DriverNative: "native"}

// operationLabel marks leases of operations of this process; those found at start belong to one that died.
const operationLabel = "dev.shoal.operation"

// openTimeout is how long another process may hold the metadata before it is taken for a second daemon.
const openTimeout = 2 * time.Second

type backend struct {
	driver  string
	bolt    *bolt.DB
	db      *metadata.DB
	content *lostContent
	clean   *cleanliness
	snap    snapshots.Snapshotter
	raw     snapshots.Snapshotter // beneath the metadata
	images  images.Store
	leases  leases.Manager
	stale   bool // an operation of an earlier process was cut off: there may be something to collect
}

func metadataPath(root string) string { return filepath.Join(root, "metadata.db") }

// forward sends what containerd's packages log to our log; they know only one logger for the whole process.
var forward sync.Once

type logHook struct{ to *slog.Logger }

func (logHook) Levels() []logrus.Level {
	return []logrus.Level{logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel, logrus.WarnLevel}
}

func (h logHook) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug
	if e.Level <= logrus.ErrorLevel {
		level = slog.LevelWarn
	}
	h.to.Log(context.Background(), level, "containerd: "+e.Message, "fields", fmt.Sprint(map[string]any(e.Data)))
	return nil
}

func openBackend(ctx context.Context, cfg Config) (*backend, error) {
	forward.Do(func() {
		log.L.Logger.SetOutput(io.Discard)
		log.L.Logger.AddHook(logHook{cfg.Log})
	})
	if err := os.MkdirAll(cfg.Root, 0o711); err != nil {
		return nil, err
	}
	driver, err := chooseDriver(cfg)
	if err != nil {
		return nil, err
	}
	if err := setAsideDamage(cfg.Root, cfg.Log); err != nil {
		return nil, err
	}
	b := &backend{driver: driver, clean: newCleanliness(cfg.Root)}
	db, err := bolt.Open(metadataPath(cfg.Root), 0o600, &bolt.Options{Timeout: openTimeout, FreelistType: bolt.FreelistMapType})
	if errors.Is(err, bolt.ErrTimeout) {
		return nil, errs.New(errs.Conflict, "another daemon uses this directory (its metadata.db is locked); give this one another --data-root or stop the other")
	}
	if err != nil {
		return nil, errs.New(errs.Damaged, "metadata.db cannot be opened: %w; if it is damaged, move it away: names are lost, images can be loaded or pulled again", err)
	}
	b.bolt = db
	if err := b.assemble(ctx, cfg.Root); err != nil {
		db.Close()
		return nil, err
	}
	return b, nil
}

func (b *backend) assemble(ctx context.Context, root string) error {
	at := filepath.Join(root, "content")
	blobs, err := local.NewStore(at)
	if err != nil {
		return fmt.Errorf("content: %w", err)
	}
	blobs = earlyContent{blobs, at, b.clean}
	dir := filepath.Join(root, "snapshots", b.driver)
	if b.driver == DriverOverlay {
		b.raw, err = overlay.NewSnapshotter(dir, overlay.WithUpperdirLabel, overlay.AsynchronousRemove)
	} else {
		b.raw, err = native.NewSnapshotter(dir)
	}
	if err != nil {
		return fmt.Errorf("snapshots: %w", err)
	}
	name := snapshotName[b.driver]
	b.db = metadata.NewDB(b.bolt, blobs, map[string]snapshots.Snapshotter{name: b.raw})
	if err := b.db.Init(ctx); err != nil {
		b.raw.Close()
		return errs.New(errs.Damaged, "metadata.db cannot be read: %w", err)
	}
	b.content = &lostContent{Store: b.db.ContentStore(), raw: blobs, lost: map[digest.Digest]bool{}}
	b.snap = b.db.Snapshotter(name)
	b.images = metadata.NewImageStore(b.db)
	b.leases = metadata.NewLeaseManager(b.db)
	return b.dropStaleLeases(ctx)
}

// dropStaleLeases removes the leases of operations that died with an earlier process, so that the next collection takes
// what they left.
func (b *backend) dropStaleLeases(ctx context.Context) error {
	list, err := b.leases.List(ctx, `labels."`+operationLabel+`"`)
	if err != nil {
		return err
	}
	b.stale = len(list) > 0
	for _, l := range list {
		if err := b.leases.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}

func (b *backend) close() error {
	err := b.raw.Close()
	if cerr := b.bolt.Close(); err == nil {
		err = cerr
	}
	b.clean.end()
	return err
}

// chooseDriver reads which driver the store was made with, or decides and records it. A store keeps its driver: layers
// of one cannot be used by the other.
func chooseDriver(cfg Config) (string, error) {
	path := filepath.Join(cfg.Root, "driver")
	data, err := os.ReadFile(path)
	if err == nil {
		driver := strings.TrimSpace(string(data))
		if snapshotName[driver] == "" {
			return "", errs.New(errs.Damaged, "%s says %q; want overlay or native", path, driver)
		}
		if cfg.Driver != "" && cfg.Driver != driver {
			return "", errs.New(errs.Conflict, "the images here were unpacked with storage driver %q, not %q; use %q or another --data-root", driver, cfg.Driver, driver)
		}
		return driver, nil
	}
	if !os.IsNotExist(err) {
		return "", err
	}
	driver := cfg.Driver
	switch driver {
	case DriverOverlay, "":
		if err := overlayutils.Supported(cfg.Root); err == nil {
			driver = DriverOverlay
		} else if driver != "" {
			return "", errs.New(errs.Unsupported, "storage driver overlay does not work here: %w; use --storage-driver native", err)
		} else {
			cfg.Log.Warn("overlay does not work here; layers are copied, which is slow and takes more disk", "reason", err)
			driver = DriverNative
		}
	case DriverNative:
	default:
		return "", errs.New(errs.Invalid, "unknown storage driver %q; want overlay or native", driver)
	}
	return driver, atomicfile.Write(path, []byte(driver+"\n"), 0o644, atomicfile.Durable)
}

// classify gives containerd's errors a kind of ours.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errdefs.IsNotFound(err):
		return errs.As(errs.NotFound, err)
	case errdefs.IsInvalidArgument(err):
		return errs.As(errs.Invalid, err)
	case errdefs.IsFailedPrecondition(err), errdefs.IsAlreadyExists(err), errdefs.IsConflict(err):
		return errs.As(errs.Conflict, err)
	case errdefs.IsUnavailable(err):
		return errs.As(errs.Unavailable, err)
	case errdefs.IsDataLoss(err):
		return errs.As(errs.Damaged, err)
	}
	return err
}
