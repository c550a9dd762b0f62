// Package build turns Dockerfiles and BuildKit's build graphs into images: BuildKit as a library on the image store, with
// our runtime and networks for its steps. It serves the classic build endpoint, sessions and BuildKit's gRPC API. It must
// not know containers, names of hosts' files or the API's wire forms of anything but builds.
//
// Nothing is opened, made on disk or started before the first build: a daemon that never builds pays nothing.
package build

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/cache/remotecache"
	inlinecache "github.com/moby/buildkit/cache/remotecache/inline"
	localcache "github.com/moby/buildkit/cache/remotecache/local"
	registrycache "github.com/moby/buildkit/cache/remotecache/registry"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/frontend/gateway"
	"github.com/moby/buildkit/frontend/gateway/forwarder"
	"github.com/moby/buildkit/session"
	snapshot "github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/util/archutil"
	"github.com/moby/buildkit/util/leaseutil"
	bkversion "github.com/moby/buildkit/version"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	"github.com/moby/buildkit/worker/label"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/version"
	"github.com/shoalhq/shoal/model"
)

// Config says where builds are kept and what they use.
type Config struct {
	Root         string // cache records and working directories; made at the first build
	ExecRoot     string // running steps; best on tmpfs
	Runtime      string // the program shoal-runtime
	CgroupParent string
	Images       *store.Store
	Resolve      func(ctx context.Context, ref, platform string) (model.Image, error) // finds an image here, built-in ones too
	Networks     Networks
	Hosts        docker.RegistryHosts
	Devices      func() (*cdi.Cache, error) // reads the devices described on this machine; with an error, those that could be read
	Policy       func() Policy              // asked at each build
	Confine      Confinement
	Log          *slog.Logger
}

// Confinement is what every step gets beyond Docker's defaults.
type Confinement struct {
	AppArmor string        // profile; "" where the host has none
	Labels   Labels        // nil without SELinux
	IDMaps   *model.IDMaps // of user namespaces; nil: steps are in the host's
}

// Labels are SELinux's. New gives a label of its own for a process and the label that its files need; Release gives it back.
type Labels interface {
	New(options []string) (process, files string, err error)
	Release(process string)
}

// Policy is what the administrator allows and limits.
type Policy struct {
	Entitlements []string                  // "security.insecure", "network.host", "device"
	KeepAll      bool                      // cache is removed on demand only
	Keep         model.BuildPruneOptions   // limits of the cache; zeros choose by the size of the disk
	Rules        []model.BuildPruneOptions // in place of those that Keep gives
	HistoryAge   time.Duration             // how long builds are listed; zero is two days
	HistoryCount int64                     // how many are; zero is 50
}

// Builder builds. It is safe for concurrent use.
type Builder struct {
	cfg Config

	opening sync.Mutex
	eng     *engine // nil until the first build
	closed  bool

	mu     sync.Mutex
	builds map[string]context.CancelFunc // by the ID that the client chose

	ended  context.Context // ends when the builder is closed
	cancel context.CancelFunc
}

// engine is what is there from the first build on.
type engine struct {
	sessions *session.Manager
	control  *control.Controller
	worker   *base.Worker
	exec     *executor
	server   *grpc.Server
	refused  refusals
}

// New makes a builder and removes what steps of a daemon that died have left. An error is of the policy.
func New(cfg Config) (*Builder, error) {
	if _, err := gcPolicy(cfg.Root, cfg.Policy()); err != nil {
		return nil, err
	}
	b := &Builder{cfg: cfg, builds: map[string]context.CancelFunc{}}
	b.ended, b.cancel = context.WithCancel(context.Background())
	if err := clearSteps(cfg); err != nil {
		cfg.Log.Warn("build steps of an earlier daemon are not wholly removed", "reason", err)
	}
	return b, nil
}

// Close ends all builds.
func (b *Builder) Close() error {
	b.cancel()
	b.opening.Lock()
	defer b.opening.Unlock()
	b.closed = true
	if b.eng == nil {
		return nil
	}
	b.eng.server.Stop()
	b.eng.exec.wait()
	err := b.eng.control.Close()
	b.eng = nil
	return err
}

