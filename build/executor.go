package build

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	ctdoci "github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/continuity/fs"
	buildexec "github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
	resources "github.com/moby/buildkit/executor/resources/types"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/solver/llbsolver/cdidevices"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/undo"
)

// executor runs build steps as containers of our runtime: default capabilities, system call filter and masks, a cgroup and
// a network of their own. A step lives in the directory ExecRoot/ID; all of it is gone when Run returns.
type executor struct {
	cfg Config

	mu      sync.Mutex
	running map[string]*step
	steps   sync.WaitGroup
}

// step is a container that is being made or runs.
type step struct {
	id      string
	rootfs  string
	process *specs.Process // as it was started, for Exec
	begun   chan struct{}  // closed when the program runs
	ended   chan struct{}  // closed when the step is over
}

func newExecutor(cfg Config) *executor {
	return &executor{cfg: cfg, running: map[string]*step{}}
}

// wait returns when no step is left; their contexts have been cancelled.
func (e *executor) wait() { e.steps.Wait() }

// Run runs one step until its program has ended. An exit code that the step does not allow is a *gatewayapi.ExitError.
func (e *executor) Run(ctx context.Context, id string, root buildexec.Mount, mounts []buildexec.Mount, p buildexec.ProcessInfo, started chan<- struct{}) (_ resources.Recorder, err error) {
	e.steps.Add(1)
	defer e.steps.Done()
	var once sync.Once
	begin := func() {
		if started != nil {
			once.Do(func() { close(started) })
		}
	}
	defer begin()
	if id == "" {
		id = identity.NewID()
	}
	if err := buildexec.ValidContainerID(id); err != nil {
		return nil, err
	}
	if err := allowed(p.Meta, e.cfg.Policy().Entitlements); err != nil {
		return nil, err
	}
	s, err := e.enter(id)
	if err != nil {
		return nil, err
	}
	defer e.leave(s)
	var u undo.Stack
	defer u.Run()
	if err := e.prepare(ctx, s, root, mounts, p.Meta, &u); err != nil {
		return nil, err
	}
	if err := failpoint.Hit("build/step/prepared"); err != nil {
		return nil, err
	}
	code, err := e.run(ctx, s, p, func() {
		close(s.begun)
		begin()
	})
	return nil, exitError(ctx, code, err, p.Meta.ValidExitCodes)
}

// allowed is a second barrier behind BuildKit's own: no front end gets what the administrator gives to no build.
func allowed(meta buildexec.Meta, granted []string) error {
	for what, asked := range map[string]bool{
		"security.insecure": meta.SecurityMode != pb.SecurityMode_SANDBOX,
		"network.host":      meta.NetMode == pb.NetMode_HOST,
		"device":            len(meta.CDIDevices) > 0,
	} {
		if asked && !slices.Contains(granted, what) {
			return errs.New(errs.Forbidden, "build step: %s is not allowed on this engine; build without it", what)
		}
	}
	return nil
}

func (e *executor) enter(id string) (*step, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running[id] != nil {
		return nil, errs.New(errs.Conflict, "build step %s already runs", id)
	}
	s := &step{id: id, begun: make(chan struct{}), ended: make(chan struct{})}
	e.running[id] = s
	return s, nil
}

func (e *executor) leave(s *step) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.running, s.id)
	close(s.ended)
}

func (e *executor) dir(id string) string { return filepath.Join(e.cfg.ExecRoot, id) }

// prepare makes the step's directory, network, root filesystem and configuration; u takes them back.
func (e *executor) prepare(ctx context.Context, s *step, root buildexec.Mount, mounts []buildexec.Mount, meta buildexec.Meta, u *undo.Stack) error {
	dir := e.dir(s.id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return errs.Wrap(err, "make the directory of a build step")
	}
	u.Add(func() { os.RemoveAll(dir) })
	plain := context.WithoutCancel(ctx)
	joined, err := e.join(ctx, s.id, meta.Hostname, meta.NetMode)
	if err != nil {
		return errs.Wrap(err, "network of a build step")
	}
	u.Add(func() { e.cfg.Networks.Leave(plain, joined) })
	if err := e.nameFiles(dir, joined, meta); err != nil {
		return errs.Wrap(err, "names of a build step")
	}
	process, files, err := e.label(meta, u)
	if err != nil {
		return errs.Wrap(err, "SELinux labels of a build step")
	}
	if err = mountRoot(ctx, s, dir, files, root, u); err != nil {
		return errs.Wrap(err, "root filesystem of a build step")
	}
	if err := failpoint.Hit("build/step/mounted"); err != nil {
		return err
	}
	u.Add(buildexec.MountStubsCleaner(plain, s.rootfs, mounts, meta.RemoveMountStubsRecursive))
	spec, cleanup, err := e.spec(ctx, s, mounts, meta, netNamespace{joined, meta.NetMode})
	if err != nil {
		return err
	}
	u.Add(cleanup)
	spec.Root.Readonly = spec.Root.Readonly || root.Readonly
	spec.Process.SelinuxLabel, spec.Linux.MountLabel = process, files
	if err := e.remap(s, spec, joined, meta.NetMode, u); err != nil {
		return err
	}
	s.process = spec.Process
	data, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600)
}

