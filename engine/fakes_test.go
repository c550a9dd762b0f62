package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/engine/ocispec"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// world is everything outside the engine: it outlives an engine that "dies".
type world struct {
	t    testing.TB
	root string
	fast string // a directory on tmpfs, for the benchmark

	mu       sync.Mutex
	faults   map[string]error // by "room.Method": what the next call returns
	images   map[string]model.Image
	users    map[string]string           // holder → image
	volumes  map[string]*fakeVolume      // by name
	attached map[string]NetworkAttach    // by container
	live     []string                    // containers that Restore was told of
	tasks    map[string]*fakeTask        // by container: running or ended and not cleared
	events   []model.Event               //
	passwd   map[string]string           // files of every root filesystem
	onStart  func(r TaskStart) *TaskExit // makes programs end at once
	onExec   func(x TaskExec) (int, string)
}

type fakeVolume struct {
	model.Volume
	users, mounts map[string]bool
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, faults: map[string]error{}, images: map[string]model.Image{}, users: map[string]string{},
		volumes: map[string]*fakeVolume{}, attached: map[string]NetworkAttach{}, tasks: map[string]*fakeTask{},
		passwd: map[string]string{"/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n", "/etc/group": "root:x:0:\nweb:x:33:\nlog:x:7:web\n"}}
	w.root = tempDir(t)
	w.images["busy"] = model.Image{ID: "sha256:" + strings.Repeat("ab", 32), RepoTags: []string{"busy:latest"}, Platform: model.Platform{OS: "linux", Architecture: "amd64"},
		Config: model.ImageConfig{Cmd: []string{"sh"}, Env: []string{"PATH=/bin", "A=image"}, Labels: map[string]string{"from": "image"}, ExposedPorts: []string{"80/tcp"}}}
	w.images["data"] = model.Image{ID: "sha256:" + strings.Repeat("cd", 32), RepoTags: []string{"data:latest"}, Platform: model.Platform{OS: "linux", Architecture: "amd64"},
		Config: model.ImageConfig{Cmd: []string{"db"}, Volumes: []string{"/data"}}}
	return w
}

// open starts an engine on the world.
func (w *world) open() *Engine {
	w.t.Helper()
	e, err := Open(context.Background(), Config{Root: filepath.Join(w.root, "lib"), ExecRoot: w.execRoot(), Hostname: "machine",
		Host: ocispec.Host{Size: ocispec.Size{CPUs: 4}, LastCap: 40, CgroupDev: true}},
		Ports{Images: fakeImages{w}, Networks: fakeNetworks{w}, Volumes: fakeVolumes{w}, Tasks: fakeTasks{w}, RootFS: fakeRoot{w}, Events: w},
		Defaults{Runtime: "shoal", Runtimes: []string{"shoal", "runc"}})
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// die ends an engine as SIGKILL would: nothing is written, nothing is told.
func (w *world) die(e *Engine) {
	e.closing.Store(true)
	for _, en := range e.index.all() {
		en.quiet()
	}
	e.cancel()
	e.background.Wait()
	e.records.Close()
}

func (w *world) fault(name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.faults[name]
	delete(w.faults, name)
	return err
}

func (w *world) Publish(e model.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

// actions lists the container events so far, and forgets them.
func (w *world) actions() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, e := range w.events {
		if e.Type == "container" {
			out = append(out, e.Action)
		}
	}
	w.events = nil
	return out
}

func (w *world) count(action string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, e := range w.events {
		if e.Action == action {
			n++
		}
	}
	return n
}

// task is the running fake of a container.
func (w *world) task(id string) *fakeTask {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tasks[id]
}

// empty fails the test when anything of any container is left.
func (w *world) empty(t testing.TB) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for what, n := range map[string]int{"image users": len(w.users), "networks": len(w.attached), "tasks": len(w.tasks)} {
		if n != 0 {
			t.Errorf("%d %s left", n, what)
		}
	}
	for name, v := range w.volumes {
		if len(v.users)+len(v.mounts) > 0 || v.Anonymous {
			t.Errorf("volume %s left: users %v, mounts %v", name, v.users, v.mounts)
		}
	}
	for _, where := range []string{filepath.Join(w.root, "lib"), w.execRoot()} {
		if dirs, _ := filepath.Glob(filepath.Join(where, "containers", "[0-9a-f]*")); len(dirs) != 0 {
			t.Errorf("%d container directories left in %s", len(dirs), where)
		}
	}
}

