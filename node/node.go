package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/api/server"
	"github.com/shoalhq/shoal/engine"
	"github.com/shoalhq/shoal/image"
	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/plugin"
	"github.com/shoalhq/shoal/lib/version"
	"github.com/shoalhq/shoal/network"
	"github.com/shoalhq/shoal/node/config"
	"github.com/shoalhq/shoal/observe/events"
	"github.com/shoalhq/shoal/runtime/spec/logopts"
	"github.com/shoalhq/shoal/task"
	"github.com/shoalhq/shoal/volume"
)

// Node is one running daemon.
type Node struct {
	args     []string // command line, for reloads
	cfg      atomic.Pointer[config.Config]
	level    slog.LevelVar
	log      *slog.Logger
	bus      *events.Bus
	images   *image.Images
	volumes  *volume.Volumes
	networks *network.Manager
	tasks    *task.Manager
	engine   *engine.Engine
	front    front
	registry *imageRegistry // nil: not served
}

// Run serves until the process is told to end by SIGTERM or SIGINT. SIGHUP reads the configuration file again; SIGUSR1
// writes the stacks of all goroutines to the log.
func Run(cfg config.Config, args []string) error {
	n := &Node{args: args}
	n.setup(cfg)
	if os.Getuid() != 0 {
		return errs.New(errs.Forbidden, "shoald needs root: it makes namespaces, mounts and network links; start it with sudo or as a system service")
	}
	sigs := make(chan os.Signal, 8)
	signal.Notify(sigs, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1)
	release, err := claim(cfg.Daemon, mountExecRoot)
	if err != nil {
		return err
	}
	defer release()
	started := time.Now()
	ls, err := listen(cfg.API, n.log)
	if err != nil {
		return err
	}
	atClose := engine.RunOn
	if cfg.Daemon.StopOnExit {
		atClose = engine.StopAll
	}
	if err := n.build(context.Background(), atClose); err != nil {
		closeListeners(ls)
		return err
	}
	served := n.serve(ls)
	n.log.Info("the daemon serves the API", "version", version.String(), "hosts", cfg.API.Hosts, "after", time.Since(started).Round(100*time.Microsecond))
	daemon.SdNotify(false, daemon.SdNotifyReady)
	go n.preflight(context.Background())
	n.images.VerifyAfterCrash()
	n.settle()
	for sig := range sigs {
		switch sig {
		case unix.SIGHUP:
			n.reload()
		case unix.SIGUSR1:
			buf := make([]byte, 4<<20)
			n.log.Info("stacks of all goroutines\n" + string(buf[:goruntime.Stack(buf, true)]))
		default:
			n.log.Info("ending", "signal", sig.String(), "containers", map[bool]string{true: "are stopped", false: "run on"}[n.cfg.Load().Daemon.StopOnExit])
			daemon.SdNotify(false, daemon.SdNotifyStopping)
			return errors.Join(n.shutdown(n.cfg.Load().Daemon.StopTimeout), <-served)
		}
	}
	return nil
}

func (n *Node) setup(cfg config.Config) {
	n.cfg.Store(&cfg)
	n.level.Set(levelOf(cfg.Daemon.LogLevel))
	opts := &slog.HandlerOptions{Level: &n.level}
	var h slog.Handler = slog.NewTextHandler(os.Stderr, opts)
	if cfg.Daemon.LogFormat == "json" {
		h = slog.NewJSONHandler(os.Stderr, opts)
	}
	n.log = slog.New(h)
	for _, w := range cfg.Warnings {
		n.log.Warn(w)
	}
	// Libraries that unpack would start these programs wherever the machine has them: slower for what we do, and not ours to trust.
	for _, name := range []string{"CONTAINERD_DISABLE_PIGZ", "CONTAINERD_DISABLE_IGZIP", "MOBY_DISABLE_PIGZ"} {
		os.Setenv(name, "true")
	}
	for name, v := range map[string]string{"HTTP_PROXY": cfg.Registry.Proxies.HTTP, "HTTPS_PROXY": cfg.Registry.Proxies.HTTPS, "NO_PROXY": cfg.Registry.Proxies.No} {
		if v != "" { // clients of registries, and BuildKit's, look into the environment
			os.Setenv(name, v)
			os.Setenv(strings.ToLower(name), v)
		}
	}
	// A daemon at rest shall stay small; the limit only makes collection eager when something grows without bound.
	debug.SetGCPercent(50)
}

func levelOf(name string) slog.Level {
	switch name {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error", "fatal":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// build makes every room. The order is that of need: nothing here waits for containers.
func (n *Node) build(ctx context.Context, atClose engine.AtClose) error {
	cfg := n.cfg.Load()
	for _, dir := range []string{cfg.Daemon.DataRoot, cfg.Daemon.ExecRoot} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return errs.Wrap(err, "make the daemon's directories")
		}
	}
	n.bus = events.New(time.Now)
	plugins := plugin.New(plugin.Config{Dirs: cfg.Plugins.Dirs, Call: time.Duration(cfg.Plugins.Timeout) * time.Second})
	n.images = image.Open(image.Config{Root: filepath.Join(cfg.Daemon.DataRoot, "image"), Driver: imageDriver(cfg.Daemon.StorageDriver),
		Events: n.bus.Publish, Log: n.log, Fetch: n.restoreContent, Reclaim: func() store.Watermarks { return store.Watermarks(n.cfg.Load().Registry.Reclaim) }})
	n.volumes = volume.Open(volume.Config{Root: filepath.Join(cfg.Daemon.DataRoot, "volumes"), Events: n.bus.Publish, Log: n.log, Plugins: plugins})
	runtimePath, err := findRuntime()
	if err != nil {
		return err
	}
	if n.tasks, err = task.New(taskConfig(cfg, runtimePath)); err != nil {
		return err
	}
	if n.networks, err = network.Open(n.networkConfig(cfg, plugins)); err != nil {
		return errs.Wrap(err, "prepare the networks")
	}
	profile := n.loadAppArmor()
	idMaps, err := remap(cfg)
	if err != nil {
		return err
	}
	if n.engine, err = n.openEngine(ctx, cfg, profile, idMaps, atClose); err != nil {
		return err
	}
	if n.front.builder, err = n.openBuilder(cfg, runtimePath, profile, idMaps); err != nil {
		return err
	}
	n.networks.WatchInside(n.fixedNetworks)
	if o := cfg.Registry.Server; o.Listen != "" {
		if n.registry, err = startRegistry(o, filepath.Join(cfg.Daemon.DataRoot, "registry"), n.images.Store, n.registryClient(), n.log); err != nil {
			return err
		}
	}
	return n.openFront(cfg, plugins)
}