// nameFiles writes /etc/hosts and /etc/resolv.conf.
func (e *executor) nameFiles(dir string, j Joined, meta buildexec.Meta) error {
	var extra []string
	for _, h := range meta.ExtraHosts {
		extra = append(extra, h.Host+":"+h.IP.String())
	}
	hosts, resolvConf, err := e.cfg.Networks.Files(j, meta.NetMode == pb.NetMode_HOST, meta.Hostname, extra)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "hosts"), hosts, 0o644), os.WriteFile(filepath.Join(dir, "resolv.conf"), resolvConf, 0o644))
}

// label is that of the step's processes, and that of its files; none without SELinux.
func (e *executor) label(meta buildexec.Meta, u *undo.Stack) (process, files string, err error) {
	if e.cfg.Confine.Labels == nil {
		return "", "", nil
	}
	var options []string
	if meta.SecurityMode == pb.SecurityMode_INSECURE {
		options = []string{"disable"}
	}
	process, files, err = e.cfg.Confine.Labels.New(options)
	if err == nil && process != "" {
		u.Add(func() { e.cfg.Confine.Labels.Release(process) })
	}
	return process, files, err
}

func mountRoot(ctx context.Context, s *step, dir, label string, root buildexec.Mount, u *undo.Stack) error {
	src, err := root.Src.Mount(ctx, false)
	if err != nil {
		return err
	}
	list, release, err := src.Mount()
	if err != nil {
		return err
	}
	if release != nil {
		u.Add(func() { release() })
	}
	if len(list) == 1 && list[0].Type == "bind" { // BuildKit has mounted it already
		s.rootfs = list[0].Source
		return nil
	}
	path := filepath.Join(dir, "rootfs")
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	for i := range list {
		if label != "" {
			list[i].Options = append(slices.Clone(list[i].Options), "context="+strconv.Quote(label))
		}
	}
	if err := mount.All(list, path); err != nil {
		return err
	}
	u.Add(func() { mount.UnmountAll(path, 0) })
	s.rootfs = path
	return nil
}

// spec is the step's OCI configuration.
func (e *executor) spec(ctx context.Context, s *step, mounts []buildexec.Mount, meta buildexec.Meta, ns netNamespace) (*specs.Spec, func(), error) {
	who, err := userOf(s.rootfs, meta.User)
	if err != nil {
		return nil, nil, errs.New(errs.Invalid, "build step: user %q: %w", meta.User, err)
	}
	opts := []ctdoci.SpecOpts{oci.WithUIDGID(who.UID, who.GID, who.AdditionalGids)}
	if meta.ReadonlyRootFS {
		opts = append(opts, ctdoci.WithRootFSReadonly())
	}
	if err := makeCwd(s.rootfs, meta.Cwd, int(who.UID), int(who.GID)); err != nil {
		return nil, nil, err
	}
	dir := e.dir(s.id)
	spec, cleanup, err := oci.GenerateSpec(ctx, meta, mounts, s.id, filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "hosts"), stepNetwork{ns},
		"", oci.ProcessSandbox, nil, e.cfg.Confine.AppArmor, false, "", e.devices(), opts...)
	if err != nil {
		return nil, nil, err
	}
	spec.Root.Path = s.rootfs
	spec.Linux.CgroupsPath = e.cgroup(s.id, meta.CgroupParent)
	spec.Process.Terminal = meta.Tty
	return spec, cleanup, nil
}

// devices reads the descriptions of devices as they are now.
func (e *executor) devices() *cdidevices.Manager {
	cache, err := e.cfg.Devices()
	if err != nil {
		e.cfg.Log.Warn("some descriptions of devices cannot be read", "reason", err)
	}
	return cdidevices.NewManager(cache, nil)
}

// cgroup is beside those of containers.
func (e *executor) cgroup(id, parent string) string {
	for _, p := range []string{parent, e.cfg.CgroupParent} {
		if p != "" {
			return filepath.Join("/", p, id)
		}
	}
	return filepath.Join("/shoal", id)
}

// makeCwd makes the working directory where the image has none, inside the root filesystem whatever its links say.
func makeCwd(rootfs, cwd string, uid, gid int) error {
	path, err := fs.RootPath(rootfs, cwd)
	if err != nil {
		return errs.New(errs.Invalid, "build step: working directory %s: %w", cwd, err)
	}
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return errs.Wrap(user.MkdirAllAndChown(path, 0o755, uid, gid), "make working directory %s", cwd)
}