type fakeImages struct{ w *world }

func (f fakeImages) Resolve(_ context.Context, ref, _ string) (model.Image, error) {
	for _, img := range f.w.images {
		if strings.TrimSuffix(img.RepoTags[0], ":latest") == strings.TrimSuffix(ref, ":latest") || img.ID == ref {
			return img, f.w.fault("images.Resolve")
		}
	}
	return model.Image{}, errs.New(errs.NotFound, "No such image: %s", ref)
}
func (f fakeImages) Lowers(context.Context, string) ([]string, error) {
	return []string{"/images/busy"}, f.w.fault("images.Lowers")
}
func (f fakeImages) Use(_ context.Context, id, image string) error {
	if err := f.w.fault("images.Use"); err != nil {
		return err
	}
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.w.users[id] = image
	return nil
}
func (f fakeImages) Release(_ context.Context, id string) error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	delete(f.w.users, id)
	return nil
}
func (f fakeImages) Commit(_ context.Context, c model.ImageCommit) (string, error) {
	return "sha256:new", f.w.fault("images.Commit")
}
func (f fakeImages) Remove(_ context.Context, ref string, _ model.ImageRemoveOptions) ([]model.ImageDeletion, error) {
	return []model.ImageDeletion{{Untagged: ref}, {Deleted: "sha256:gone"}}, nil
}

type fakeNetworks struct{ w *world }

func (f fakeNetworks) Namespace(context.Context, *model.IDMaps) (*os.File, error) {
	if err := f.w.fault("networks.Namespace"); err != nil {
		return nil, err
	}
	return os.Open("/dev/null")
}
func (f fakeNetworks) Attach(_ context.Context, r NetworkAttach) (NetworkAttachment, error) {
	if err := f.w.fault("networks.Attach"); err != nil {
		return NetworkAttachment{}, err
	}
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if _, there := f.w.attached[r.ContainerID]; there {
		return NetworkAttachment{}, errs.New(errs.Conflict, "%s is attached already", r.ContainerID)
	}
	f.w.attached[r.ContainerID] = r
	out := NetworkAttachment{Endpoints: map[string]model.Endpoint{}, Ports: slices.Clone(r.Ports)}
	for name := range r.Endpoints {
		out.Endpoints[name] = model.Endpoint{ID: "ep-" + name, NetworkID: "net-" + name, Network: name, ContainerID: r.ContainerID,
			IPv4: netip.MustParsePrefix("172.17.0.2/16")}
	}
	for i := range out.Ports {
		if out.Ports[i].HostPort == 0 {
			out.Ports[i].HostPort = 32768
		}
	}
	return out, nil
}
func (f fakeNetworks) Connect(_ context.Context, r NetworkAttach) (NetworkAttachment, error) {
	out := NetworkAttachment{Endpoints: map[string]model.Endpoint{}}
	for name := range r.Endpoints {
		out.Endpoints[name] = model.Endpoint{ID: "ep-" + name, NetworkID: "net-" + name, Network: name, ContainerID: r.ContainerID}
	}
	return out, f.w.fault("networks.Connect")
}
func (f fakeNetworks) Detach(_ context.Context, id, network string) error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if network == "" {
		delete(f.w.attached, id)
	}
	return nil
}
func (f fakeNetworks) Restore(_ context.Context, live []NetworkLive) error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	keep := map[string]NetworkAttach{}
	f.w.live = nil
	for _, l := range live {
		if len(l.State.Endpoints) == 0 {
			f.w.t.Errorf("container %s runs and its endpoints are not known any more", l.Attach.ContainerID)
		}
		keep[l.Attach.ContainerID] = l.Attach
		f.w.live = append(f.w.live, l.Attach.ContainerID)
	}
	f.w.attached = keep
	return nil
}
func (f fakeNetworks) Files(n NameFiles) (hosts, resolv []byte, err error) {
	for name, ep := range n.Endpoints {
		hosts = fmt.Appendf(hosts, "%s %s # %s\n", ep.IPv4.Addr(), n.Hostname, name)
	}
	return hosts, []byte("nameserver 192.0.2.53\n"), f.w.fault("networks.Files")
}
func (f fakeNetworks) Resolve(_ context.Context, ref string) (model.Network, error) {
	if strings.HasPrefix(ref, "missing") {
		return model.Network{}, errs.New(errs.NotFound, "network %s not found", ref)
	}
	name := strings.TrimPrefix(ref, "net-")
	return model.Network{ID: "net-" + name, NetworkSpec: model.NetworkSpec{Name: name, Driver: "bridge"}}, nil
}
func (f fakeNetworks) Remove(context.Context, string) error { return nil }

