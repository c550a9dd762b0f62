package supervise

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/runtime/cgroup"
	"github.com/shoalhq/shoal/runtime/container"
	"github.com/shoalhq/shoal/runtime/spec"
)

// pickRunner chooses our own runtime, or the foreign one that the configuration names.
func pickRunner(cfg *spec.SupervisorConfig) (Runner, error) {
	if cfg.Runtime.Path != "" {
		return newForeign(cfg.Runtime)
	}
	return native{}, nil
}

// native is our own runtime, in process. Its state is in the supervisor's directory.
type native struct{}

// stateDir is the runtime's own directory in the supervisor's.
const stateDir = "runtime"

func (native) Create(o CreateOptions) (Container, error) {
	rt := container.Open(filepath.Join(o.Dir, stateDir))
	rt.Prefetch()
	p, err := rt.Begin(container.CreateOptions{ID: o.ID, Bundle: o.Dir, Launch: container.Launch{Stdio: o.Stdio}, Joins: o.Spaces})
	if err != nil {
		return nil, blame(err)
	}
	return &nativeContainer{nativeProcess: nativeProcess{p}, rt: rt, id: o.ID, groups: groupsThere(p.Cgroup())}, nil
}

func (native) Resume(dir string, cfg *spec.SupervisorConfig, pid int, saved []byte) Container {
	return &nativeContainer{nativeProcess: nativeProcess{&container.Process{ID: cfg.ID, Pid: pid}},
		rt: container.Open(filepath.Join(dir, stateDir)), id: cfg.ID, groups: groupsSaved(saved)}
}

// Reap deletes the container by force; what was never created needs nothing.
func (native) Reap(dir string, cfg *spec.SupervisorConfig) error {
	root := filepath.Join(dir, stateDir)
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return container.Open(root).Delete(cfg.ID, true)
}

// blame turns the runtime's error into a Failure when the program is at fault.
func blame(err error) error {
	if code := container.ExitCode(err); code == errs.ExitNotFound || code == errs.ExitNotExecutable {
		return &Failure{Code: code, Err: err}
	}
	return err
}

type nativeProcess struct{ p *container.Process }

func (n nativeProcess) Pid() int          { return n.p.Pid }
func (n nativeProcess) Console() *os.File { return n.p.Console }

type nativeContainer struct {
	nativeProcess
	rt     *container.Runtime
	id     string
	groups lazyGroups
}

// lazyGroups finds the container's cgroup when it is first needed: an idle supervisor never looks at it.
type lazyGroups func() (*cgroup.Manager, error)

func groupsThere(m *cgroup.Manager) lazyGroups {
	return func() (*cgroup.Manager, error) { return m, nil }
}

func groupsSaved(saved []byte) lazyGroups {
	return sync.OnceValues(func() (*cgroup.Manager, error) {
		var state cgroup.State
		if err := json.Unmarshal(saved, &state); err != nil {
			return nil, err
		}
		host, err := cgroup.Detect()
		if err != nil {
			return nil, err
		}
		return host.Load(state)
	})
}

func (l lazyGroups) save() ([]byte, bool) {
	m, err := l()
	if err != nil {
		return nil, false
	}
	data, err := json.Marshal(m.State())
	return data, err == nil
}

func (c *nativeContainer) Save() ([]byte, bool) { return c.groups.save() }

func (c *nativeContainer) Ready() error   { return blame(c.p.Ready()) }
func (c *nativeContainer) Start() error   { return blame(c.rt.StartCreated(c.p)) }
func (c *nativeContainer) Destroy() error { return c.rt.Delete(c.id, true) }