// run starts the runtime in the foreground and waits for it. It returns the program's exit code.
func (e *executor) run(ctx context.Context, s *step, p buildexec.ProcessInfo, begun func()) (int, error) {
	dir := e.dir(s.id)
	args := []string{"run", "--bundle", dir, s.id}
	code, err := e.command(ctx, filepath.Join(dir, "log"), args, p, begun, func() { e.kill(s) })
	if ferr := failpoint.Hit("build/step/ran"); ferr != nil {
		return code, ferr
	}
	return code, err
}

// command runs the runtime with the streams of the process. When ctx ends, kill ends what the runtime has started. It is
// called once more when the runtime is gone, since the first call may have come before there was anything.
func (e *executor) command(ctx context.Context, log string, args []string, p buildexec.ProcessInfo, begun, kill func()) (int, error) {
	c := exec.Command(e.cfg.Runtime, append([]string{"--root", e.stateRoot(), "--log", log, "--log-format", "json"}, args...)...)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "GOMAXPROCS=2"}
	streams, err := connect(c, p)
	if err != nil {
		return 0, err
	}
	defer streams.close()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := c.Start(); err != nil {
		return 0, errs.Wrap(err, "start %s: is shoal-runtime installed?", e.cfg.Runtime)
	}
	streams.started()
	begun()
	done := make(chan struct{})
	go streams.serve(c.Process, p, done)
	stop := context.AfterFunc(ctx, func() {
		c.Process.Kill() // first: it must not start what is being ended
		kill()
	})
	err = c.Wait()
	close(done)
	killed := !stop()
	if killed {
		kill()
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case killed:
		return 137, context.Cause(ctx)
	case !errors.As(err, &exit):
		return 0, err
	}
	if reason := runtimeFailure(log); reason != "" {
		return 0, errs.New(errs.Internal, "run build step: %s", reason)
	}
	if exit.ExitCode() < 0 { // the runtime itself was killed
		kill()
		return 0, errs.New(errs.Internal, "the runtime of a build step was ended: %s", exit)
	}
	return exit.ExitCode(), nil
}

// stateRoot is where the runtime keeps its containers.
func (e *executor) stateRoot() string { return filepath.Join(e.cfg.ExecRoot, runtimeDir) }

// killPid ends the process that a file names. One that is not there, or ended already, is no error.
func killPid(file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 0 {
		unix.Kill(pid, unix.SIGKILL)
	}
}

// kill ends all of a step's processes.
func (e *executor) kill(s *step) {
	if err := killStep(e.cfg, s.id); err != nil {
		e.cfg.Log.Warn("a build step does not end", "reason", err)
	}
}

// runtimeFailure is the last error that the runtime wrote to its log; "" when it ran the program.
func runtimeFailure(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	last := ""
	dec := json.NewDecoder(io.LimitReader(f, 1<<20))
	for {
		var line struct{ Level, Msg string }
		if dec.Decode(&line) != nil {
			return last
		}
		if line.Level == "error" {
			last = line.Msg
		}
	}
}

// exitError is what BuildKit wants to know of a program's end.
func exitError(ctx context.Context, code int, err error, valid []int) error {
	if err == nil && (valid == nil && code == 0 || slices.Contains(valid, code)) {
		return nil
	}
	exit := &gatewayapi.ExitError{ExitCode: uint32(code), Err: err}
	if err != nil && code == 0 {
		exit.ExitCode = gatewayapi.UnknownExitStatus
	}
	if cause := context.Cause(ctx); cause != nil {
		exit.Err = cause
	}
	return exit
}

// Exec runs a further process in a step that runs.
func (e *executor) Exec(ctx context.Context, id string, p buildexec.ProcessInfo) error {
	e.mu.Lock()
	s := e.running[id]
	e.mu.Unlock()
	if s == nil {
		return errs.New(errs.NotFound, "build step %s does not run", id)
	}
	select {
	case <-s.begun:
	case <-s.ended:
		return errs.New(errs.Conflict, "build step %s has ended", id)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	process := *s.process
	process.Args, process.Terminal = p.Meta.Args, p.Meta.Tty
	if p.Meta.Cwd != "" {
		process.Cwd = p.Meta.Cwd
	}
	if len(p.Meta.Env) > 0 {
		process.Env = p.Meta.Env
	}
	if p.Meta.User != "" {
		who, err := userOf(s.rootfs, p.Meta.User)
		if err != nil {
			return errs.New(errs.Invalid, "build step: user %q: %w", p.Meta.User, err)
		}
		process.User = who
	}
	data, err := json.Marshal(process)
	if err != nil {
		return err
	}
	name := filepath.Join(e.dir(id), "exec-"+identity.NewID())
	if err := os.WriteFile(name, data, 0o600); err != nil {
		return err
	}
	defer os.Remove(name)
	defer os.Remove(name + ".log")
	defer os.Remove(name + ".pid")
	code, err := e.command(ctx, name+".log", []string{"exec", "--process", name, "--pid-file", name + ".pid", id}, p, func() {}, func() { killPid(name + ".pid") })
	return exitError(ctx, code, err, p.Meta.ValidExitCodes)
}
