package engine

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/lib/undo"
	"github.com/shoalhq/shoal/model"
)

// Start runs a container. NotModified when it runs already.
func (e *Engine) Start(ctx context.Context, ref string) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	if err := en.enter(ctx); err != nil {
		return err
	}
	defer en.leave()
	return e.startByUser(ctx, en)
}

// startByUser is Start for whoever holds the gate.
func (e *Engine) startByUser(ctx context.Context, en *entry) error {
	c := en.get()
	switch c.State.Status {
	case model.StatusRunning:
		return errs.New(errs.NotModified, "container %s is already running", c.Name)
	case model.StatusPaused:
		return errs.New(errs.Conflict, "cannot start a paused container, try unpause instead: unpause %s", c.Name)
	case model.StatusRemoving, model.StatusDead:
		return errs.New(errs.Conflict, "container %s is marked for removal and cannot be started", c.Name)
	}
	en.quiet() // a restart that is due is overtaken
	en.edit(func(c *model.Container) { c.State.UserStopped, c.State.RestartCount = false, 0 })
	// A client that goes away must not leave a half-started container: from here on the start runs to its end.
	err := e.start(context.WithoutCancel(ctx), en)
	if err != nil && c.Spec.Options.AutoRemove {
		if rerr := e.removeLocked(context.WithoutCancel(ctx), en, model.RemoveOptions{Volumes: true}); rerr != nil {
			e.cfg.Log.Warn("a container that did not start could not be removed", "container", c.ID, "error", rerr)
		}
	}
	return err
}

// start runs a container that does not run; the caller holds the gate. When it fails, nothing of the start is left and
// the record tells the reason.
func (e *Engine) start(ctx context.Context, en *entry) error {
	c := en.get()
	gate := en.takeStartGate()
	task, att, err := e.launch(ctx, en, c, gate)
	if err != nil {
		err = errs.Wrap(err, "cannot start container %s", c.Name)
		gate.fail(err)
		e.startFailed(en, err)
		return err
	}
	info := task.Info()
	started := time.Unix(0, info.StartedAt).UTC()
	run := en.begin(task)
	en.edit(func(c *model.Container) {
		c.State.Status, c.State.Pid, c.State.StartedAt = model.StatusRunning, info.Pid, started
		c.State.ExitCode, c.State.Error, c.State.OOMKilled = 0, "", false
		c.State.Health = initialHealth(c.Spec.Health)
		c.Network = att
	})
	e.saveLater(en)
	e.publish(c, "start", nil)
	e.watch(en, task, run)
	return nil
}

// begin notes the task of a new run and returns the run's number.
func (en *entry) begin(t Task) uint64 {
	en.mu.Lock()
	defer en.mu.Unlock()
	en.task = t
	en.runs++
	return en.runs
}

// watch waits for the end of the run, for out-of-memory kills, and keeps the health check going.
func (e *Engine) watch(en *entry, t Task, run uint64) {
	t.Figures().OnOOM(func() {
		if en.running() != t {
			return // the end has told
		}
		en.edit(func(c *model.Container) { c.State.OOMKilled = true })
		e.publish(en.get(), "oom", nil)
	})
	e.startHealth(en, t, run)
	go func() {
		select {
		case <-t.Done():
			e.exited(en, t, run)
		case <-e.ctx.Done(): // the daemon ends, the container does not
		}
	}()
}

// startFailed records why a start failed.
func (e *Engine) startFailed(en *entry, err error) {
	code := 128
	var failure *StartFailure
	if errors.As(err, &failure) {
		code = failure.Code
	}
	en.edit(func(c *model.Container) {
		if c.State.Status != model.StatusCreated {
			c.State.Status = model.StatusExited
			c.State.FinishedAt = e.now()
		}
		c.State.ExitCode, c.State.Error, c.State.Pid = code, err.Error(), 0
		c.Network.SandboxKey, c.Network.Ports, c.Network.Endpoints = "", nil, nil
	})
	e.saveLater(en)
}