type fakeVolumes struct{ w *world }

func (f fakeVolumes) Create(_ context.Context, v model.Volume) (model.Volume, error) {
	if err := f.w.fault("volumes.Create"); err != nil {
		return v, err
	}
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if old := f.w.volumes[v.Name]; old != nil {
		return old.Volume, nil
	}
	v.Mountpoint = "/volumes/" + v.Name
	f.w.volumes[v.Name] = &fakeVolume{v, map[string]bool{}, map[string]bool{}}
	return v, nil
}
func (f fakeVolumes) get(name string) (*fakeVolume, error) {
	if v := f.w.volumes[name]; v != nil {
		return v, nil
	}
	return nil, errs.New(errs.NotFound, "no such volume: %s", name)
}
func (f fakeVolumes) Inspect(_ context.Context, name string) (model.Volume, error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	v, err := f.get(name)
	if err != nil {
		return model.Volume{}, err
	}
	return v.Volume, nil
}
func (f fakeVolumes) change(name string, do func(*fakeVolume)) error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	v, err := f.get(name)
	if err == nil {
		do(v)
	}
	return err
}
func (f fakeVolumes) Use(_ context.Context, name, id string, mounted bool) error {
	return f.change(name, func(v *fakeVolume) {
		v.users[id] = true
		if mounted {
			v.mounts[id] = true
		}
	})
}
func (f fakeVolumes) Release(_ context.Context, name, id string) error {
	return f.change(name, func(v *fakeVolume) { delete(v.users, id) })
}
func (f fakeVolumes) Mount(_ context.Context, name, id string) (model.VolumeMount, error) {
	if err := f.w.fault("volumes.Mount"); err != nil {
		return model.VolumeMount{}, err
	}
	return model.VolumeMount{Type: "bind", Source: "/volumes/" + name}, f.change(name, func(v *fakeVolume) { v.mounts[id] = true })
}
func (f fakeVolumes) Unmount(_ context.Context, name, id string) error {
	return f.change(name, func(v *fakeVolume) { delete(v.mounts, id) })
}
func (f fakeVolumes) Fill(context.Context, string, []string, string, string) error {
	return f.w.fault("volumes.Fill")
}
func (f fakeVolumes) Remove(_ context.Context, name string, force bool) error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	v, err := f.get(name)
	if err != nil {
		return err
	}
	if len(v.users) > 0 {
		return errs.New(errs.Conflict, "volume in use")
	}
	delete(f.w.volumes, name)
	return nil
}

type fakeTasks struct{ w *world }

