package engine

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalhq/shoal/engine/ocispec"
	"github.com/shoalhq/shoal/engine/record"
	"github.com/shoalhq/shoal/lib/clock"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Engine is one node's containers. Make it with Open.
type Engine struct {
	cfg      Config
	ports    Ports
	records  *record.Store
	index    index
	execs    execTable
	defaults atomic.Pointer[Defaults]
	// background counts work that outlives the request that began it; Close waits for it.
	background sync.WaitGroup
	closing    atomic.Bool
	ctx        context.Context // ends with Close
	initOnce   sync.Once       // of the copy of the init program
	initErr    error
	cancel     context.CancelFunc
}

// Config is where and on what the engine works.
type Config struct {
	Root     string // records and writable layers
	ExecRoot string // on tmpfs: what need not survive a reboot
	Host     ocispec.Host
	Hostname string // of the machine
	// IDMaps are the ids of containers' user namespaces; nil: they are in the host's.
	IDMaps  *model.IDMaps
	Seccomp ocispec.SeccompSource
	Log     *slog.Logger
	Clock   clock.Clock
	// Names chooses a name for a container that has none; attempt counts from 0. Nil is the engine's own word list.
	Names func(attempt int) string
	// InitProgram is what --init starts as a container's first process, called as docker-init; "" refuses --init.
	InitProgram string
	// StorageDriver names what keeps the layers, as inspect shows it; nil is overlay2.
	StorageDriver func(ctx context.Context) string
	// AtClose says what becomes of the containers.
	AtClose AtClose
}

// AtClose is what an engine's end means for its containers.
type AtClose int

// The ends.
const (
	RunOn    AtClose = iota // they outlive it
	StopAll                 // they are stopped, as by a shutdown of the machine
	StopOnly                // they are stopped, and this engine was opened for nothing else: it starts none
)

// Ports are the rooms that act for the engine.
type Ports struct {
	Images   Images
	Networks Networks
	Volumes  Volumes
	Tasks    Tasks
	RootFS   RootFS
	Events   Events
	Labels   Labels  // nil: SELinux is not used
	Devices  Devices // nil: no CDI devices
}

// Defaults are the daemon's choices for what a container leaves open. They may change while the engine runs and hold for
// what is made afterwards.
type Defaults struct {
	Runtime         string
	Runtimes        []string // names of all that may be asked for
	Log             model.LogConfig
	Limits          ocispec.Limits
	ShmSize         int64
	Init            bool
	IPC             string // private or shareable
	CgroupNS        string
	Seccomp         string // profile of containers that name none: "" is built in, "unconfined", or JSON
	NetworkDisabled bool   // no network by default (the daemon runs with --bridge=none)
}

const defaultShmSize = 64 << 20

// Open loads the records and takes up the containers that run. The API may be served as soon as it returns; waiting for
// restarts goes on in the background.
func Open(ctx context.Context, cfg Config, ports Ports, defaults Defaults) (*Engine, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.Names == nil {
		cfg.Names = randomName
	}
	records, err := record.Open(cfg.Root, cfg.ExecRoot)
	if err != nil {
		return nil, err
	}
	records.Log = cfg.Log
	e := &Engine{cfg: cfg, ports: ports, records: records}
	e.index.init()
	e.execs.byID = map[string]*execution{}
	e.ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	e.SetDefaults(defaults)
	loaded, damaged, err := records.Load()
	if err != nil {
		return nil, err
	}
	for _, d := range damaged {
		cfg.Log.Warn("a container's record cannot be read and was set aside; repair it and move it back, or delete it",
			"container", d.ID, "directory", d.Now, "reason", d.Reason)
	}
	for _, c := range loaded {
		if ports.Labels != nil && c.Runtime.ProcessLabel != "" {
			ports.Labels.Keep(c.Runtime.ProcessLabel)
		}
		if err := e.index.add(newEntry(c)); err != nil {
			cfg.Log.Warn("two containers have one name; the later one is renamed", "container", c.ID, "name", c.Name)
			c.Name = c.Name + "_" + c.ID[:12]
			if err := e.index.add(newEntry(c)); err != nil {
				return nil, err
			}
		}
	}
	return e, e.reconcile(ctx, damaged)
}

// SetDefaults changes what new containers and new starts get.
func (e *Engine) SetDefaults(d Defaults) {
	if d.ShmSize == 0 {
		d.ShmSize = defaultShmSize
	}
	if d.Log.Driver == "" {
		d.Log.Driver = "local"
	}
	if d.IPC == "" {
		d.IPC = "private"
	}
	e.defaults.Store(&d)
}

// Close ends the engine's own work. Containers run on under their supervisors unless the engine was told to stop them.
func (e *Engine) Close(ctx context.Context) error {
	if e.closing.Swap(true) {
		return nil
	}
	var err error
	if e.cfg.AtClose != RunOn {
		err = e.stopAll(ctx)
	}
	for _, en := range e.index.all() {
		en.quiet()
	}
	e.cancel()
	e.background.Wait()
	defer e.records.Close()
	for _, en := range e.index.all() {
		if serr := e.flush(en); serr != nil && err == nil {
			err = serr
		}
	}
	return err
}

// stopAll stops every container, as a shutdown of the machine would.
func (e *Engine) stopAll(ctx context.Context) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	for _, en := range e.index.all() {
		if !en.get().State.Alive() {
			continue
		}
		wg.Go(func() {
			err := e.stop(ctx, en, model.StopOptions{}, stopForShutdown)
			mu.Lock()
			defer mu.Unlock()
			if err != nil && first == nil && !errs.Is(err, errs.NotModified) {
				first = err
			}
		})
	}
	wg.Wait()
	return first
}

// goBackground runs f unless the engine is closing.
func (e *Engine) goBackground(f func(ctx context.Context)) {
	if e.closing.Load() {
		return
	}
	e.background.Go(func() { f(e.ctx) })
}

func (e *Engine) now() time.Time { return e.cfg.Clock.Now().UTC() }

// Counts says how many containers run, are paused, and do neither.
func (e *Engine) Counts() (running, paused, stopped int) {
	for _, en := range e.index.all() {
		switch en.get().State.Status {
		case model.StatusRunning, model.StatusRestarting:
			running++
		case model.StatusPaused:
			paused++
		default:
			stopped++
		}
	}
	return running, paused, stopped
}