// Used says whether anything was ever built here.
func (b *Builder) Used() bool {
	_, err := os.Lstat(b.cfg.Root)
	return err == nil
}

func (b *Builder) engine(ctx context.Context) (*engine, error) {
	b.opening.Lock()
	defer b.opening.Unlock()
	if b.closed {
		return nil, errs.New(errs.Unavailable, "the daemon is stopping")
	}
	if b.eng != nil {
		return b.eng, nil
	}
	eng, err := b.open(context.WithoutCancel(ctx))
	if err != nil {
		return nil, errs.Wrap(err, "prepare the builder")
	}
	b.eng = eng
	return eng, nil
}

func (b *Builder) open(ctx context.Context) (*engine, error) {
	cfg := b.cfg
	for _, dir := range []string{cfg.Root, cfg.ExecRoot, filepath.Join(cfg.ExecRoot, mountsDir), filepath.Join(cfg.ExecRoot, tempDir)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	// BuildKit mounts sources and secrets in the temporary directory. After a death they must be found and cleared.
	if err := os.Setenv("TMPDIR", filepath.Join(cfg.ExecRoot, tempDir)); err != nil {
		return nil, err
	}
	parts, err := cfg.Images.Parts(ctx)
	if err != nil {
		return nil, err
	}
	sessions, err := session.NewManager()
	if err != nil {
		return nil, err
	}
	exec := newExecutor(cfg)
	w, err := b.openWorker(ctx, parts, exec)
	if err != nil {
		return nil, err
	}
	workers := &worker.Controller{}
	if err := workers.Add(&ourWorker{Worker: w, store: cfg.Images, parts: parts, devices: exec.devices}); err != nil {
		return nil, err
	}
	ctl, err := b.openControl(ctx, w, workers, sessions)
	if err != nil {
		w.Close()
		return nil, err
	}
	bkversion.Version = version.Module("github.com/moby/buildkit") // which clients are told; nothing else sets it in a library
	eng := &engine{sessions: sessions, control: ctl, worker: w, exec: exec}
	eng.server = newServer(ctl, &eng.refused)
	return eng, nil
}

// openWorker makes BuildKit's worker on the image store.
func (b *Builder) openWorker(ctx context.Context, parts store.Parts, exec *executor) (*base.Worker, error) {
	cfg := b.cfg
	records, err := openRecords(filepath.Join(cfg.Root, "metadata.db"), metadata.NewStore)
	if err != nil {
		return nil, err
	}
	id, err := base.ID(cfg.Root)
	if err != nil {
		records.Close()
		return nil, err
	}
	rules, err := gcPolicy(cfg.Root, cfg.Policy())
	if err != nil {
		records.Close()
		return nil, err
	}
	content := snapshot.NewContentStore(calmContent{parts.Content}, parts.Namespace)
	hostname, _ := os.Hostname()
	w, err := base.NewWorker(ctx, base.WorkerOpt{
		ID: id, Root: cfg.Root, MetadataStore: records, Executor: exec,
		Labels: map[string]string{label.Executor: "shoal", label.Snapshotter: parts.Snapshotter, label.Hostname: hostname,
			"org.mobyproject.buildkit.worker.moby.host-gateway-ip": cfg.Networks.HostGateway(ctx)},
		Snapshotter:  snapshot.NewSnapshotter(parts.Snapshotter, parts.Snapshots, parts.Namespace, nil),
		ContentStore: content, Applier: namespaced{parts.Applier, parts.Namespace},
		Differ:     newDiffer(content),
		ImageStore: images{b, parts}, RegistryHosts: cfg.Hosts,
		Platforms:    hostPlatforms(),
		LeaseManager: leaseutil.WithNamespace(parts.Leases, parts.Namespace), GarbageCollect: collector(cfg.Images),
		GCPolicy: rules, MountPoolRoot: filepath.Join(cfg.ExecRoot, mountsDir),
		BuildkitVersion: client.BuildkitVersion{Package: "github.com/moby/buildkit", Version: version.Module("github.com/moby/buildkit")},
	})
	if err != nil {
		records.Close()
	}
	return w, err
}

// hostPlatforms are this machine's, and those that it emulates.
func hostPlatforms() []ocispec.Platform {
	own := platforms.Normalize(platforms.DefaultSpec())
	list := []ocispec.Platform{own}
	for _, p := range archutil.SupportedPlatforms(true) {
		if !platforms.Only(own).Match(p) {
			list = append(list, p)
		}
	}
	return list
}

// openControl makes BuildKit's controller: front ends, cache, remote caches, history.
func (b *Builder) openControl(ctx context.Context, w *base.Worker, workers *worker.Controller, sessions *session.Manager) (*control.Controller, error) {
	cacheDB, err := openRecords(filepath.Join(b.cfg.Root, "cache.db"), bboltcachestorage.NewStore)
	if err != nil {
		return nil, err
	}
	history, err := openRecords(filepath.Join(b.cfg.Root, "history.db"), func(path string) (*bolt.DB, error) {
		return bolt.Open(path, 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType, Timeout: 2 * time.Second})
	})
	if err != nil {
		cacheDB.Close()
		return nil, err
	}
	builtin := forwarder.NewGatewayForwarder(workers.Infos(), buildDockerfile)
	image, err := gateway.NewGatewayFrontend(workers.Infos(), nil)
	if err != nil {
		return nil, err
	}
	policy := b.cfg.Policy()
	keep := config.HistoryConfig{MaxAge: config.Duration{Duration: policy.HistoryAge}, MaxEntries: &policy.HistoryCount}
	if policy.HistoryAge == 0 {
		keep.MaxAge.Duration = 48 * time.Hour
	}
	if policy.HistoryCount == 0 {
		policy.HistoryCount = 50
	}
	c, err := control.NewController(control.Opt{
		SessionManager: sessions, WorkerController: workers,
		Frontends: map[string]frontend.Frontend{
			"dockerfile.v0": builtin,
			"gateway.v0":    syntaxFrontend{image: image, builtin: builtin},
		},
		CacheManager: solver.NewCacheManager(ctx, "local", cacheDB, worker.NewCacheResultStorage(workers)),
		ResolveCacheExporterFuncs: map[string]remotecache.ResolveCacheExporterFunc{
			"registry": registrycache.ResolveCacheExporterFunc(sessions, b.cfg.Hosts),
			"local":    localcache.ResolveCacheExporterFunc(sessions),
			"inline":   inlinecache.ResolveCacheExporterFunc(),
		},
		ResolveCacheImporterFuncs: map[string]remotecache.ResolveCacheImporterFunc{
			"registry": registrycache.ResolveCacheImporterFunc(sessions, w.ContentStore(), b.cfg.Hosts),
			"local":    localcache.ResolveCacheImporterFunc(sessions),
		},
		Entitlements: policy.Entitlements,
		HistoryDB:    history, CacheStore: cacheDB, LeaseManager: w.LeaseManager(), ContentStore: w.ContentStore(),
		HistoryConfig:  &keep,
		GarbageCollect: w.GarbageCollect, GracefulStop: b.ended.Done(),
	})
	if err != nil {
		return nil, err
	}
	return c, noSampler(c)
}

// openRecords opens one of the builder's databases. One that is damaged is set aside: all of it is cache.
func openRecords[T any](path string, open func(string) (T, error)) (T, error) {
	db, err := open(path)
	if err == nil || errors.Is(err, bolt.ErrTimeout) || errors.Is(err, os.ErrPermission) {
		return db, err
	}
	if moved := os.Rename(path, path+".damaged"); moved != nil {
		return db, errs.Wrap(err, "open %s", path)
	}
	return open(path)
}

// Session takes over a connection on which a client offers its files, secrets and credentials, until either end closes it.
func (b *Builder) Session(ctx context.Context, conn net.Conn, header map[string][]string) error {
	eng, err := b.engine(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.ended, cancel)()
	return eng.sessions.HandleConn(ctx, sessionConn{conn, cancel}, header)
}

// sessionConn ends the session with its connection. BuildKit by itself asks for the client's health and gives up after some
// failures, which takes ten seconds and more, and says so in the log for every client that has left.
type sessionConn struct {
	net.Conn
	ended context.CancelFunc
}

func (c sessionConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.ended()
	}
	return n, err
}