func (f fakeTasks) Start(_ context.Context, r TaskStart) (Task, error) {
	if err := f.w.fault("tasks.Start"); err != nil {
		return nil, err
	}
	if r.Namespace != nil {
		if _, err := r.Namespace(); err != nil {
			return nil, err
		}
	}
	t := &fakeTask{w: f.w, id: r.Container.ID, spec: r.Spec, done: make(chan struct{})}
	f.w.mu.Lock()
	if f.w.tasks[t.id] != nil {
		f.w.mu.Unlock()
		return nil, errors.New("started twice")
	}
	f.w.tasks[t.id] = t
	onStart := f.w.onStart
	f.w.mu.Unlock()
	if err := r.Created(t); err != nil {
		t.forget()
		return nil, err
	}
	if err := f.w.fault("tasks.Running"); err != nil {
		t.end(0) // its connections end with it
		t.forget()
		return nil, err
	}
	t.started = time.Now()
	if onStart != nil {
		if exit := onStart(r); exit != nil {
			t.end(exit.Code)
		}
	}
	return t, nil
}
func (f fakeTasks) Reattach(_ context.Context, id string) (Task, *TaskExit, error) {
	if err := f.w.fault("tasks.Reattach"); err != nil {
		return nil, nil, err
	}
	t := f.w.task(id)
	switch {
	case t == nil:
		return nil, nil, nil
	case t.started.IsZero():
		t.forget() // half a start
		return nil, nil, nil
	case ended(t):
		exit := t.Exit()
		return nil, &exit, nil
	}
	return t, nil, nil
}
func (f fakeTasks) Known() ([]string, error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	var out []string
	for id := range f.w.tasks {
		out = append(out, id)
	}
	return out, nil
}
func (f fakeTasks) Clear(_ context.Context, id string) error {
	t := f.w.task(id)
	if t != nil && !ended(t) {
		return errors.New("cleared while it runs")
	}
	if t != nil {
		t.forget()
	}
	return nil
}
func (f fakeTasks) ValidateLog(c model.LogConfig) error {
	if c.Driver == "bogus" {
		return errs.New(errs.Invalid, "unknown log driver")
	}
	return nil
}
func (f fakeTasks) ReadLog(_ context.Context, src LogSource, _ model.LogOptions, emit func(model.LogEntry) error) error {
	return emit(model.LogEntry{Data: []byte("before\n")})
}

type fakeTask struct {
	w       *world
	id      string
	spec    *specs.Spec
	started time.Time

	mu        sync.Mutex
	done      chan struct{}
	exit      TaskExit
	ignores   bool // signals other than SIGKILL
	frozen    bool
	signals   []int
	updated   *specs.LinuxResources
	conns     []*fakeConn
	oom       []func()
	killedX   []string
	execHangs atomic.Bool
}

func (t *fakeTask) forget() {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	delete(t.w.tasks, t.id)
}

// end makes the program end.
func (t *fakeTask) end(code int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ended(t) {
		return
	}
	t.exit = TaskExit{Code: code, At: time.Now().UnixNano()}
	for _, c := range t.conns {
		c.out.Close()
	}
	close(t.done)
}