func imageDriver(name string) string {
	switch name {
	case "overlay2", "overlayfs", "overlay":
		return "overlay"
	case "vfs", "native":
		return "native"
	}
	return ""
}

// findRuntime looks beside the daemon first, so that a build tree works without installation.
func findRuntime() (string, error) {
	const name = "shoal-runtime"
	if self, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(self), name); exists(beside) {
			return beside, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", errs.New(errs.NotFound, "%s is neither beside shoald nor in PATH; install the three binaries together", name)
	}
	return filepath.Abs(path)
}

func (n *Node) backends() server.Backends {
	hostname, _ := os.Hostname()
	runtimePath, _ := findRuntime() // found before
	return server.Backends{
		Containers: n.engine, Life: n.engine, Streams: n.engine, Files: n.engine, Execs: n.engine,
		Making:   server.Making{Images: apiImages{n.images, n.engine, n.spare()}, Transfer: n.images, Registry: n.registryClient(), Builds: apiBuilds{n.front.builder, n.spare()}},
		Networks: apiNetworks{n.networks, n.engine, n.bus}, Volumes: apiVolumes{n.volumes, n.engine, n.images},
		System: &about{cfg: func() config.Config { return *n.cfg.Load() }, id: daemonID(n.cfg.Load().Daemon.DataRoot),
			hostname: hostname, runtime: runtimePath, driver: n.storageDriver, images: n.imageCount, warnings: n.warnings, host: readHostFacts(), logs: logopts.Drivers, drivers: n.volumes.Drivers},
		Events: n.bus,
	}
}

func (n *Node) storageDriver(ctx context.Context) string {
	if d := imageDriver(n.cfg.Load().Daemon.StorageDriver); d != "" && n.images.Empty() {
		return dockerDriverName(d)
	}
	d, err := n.images.Driver(ctx)
	if err != nil {
		return "unknown"
	}
	return dockerDriverName(d)
}

func (n *Node) imageCount(ctx context.Context) int {
	if n.images.Empty() {
		return 0
	}
	list, err := n.images.List(ctx, nil, false)
	if err != nil {
		n.log.Warn("images cannot be counted", "reason", err)
	}
	return len(list)
}

// dockerDriverName is what tools that ask for the storage driver know.
func dockerDriverName(d string) string {
	if d == "native" {
		return "vfs"
	}
	return "overlay2"
}

func (n *Node) serve(ls []net.Listener) <-chan error {
	done := make(chan error, 1)
	var wg sync.WaitGroup
	errc := make(chan error, len(ls))
	for _, l := range ls {
		wg.Go(func() { errc <- n.front.api.Serve(l) })
	}
	go func() {
		wg.Wait()
		close(errc)
		var all []error
		for err := range errc {
			all = append(all, err)
		}
		done <- errors.Join(all...)
	}()
	return done
}

// settle gives back what starting took, once, so that the daemon rests small.
func (n *Node) settle() {
	time.AfterFunc(2*time.Second, debug.FreeOSMemory)
}

func (n *Node) reload() {
	daemon.SdNotify(false, daemon.SdNotifyReloading)
	defer daemon.SdNotify(false, daemon.SdNotifyReady)
	cfg, err := config.Reload(n.args)
	if err != nil {
		n.log.Error("the configuration stays as it was: it cannot be reloaded", "reason", err)
		return
	}
	old := n.cfg.Load()
	next := *old
	next.Daemon.LogLevel, next.Daemon.Labels = cfg.Daemon.LogLevel, cfg.Daemon.Labels
	next.Container, next.Registry, next.Network.DNS = cfg.Container, cfg.Registry, cfg.Network.DNS
	next.Daemon.StopTimeout, next.API.Guard.AuthzPlugins = cfg.Daemon.StopTimeout, cfg.API.Guard.AuthzPlugins
	next.Warnings = cfg.Warnings
	n.cfg.Store(&next)
	n.level.Set(levelOf(next.Daemon.LogLevel))
	if d, err := engineDefaults(&next); err != nil {
		n.log.Error("containers keep the defaults that they had", "reason", err)
	} else {
		n.tasks.SetRuntimes(taskRuntimes(&next))
		n.engine.SetDefaults(d)
	}
	n.log.Info("the configuration was read again", "effective now", config.Reloadable, "after a restart", "everything else")
}

func (n *Node) shutdown(timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout+5*time.Second)
	defer cancel()
	n.front.sockets.shutdown(ctx)
	err := n.front.api.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // requests that did not end were cut off
	}
	defer n.tasks.Close()
	return errors.Join(err, n.registry.close(ctx), n.front.builder.Close(), n.engine.Close(ctx), n.networks.Close(), n.images.Close(), n.front.audit.Close())
}

func closeListeners(ls []net.Listener) {
	for _, l := range ls {
		l.Close()
	}
}