func (c *nativeContainer) Exec(o ExecOptions) (Process, error) {
	process := *o.Process
	process.Terminal = o.Tty
	if o.Size[0] > 0 {
		process.ConsoleSize = &specs.Box{Height: o.Size[0], Width: o.Size[1]}
	}
	p, err := c.rt.Exec(c.id, container.ExecOptions{Process: &process, Launch: container.Launch{Stdio: o.Stdio}})
	if err != nil {
		return nil, blame(err)
	}
	if p.PidFD != nil { // the supervisor opens its own
		p.PidFD.Close()
	}
	return nativeProcess{p}, nil
}

func (c *nativeContainer) Control() Control {
	return groupControl{c.groups, func(sig syscall.Signal) error { return c.rt.Kill(c.id, sig, true) }}
}

// groupControl acts through the cgroup.
type groupControl struct {
	groups    lazyGroups
	signalAll func(syscall.Signal) error
}

func (c groupControl) Signal(sig syscall.Signal, all bool) error { return c.signalAll(sig) }

func (c groupControl) with(f func(m *cgroup.Manager) error) error {
	m, err := c.groups()
	if err != nil {
		return err
	}
	return f(m)
}

func (c groupControl) Freeze(on bool) error {
	if on {
		return c.with((*cgroup.Manager).Freeze)
	}
	return c.with((*cgroup.Manager).Thaw)
}

func (c groupControl) KillAll() error { return c.with((*cgroup.Manager).KillAll) }

func (c groupControl) Update(r *specs.LinuxResources) error {
	return c.with(func(m *cgroup.Manager) error { return m.Set(r) })
}

func (c groupControl) Pids() (pids []int, err error) {
	err = c.with(func(m *cgroup.Manager) (err error) { pids, err = m.Pids(); return err })
	return pids, err
}

func (c groupControl) Paths() (paths map[string]string) {
	c.with(func(m *cgroup.Manager) error { paths = m.Paths(); return nil })
	return paths
}

func (c groupControl) OOM() OOM { return groupOOM(c) }

type groupOOM groupControl

func (o groupOOM) Count() (n uint64) {
	groupControl(o).with(func(m *cgroup.Manager) (err error) { n, err = m.OOMCount(); return err })
	return n
}

func (o groupOOM) Watch() (fd int, read func() (uint64, error)) {
	fd = -1
	groupControl(o).with(func(m *cgroup.Manager) error {
		w, err := m.WatchOOM()
		if err == nil {
			fd, read = w.FD(), w.Read
		}
		return err
	})
	return fd, read
}

// Stats are the figures as the engine knows them. Block device figures have the names of the Docker Engine API.
func (c groupControl) Stats() (model.Stats, error) {
	var s *cgroup.Stats
	if err := c.with(func(m *cgroup.Manager) (err error) { s, err = m.Stats(); return err }); err != nil {
		return model.Stats{}, err
	}
	m := model.Stats{
		CPU: model.CPUStats{Total: s.CPU.Usage, User: s.CPU.User, System: s.CPU.System, PerCPU: s.CPU.PerCPU,
			Periods: s.CPU.Periods, Throttled: s.CPU.ThrottledPeriods, ThrottledTime: s.CPU.Throttled},
		Memory: model.MemoryStats{Usage: s.Memory.Usage, MaxUsage: s.Memory.Peak, Limit: s.Memory.Limit,
			FailCount: s.Memory.FailCount, Stats: s.Memory.Detail},
		Pids: model.PidsStats{Current: s.Pids.Current, Limit: s.Pids.Limit},
	}
	if len(s.IO) > 0 {
		m.BlkIO = model.BlkIOStats{}
	}
	for _, d := range s.IO {
		add := func(list, op string, n uint64) {
			m.BlkIO[list] = append(m.BlkIO[list], model.BlkIOEntry{Major: d.Major, Minor: d.Minor, Op: op, Value: n})
		}
		add("io_service_bytes_recursive", "read", d.ReadBytes)
		add("io_service_bytes_recursive", "write", d.WriteBytes)
		add("io_serviced_recursive", "read", d.Reads)
		add("io_serviced_recursive", "write", d.Writes)
	}
	return m, nil
}
