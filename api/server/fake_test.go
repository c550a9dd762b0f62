package server

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/system"
	moby "github.com/moby/moby/client"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/observe/events"
)

// fake is a whole engine in memory. Its containers echo their input, print what Cmd says, and exit with 7.
type fake struct {
	mu     sync.Mutex
	byName map[string]*fakeContainer
	execs  map[string]*model.Exec
	bus    *events.Bus
	files  map[string][]byte // copied in, by path
	silent func(context.Context, model.Streams)
	last   any // the options of the last call that tests look at
}

type fakeContainer struct {
	model.Container
	started, exited chan struct{}
}

func newFake() *fake {
	return &fake{byName: map[string]*fakeContainer{}, execs: map[string]*model.Exec{}, files: map[string][]byte{}, bus: events.New(time.Now)}
}

// serve starts a server for the fake on a unix socket and gives a client and the socket's path.
func serve(t *testing.T, f *fake, opts ...moby.Opt) (*moby.Client, string) {
	t.Helper()
	path := listen(t, f)
	c, err := moby.New(append([]moby.Opt{moby.WithHost("unix://" + path)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, path
}

func (f *fake) backends() Backends {
	return Backends{Containers: f, Life: f, Streams: f, Files: f, Execs: f, Making: Making{Images: fakeImages{f}, Transfer: fakeImages{f}},
		Networks: fakeNetworks{f}, Volumes: fakeVolumes{f}, System: f, Events: f.bus}
}

// listen starts a server for the fake on a unix socket.
func listen(t testing.TB, f *fake) string {
	t.Helper()
	srv := New(Config{Version: "0.0-test", Backends: f.backends()})
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error("shutdown:", err)
		}
	})
	return path
}

func (f *fake) find(ref string) (*fakeContainer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, ok := f.byName[ref]; ok { // before the identifiers that happen to begin with it
		return c, nil
	}
	for _, c := range f.byName {
		if strings.HasPrefix(c.ID, ref) {
			return c, nil
		}
	}
	return nil, errs.New(errs.NotFound, "No such container: %s", ref)
}

func (f *fake) event(kind, action, id string, attrs map[string]string) {
	f.bus.Publish(model.Event{Type: kind, Action: action, ID: id, Attrs: attrs})
}