func (t *fakeTask) Info() TaskInfo {
	t.mu.Lock()
	defer t.mu.Unlock()
	return TaskInfo{Pid: os.Getpid(), StartedAt: t.started.UnixNano(), Paused: t.frozen}
}
func (t *fakeTask) Done() <-chan struct{} { return t.done }
func (t *fakeTask) Exit() TaskExit        { return t.exit }
func (t *fakeTask) Signal(_ context.Context, sig int, _ bool) error {
	t.mu.Lock()
	t.signals = append(t.signals, sig)
	deadly := sig == sigKill || sig == 15 && !t.ignores && !t.frozen
	t.mu.Unlock()
	if deadly {
		t.end(128 + sig)
	}
	return nil
}
func (t *fakeTask) Freeze(_ context.Context, frozen bool) error {
	if err := t.w.fault("task.Freeze"); err != nil {
		return err
	}
	t.mu.Lock()
	t.frozen = frozen
	pending := !frozen && slices.Contains(t.signals, 15)
	t.mu.Unlock()
	if pending {
		t.end(143)
	}
	return nil
}
func (t *fakeTask) Update(_ context.Context, r *specs.LinuxResources) error {
	t.updated = r
	return t.w.fault("task.Update")
}
func (t *fakeTask) Streams() TaskStreams                       { return t }
func (t *fakeTask) Figures() TaskFigures                       { return t }
func (t *fakeTask) Stats(context.Context) (model.Stats, error) { return model.Stats{}, nil }
func (t *fakeTask) Pids(context.Context) ([]int, error)        { return []int{os.Getpid()}, nil }
func (t *fakeTask) OnOOM(f func())                             { t.oom = append(t.oom, f) }
func (t *fakeTask) Attach(context.Context, bool, bool, bool) (Conn, error) {
	c := newFakeConn()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conns = append(t.conns, c)
	return c, t.w.fault("task.Attach")
}
func (t *fakeTask) Resize(context.Context, string, uint, uint) error { return nil }
func (t *fakeTask) SignalExec(_ context.Context, id string, _ int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.killedX = append(t.killedX, id)
	return nil
}
func (t *fakeTask) Exec(_ context.Context, x TaskExec) (ExecProcess, error) {
	if err := t.w.fault("task.Exec"); err != nil {
		return ExecProcess{}, err
	}
	c := newFakeConn()
	done := make(chan struct{})
	exit := TaskExit{}
	p := ExecProcess{Pid: 4242, Conn: c, Done: done, Exit: func() TaskExit { return exit }}
	if t.execHangs.Load() {
		return p, nil
	}
	text := ""
	if t.w.onExec != nil {
		exit.Code, text = t.w.onExec(x)
	}
	go func() {
		if text != "" {
			c.out.Write(append([]byte{1, 0, 0, 0, 0, 0, 0, byte(len(text))}, text...))
		}
		c.out.Close()
	}()
	close(done)
	return p, nil
}

// fakeConn is a connection whose output the test writes and whose input the test reads.
type fakeConn struct {
	r   *io.PipeReader
	out *io.PipeWriter
	in  *io.PipeReader
	w   *io.PipeWriter
}

func newFakeConn() *fakeConn {
	c := &fakeConn{}
	c.r, c.out = io.Pipe()
	c.in, c.w = io.Pipe()
	return c
}
func (c *fakeConn) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c *fakeConn) Write(p []byte) (int, error) { return c.w.Write(p) }
func (c *fakeConn) CloseWrite() error           { return c.w.Close() }
func (c *fakeConn) Close() error                { c.w.Close(); return c.r.Close() }

type fakeRoot struct{ w *world }

func (f fakeRoot) Stat(_ context.Context, _ RootView, path string) (model.PathStat, error) {
	return model.PathStat{}, errs.New(errs.NotFound, "nothing at %s", path)
}
func (f fakeRoot) CopyFrom(context.Context, RootView, string) (io.ReadCloser, model.PathStat, error) {
	return io.NopCloser(strings.NewReader("")), model.PathStat{}, nil
}
func (f fakeRoot) CopyTo(context.Context, RootView, string, io.Reader, CopyToOptions) error {
	return nil
}
func (f fakeRoot) Export(context.Context, RootView, io.Writer) error { return nil }
func (f fakeRoot) Changes(context.Context, model.OverlayDirs) ([]model.Change, error) {
	return nil, nil
}
func (f fakeRoot) Size(context.Context, model.OverlayDirs, bool) (model.ContainerSize, error) {
	return model.ContainerSize{Writable: 5}, nil
}
func (f fakeRoot) ReadFile(_ context.Context, _ model.OverlayDirs, path string, _ int64) ([]byte, error) {
	if text, ok := f.w.passwd[path]; ok {
		return []byte(text), f.w.fault("rootfs.ReadFile")
	}
	return nil, errs.New(errs.NotFound, "no %s", path)
}
func (f fakeRoot) SharedMemory(string, int64) error { return f.w.fault("rootfs.SharedMemory") }

// tempDir is a directory on tmpfs where there is one: some disks take a millisecond for every new file.
func tempDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "shoal-engine-test")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// pass lets time go by, which in a test's bubble takes none, and all that falls due happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// execRoot is where the engine keeps what a restart of the machine may take.
func (w *world) execRoot() string {
	if w.fast != "" {
		return w.fast
	}
	return filepath.Join(w.root, "run")
}