// launch does what a start consists of. The network is prepared while the supervisor and the container's init come up;
// the two meet in Created, before the container's program runs.
func (e *Engine) launch(ctx context.Context, en *entry, c *model.Container, gate *startGate) (Task, model.NetworkState, error) {
	var u undo.Stack
	defer u.Run()
	phases := newPhases(e)
	defer phases.log(c)
	if err := failpoint.Hit("engine/start/begin"); err != nil {
		return nil, model.NetworkState{}, err
	}
	net := e.prepareNetwork(ctx, c)
	u.Add(net.undo)
	c, err := e.makeNameFiles(en)
	if err != nil {
		return nil, model.NetworkState{}, err
	}
	plan, err := e.plan(ctx, c, u.Add)
	if err != nil {
		return nil, model.NetworkState{}, err
	}
	phases.done("planned")
	if err := failpoint.Hit("engine/start/prepared"); err != nil {
		return nil, model.NetworkState{}, err
	}
	request := TaskStart{Container: c, Spec: plan.spec, Root: plan.root, Log: e.logTarget(c), Runtime: c.Runtime.Name}
	if c.Spec.Network.Mode != model.NetworkHost {
		request.Namespace = net.namespace
	}
	var state model.NetworkState
	request.Created = func(t Task) error {
		phases.done("created")
		var err error
		if state, err = net.attached(t.Info().Pid); err != nil {
			return err
		}
		phases.done("attached")
		if err := e.writeNameFiles(c, state); err != nil {
			return err
		}
		// From the next step on the container may run though the daemon dies: what the supervisor cannot tell, the
		// addresses and ports, must be on disk by then.
		en.edit(func(c *model.Container) { c.Network = state })
		if err := e.records.SaveNetwork(en.get()); err != nil {
			return err
		}
		e.tellLinked(c.ID)
		if err := failpoint.Hit("engine/start/created"); err != nil {
			return err
		}
		return gate.attach(ctx, t)
	}
	task, err := e.ports.Tasks.Start(ctx, request)
	phases.done("running")
	if err != nil {
		var failure *StartFailure
		if errors.As(err, &failure) {
			switch errs.KindOf(err) {
			case errs.Internal, errs.NotFound, errs.Forbidden: // of the program: "not found" would mean that there is no such container
				err = errs.As(errs.Invalid, err)
			}
		}
		return nil, state, err
	}
	u.Release()
	net.close()
	return task, state, nil
}

// phases tells in the debug log how long the parts of a start took.
type phases struct {
	e     *Engine
	on    bool
	began time.Time
	list  []any
}

func newPhases(e *Engine) *phases {
	return &phases{e: e, on: e.cfg.Log.Enabled(e.ctx, slog.LevelDebug), began: time.Now()}
}

func (p *phases) done(name string) {
	if p.on {
		p.list = append(p.list, name, time.Since(p.began))
	}
}

func (p *phases) log(c *model.Container) {
	if p.on {
		p.e.cfg.Log.Debug("start of a container: time until", append([]any{"container", c.Name}, p.list...)...)
	}
}

// connection is the network of a container that is being started.
type connection struct {
	e    *Engine
	c    *model.Container
	join Task // the container whose network is shared

	nsReady  chan struct{} // closed when ns or nsErr is there
	ns       *os.File
	nsErr    error
	attReady chan struct{} // closed when att or attErr is there
	att      NetworkAttachment
	attErr   error
	told     bool // the event
}

// prepareNetwork begins to make the container's network, and returns at once.
func (e *Engine) prepareNetwork(ctx context.Context, c *model.Container) *connection {
	n := &connection{e: e, c: c, nsReady: make(chan struct{}), attReady: make(chan struct{})}
	mode := e.startMode(&c.Spec.Network)
	if id, join := strings.CutPrefix(mode, "container:"); join {
		n.ns, n.nsErr = e.joinNetwork(id)
		n.attErr = n.nsErr
		close(n.nsReady)
		close(n.attReady)
		return n
	}
	if mode == model.NetworkHost {
		n.att.Endpoints, n.attErr = e.plainEndpoint(ctx, c, mode)
		close(n.nsReady)
		close(n.attReady)
		return n
	}
	go func() {
		defer close(n.attReady)
		n.ns, n.nsErr = e.ports.Networks.Namespace(ctx, e.idMaps(c))
		close(n.nsReady)
		switch {
		case n.nsErr != nil:
			n.attErr = n.nsErr
		case mode == model.NetworkNone:
			n.att.Endpoints, n.attErr = e.plainEndpoint(ctx, c, mode)
		default:
			n.att, n.attErr = e.ports.Networks.Attach(ctx, e.networkAttach(c, n.ns))
		}
	}()
	return n
}