func (f *fake) Create(_ context.Context, r model.CreateRequest) (model.CreateResult, error) {
	if r.Image == "missing" {
		return model.CreateResult{}, errs.New(errs.NotFound, "No such image: missing:latest")
	}
	if r.Name == "" {
		r.Name = "brave_heron"
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byName[r.Name] != nil {
		return model.CreateResult{}, errs.New(errs.Conflict, "the container name %q is in use", r.Name)
	}
	c := &fakeContainer{started: make(chan struct{}), exited: make(chan struct{}), Container: model.Container{ID: ids.New(), Name: r.Name,
		Created: time.Now(), Spec: r.Spec, Image: model.ContainerImage{Ref: r.Image, ID: "sha256:1"}, State: model.State{Status: model.StatusCreated}}}
	if len(r.Spec.Process.Cmd) > 0 {
		c.Runtime.Path, c.Runtime.Args = r.Spec.Process.Cmd[0], r.Spec.Process.Cmd[1:]
	}
	f.byName[r.Name], f.last = c, r
	f.event("container", "create", c.ID, map[string]string{"name": c.Name, "image": r.Image})
	return model.CreateResult{ID: c.ID, Warnings: []string{"a warning"}}, nil
}

func (f *fake) List(_ context.Context, o model.ListOptions) ([]model.ContainerView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = o
	var out []model.ContainerView
	for _, c := range f.byName {
		if o.All || c.State.Alive() {
			out = append(out, model.ContainerView{Container: c.Container})
		}
	}
	return out, nil
}

func (f *fake) Inspect(_ context.Context, ref string, size bool) (model.ContainerView, error) {
	c, err := f.find(ref)
	if err != nil {
		return model.ContainerView{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	v := model.ContainerView{Container: c.Container}
	if size {
		v.Size = &model.ContainerSize{Writable: 1, RootFS: 2}
	}
	return v, nil
}

func (f *fake) Rename(_ context.Context, ref, name string) error {
	c, err := f.find(ref)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.byName, c.Name)
	c.Name, f.byName[name] = name, c
	return nil
}

func (f *fake) Update(_ context.Context, ref string, u model.UpdateRequest) ([]string, error) {
	f.last = u
	_, err := f.find(ref)
	return nil, err
}

func (f *fake) Remove(_ context.Context, ref string, o model.RemoveOptions) error {
	c, err := f.find(ref)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.State.Alive() && !o.Force {
		return errs.New(errs.Conflict, "container %s is running; stop it first or use force", ref)
	}
	delete(f.byName, c.Name)
	f.event("container", "destroy", c.ID, map[string]string{"name": c.Name})
	return nil
}

func (f *fake) Prune(_ context.Context, filters model.Filters) (model.PruneResult, error) {
	f.last = filters
	return model.PruneResult{Deleted: []string{"x"}, Reclaimed: 5}, nil
}

func (f *fake) Counts() (int, int, int) { return 1, 2, 3 }

func (f *fake) Start(_ context.Context, ref string) error {
	c, err := f.find(ref)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.State.Alive() {
		return errs.New(errs.NotModified, "already running")
	}
	c.State.Status, c.State.StartedAt = model.StatusRunning, time.Now()
	close(c.started)
	f.event("container", "start", c.ID, map[string]string{"name": c.Name, "image": c.Image.Ref})
	return nil
}

// exit ends a running container.
func (f *fake) exit(c *fakeContainer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.State.Alive() {
		c.State.Status, c.State.ExitCode, c.State.FinishedAt = model.StatusExited, 7, time.Now()
		close(c.exited)
		f.event("container", "die", c.ID, map[string]string{"name": c.Name, "exitCode": "7"})
	}
}

func (f *fake) Stop(_ context.Context, ref string, o model.StopOptions) error {
	c, err := f.find(ref)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.last = o
	alive := c.State.Alive()
	f.mu.Unlock()
	if !alive {
		return errs.New(errs.NotModified, "not running")
	}
	f.exit(c)
	return nil
}

func (f *fake) Restart(ctx context.Context, ref string, o model.StopOptions) error {
	f.last = o
	return nil
}

func (f *fake) Kill(ctx context.Context, ref, signal string) error {
	return f.Stop(ctx, ref, model.StopOptions{Signal: signal})
}
func (f *fake) Pause(ctx context.Context, ref string) error   { _, err := f.find(ref); return err }
func (f *fake) Unpause(ctx context.Context, ref string) error { _, err := f.find(ref); return err }

func (f *fake) Wait(ctx context.Context, ref string, cond model.WaitCondition) (<-chan model.WaitResult, error) {
	c, err := f.find(ref)
	if err != nil {
		return nil, err
	}
	out := make(chan model.WaitResult, 1)
	go func() {
		select {
		case <-c.exited:
			out <- model.WaitResult{ExitCode: 7}
		case <-ctx.Done():
		}
	}()
	return out, nil
}

func (f *fake) Logs(ctx context.Context, ref string, o model.LogOptions, emit func(model.LogEntry) error) error {
	f.last = o
	c, err := f.find(ref)
	if err != nil {
		return err
	}
	at := time.Unix(1700000000, 5).UTC()
	for i := range 1000 {
		if err := emit(model.LogEntry{Time: at, Data: fmt.Appendf(nil, "out %d\n", i), Attrs: map[string]string{"k": "v"}}); err != nil {
			return err
		}
	}
	emit(model.LogEntry{Time: at, Stderr: true, Partial: true, Data: []byte("err ")})
	emit(model.LogEntry{Time: at, Stderr: true, Data: []byte("end\n")})
	if o.Follow {
		select {
		case <-c.exited:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// talk is what attach and exec do: print, then echo the input until it ends.
func talk(st model.Streams, tty bool, cmd []string) {
	write := func(stderr bool, p []byte) {
		switch {
		case st.Raw == nil && stderr:
			st.Stderr.Write(p)
		case st.Raw == nil:
			st.Stdout.Write(p)
		case tty:
			st.Raw.Write(p)
		default:
			h := make([]byte, 8, 8+len(p))
			h[0] = 1
			if stderr {
				h[0] = 2
			}
			binary.BigEndian.PutUint32(h[4:], uint32(len(p)))
			st.Raw.Write(append(h, p...))
		}
	}
	write(false, []byte(strings.Join(cmd, " ")+"\n"))
	write(true, []byte("to stderr\n"))
	if st.Stdin != nil {
		buf := make([]byte, 4096)
		for {
			n, err := st.Stdin.Read(buf)
			if n > 0 {
				write(false, buf[:n])
			}
			if err != nil {
				return
			}
		}
	}
}

func (f *fake) Attach(ctx context.Context, ref string, o model.AttachOptions) error {
	c, err := f.find(ref)
	if err != nil {
		return err
	}
	f.last = o
	if c.Name == "refuses" {
		return errs.New(errs.Conflict, "cannot attach to a paused container")
	}
	st, err := o.Ready()
	if err != nil {
		return err
	}
	if f.silent != nil {
		f.silent(ctx, st)
		return ctx.Err()
	}
	select {
	case <-c.started:
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.Name == "fails" {
		return errs.New(errs.Internal, "the stream broke")
	}
	talk(st, c.Spec.Process.Tty, c.Spec.Process.Cmd)
	f.exit(c)
	return nil
}

func (f *fake) Resize(_ context.Context, ref string, h, w uint) error {
	f.last = [2]uint{h, w}
	_, err := f.find(ref)
	return err
}

func (f *fake) Stats(_ context.Context, ref string) (model.Stats, error) {
	c, err := f.find(ref)
	if err != nil {
		return model.Stats{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !c.State.Alive() {
		return model.Stats{}, errs.New(errs.Conflict, "not running")
	}
	return model.Stats{Read: time.Now(), CPU: model.CPUStats{Total: 1000, SystemTotal: 5000, Online: 2}, Memory: model.MemoryStats{Usage: 1 << 20, Limit: 1 << 30}, Pids: model.PidsStats{Current: 3}}, nil
}

func (f *fake) Top(_ context.Context, ref, args string) (model.TopResult, error) {
	return model.TopResult{Titles: []string{"PID", "CMD"}, Processes: [][]string{{"1", "x"}}}, nil
}

func (f *fake) Changes(context.Context, string) ([]model.Change, error) {
	return []model.Change{{Path: "/a", Kind: model.ChangeAdded}, {Path: "/b", Kind: model.ChangeDeleted}}, nil
}

func (f *fake) Export(_ context.Context, ref string, w io.Writer) error {
	w.Write(tarOf("etc/motd", strings.Repeat("hi", 100<<10)))
	if ref == "breaks" {
		return errs.New(errs.Internal, "the disk went away")
	}
	return nil
}

func tarOf(name, content string) []byte {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	tw.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o644})
	tw.Write([]byte(content))
	tw.Close()
	return b.Bytes()
}

func (f *fake) StatPath(_ context.Context, ref, path string) (model.PathStat, error) {
	if path == "/etc/motd" {
		return model.PathStat{Name: "motd", Size: 2, Mode: 0o644}, nil
	}
	if path == "/tmp" || path == "/" {
		return model.PathStat{Name: "tmp", Mode: 0o755 | 1<<31}, nil
	}
	return model.PathStat{}, errs.New(errs.NotFound, "Could not find the file %s in container %s", path, ref)
}

func (f *fake) CopyFrom(ctx context.Context, ref, path string) (io.ReadCloser, model.PathStat, error) {
	st, err := f.StatPath(ctx, ref, path)
	return io.NopCloser(bytes.NewReader(tarOf("motd", "hi"))), st, err
}

func (f *fake) CopyTo(_ context.Context, ref, path string, r io.Reader, noOverwrite, copyIDs bool) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return errs.As(errs.Invalid, err)
		}
		data, _ := io.ReadAll(tr)
		f.mu.Lock()
		f.files[path+"/"+h.Name] = data
		f.mu.Unlock()
	}
}

func (f *fake) Commit(_ context.Context, c model.CommitRequest) (string, error) {
	f.last = c
	return "sha256:c0ffee", nil
}

func (f *fake) ExecCreate(_ context.Context, ref string, s model.ExecSpec) (string, error) {
	c, err := f.find(ref)
	if err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	id := ids.New()
	f.execs[id] = &model.Exec{ID: id, ContainerID: c.ID, Spec: s}
	return id, nil
}

func (f *fake) ExecStart(_ context.Context, id string, o model.ExecStartOptions) error {
	f.mu.Lock()
	e := f.execs[id]
	f.mu.Unlock()
	if !o.Detach {
		st, err := o.Ready()
		if err != nil {
			return err
		}
		talk(st, e.Spec.Tty, e.Spec.Cmd)
	}
	code := 3
	f.mu.Lock()
	e.Started, e.ExitCode = true, &code
	f.mu.Unlock()
	return nil
}

func (f *fake) ExecResize(_ context.Context, id string, h, w uint) error { return nil }

func (f *fake) ExecInspect(_ context.Context, id string) (model.Exec, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.execs[id]; e != nil {
		return *e, nil
	}
	return model.Exec{}, errs.New(errs.NotFound, "No such exec instance: %s", id)
}

func (f *fake) Info(context.Context) (system.Info, error) {
	return system.Info{ID: "node", Name: "host", Driver: "overlay2", NCPU: 2, DefaultRuntime: "shoal"}, nil
}

func (f *fake) Version(context.Context) (system.VersionResponse, error) {
	return system.VersionResponse{Version: "0.0-test", KernelVersion: "6.18", GitCommit: "abc"}, nil
}