// plainEndpoint is what inspect shows of the networks host and none, which have no addresses.
func (e *Engine) plainEndpoint(ctx context.Context, c *model.Container, name string) (map[string]model.Endpoint, error) {
	ep := model.Endpoint{ID: ids.New(), Network: name, ContainerID: c.ID, Spec: c.Spec.Network.Endpoints[name]}
	if nw, err := e.ports.Networks.Resolve(ctx, name); err == nil {
		ep.NetworkID = nw.ID
	}
	return map[string]model.Endpoint{name: ep}, nil
}

// joinNetwork opens the network namespace of another container, and makes sure that it is still that container's.
func (e *Engine) joinNetwork(id string) (*os.File, error) {
	t, pid, err := e.joinTask(id, "network")
	if err != nil {
		return nil, err
	}
	f, err := os.Open(nsPath(pid, "net"))
	if err != nil {
		return nil, errs.Wrap(err, "cannot join the network of container %s", ids.Short(id))
	}
	select {
	case <-t.Done(): // the number may be another process's by now
		f.Close()
		return nil, errs.New(errs.Conflict, "cannot join network of a non running container: %s", ids.Short(id))
	default:
		return f, nil
	}
}

// joinTask is the running container whose namespace is joined.
func (e *Engine) joinTask(id, what string) (Task, int, error) {
	en, err := e.find(id)
	if err != nil {
		return nil, 0, errs.Wrap(err, "cannot join the %s namespace", what)
	}
	t := en.running()
	if t == nil {
		return nil, 0, errs.New(errs.Conflict, "cannot join %s of a non running container: %s; start it first", what, en.get().Name)
	}
	return t, t.Info().Pid, nil
}

// namespace waits for the namespace.
func (n *connection) namespace() (*os.File, error) {
	<-n.nsReady
	return n.ns, errs.Wrap(n.nsErr, "network")
}

// attached waits for the addresses and ports.
func (n *connection) attached(pid int) (model.NetworkState, error) {
	<-n.attReady
	if n.attErr != nil {
		return model.NetworkState{}, errs.Wrap(n.attErr, "network")
	}
	n.told = true
	state := model.NetworkState{Endpoints: n.att.Endpoints, Ports: n.att.Ports, SandboxID: n.c.ID, SandboxKey: nsPath(pid, "net")}
	if strings.HasPrefix(n.c.Spec.Network.Mode, "container:") {
		state.SandboxID, state.Endpoints = "", nil
	}
	for _, ep := range state.Endpoints {
		n.e.publishNetwork("connect", n.c.ID, ep, n.e.driverOf(ep))
	}
	return state, nil
}

// undo takes the connection back.
func (n *connection) undo() {
	<-n.attReady
	if n.needsDetach() {
		if err := n.e.ports.Networks.Detach(context.WithoutCancel(n.e.ctx), n.c.ID, ""); err != nil {
			n.e.cfg.Log.Warn("the network of a container that did not start could not be taken back", "container", n.c.ID, "error", err)
		}
		if n.told {
			for _, ep := range n.att.Endpoints {
				n.e.publishNetwork("disconnect", n.c.ID, ep, n.e.driverOf(ep))
			}
		}
	}
	n.close()
}

func (n *connection) needsDetach() bool { return attachesNetwork(n.c) }

// close closes the engine's hold of the namespace; the container has its own.
func (n *connection) close() {
	if n.ns != nil {
		n.ns.Close()
		n.ns = nil
	}
}

// attachesNetwork says whether the container has endpoints of its own.
func attachesNetwork(c *model.Container) bool {
	mode := c.Spec.Network.Mode
	return mode != model.NetworkHost && mode != model.NetworkNone && !strings.HasPrefix(mode, "container:")
}
