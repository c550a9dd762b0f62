package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/atomicfile"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/undo"
	"github.com/shoalhq/shoal/runtime/cgroup"
	"github.com/shoalhq/shoal/runtime/hooks"
	"github.com/shoalhq/shoal/runtime/initproc"
	"github.com/shoalhq/shoal/runtime/namespaces"
	"github.com/shoalhq/shoal/runtime/privilege"
	"github.com/shoalhq/shoal/runtime/rootfs"
	"github.com/shoalhq/shoal/runtime/seccomp"
	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/runtime/state"
)

// creation is one container being created.
type creation struct {
	rt     *Runtime
	opts   *CreateOptions
	spec   *specs.Spec
	raw    []byte // config.json to keep
	gated  bool
	dir    *state.Dir
	record *state.Record
	cgroup *cgroup.Manager
	undo   undo.Stack
	child  *namespaces.Process
	proc   *Process
	exe    *os.File // what init executes
}

// Create makes the container with all but the last step: its program runs when Start is called, by whomever.
func (r *Runtime) Create(o CreateOptions) (*Process, error) { return r.create(&o, true) }

// Run is Create and Start in one, and faster than both.
func (r *Runtime) Run(o CreateOptions) (*Process, error) {
	p, err := r.create(&o, false)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Begin is the first part of Create. Ready, which must follow, is the rest: meanwhile init makes the container.
func (r *Runtime) Begin(o CreateOptions) (*Process, error) {
	c, err := r.begin(&o, true)
	if err != nil {
		return nil, err
	}
	c.proc.begun = c
	return c.proc, nil
}

// Ready waits until the container that Begin began is created. When it fails, nothing is left.
func (p *Process) Ready() error {
	c := p.begun
	p.begun = nil
	return c.finish()
}

func (r *Runtime) create(o *CreateOptions, gated bool) (*Process, error) {
	c, err := r.begin(o, gated)
	if err != nil {
		return nil, err
	}
	if err := c.finish(); err != nil {
		return nil, err
	}
	return c.proc, nil
}

func (r *Runtime) begin(o *CreateOptions, gated bool) (_ *creation, err error) {
	c := &creation{rt: r, opts: o, gated: gated, proc: &Process{ID: o.ID}}
	defer func() {
		if err != nil {
			c.takeBack()
		}
	}()
	if err := c.load(); err != nil {
		return nil, err
	}
	if err := c.makeState(); err != nil {
		return nil, err
	}
	return c, c.launch()
}

func (c *creation) finish() error {
	err := c.report()
	if err == nil {
		err = failpoint.Hit("runtime/container/created")
	}
	if err != nil {
		c.takeBack()
		return err
	}
	c.undo.Release()
	c.dir.Close()
	if c.gated {
		c.proc.made = &made{spec: c.spec, record: c.record, groups: c.cgroup, exe: c.exe}
	} else {
		letGo(c.exe)
		c.poststart()
	}
	return nil
}

// takeBack leaves nothing of a creation that failed.
func (c *creation) takeBack() {
	c.undo.Run()
	if c.dir != nil {
		c.dir.Close()
	}
	if c.exe != nil {
		c.exe.Close()
	}
}

// load reads and checks the configuration.
func (c *creation) load() error {
	o := c.opts
	if err := state.CheckID(o.ID); err != nil {
		return err
	}
	bundle, err := filepath.Abs(o.Bundle)
	if err != nil {
		return fmt.Errorf("find the bundle %s: %w", o.Bundle, err)
	}
	o.Bundle = bundle
	c.raw = o.Config
	switch {
	case o.Spec == nil:
		if o.Spec, c.raw, err = ReadBundle(bundle); err != nil {
			return err
		}
	case c.raw == nil:
		if c.raw, err = json.Marshal(o.Spec); err != nil {
			return fmt.Errorf("encode the configuration: %w", err)
		}
	}
	c.spec = o.Spec
	if err := spec.Validate(c.spec); err != nil {
		return err
	}
	if err := c.checkProcess(); err != nil {
		return err
	}
	c.withoutSELinux()
	if err := checkLabels(c.spec.Process, c.spec.Linux.MountLabel); err != nil {
		return err
	}
	c.opts.Rootless = c.opts.Rootless || os.Geteuid() != 0
	return c.checkRoot()
}

// checkProcess stands something in for a process that is not there: such a container can be created, not started.
func (c *creation) checkProcess() error {
	if c.spec.Process == nil {
		if !c.gated {
			return errs.New(errs.Invalid, "config.json: process: is missing, there is nothing to run")
		}
		c.spec.Process = &specs.Process{Cwd: "/"}
	}
	if lost := privilege.Ungrantable(c.spec.Process.Capabilities); len(lost) > 0 {
		c.rt.warn("capabilities %v are unknown here or not the runtime's own: the container goes without", lost)
	}
	for _, what := range cgroup.Ignored(c.spec.Linux.Resources) {
		c.rt.warn("resources.%s", what)
	}
	return nil
}

// withoutSELinux leaves a label of the mounts out where SELinux is off: alone it confines nobody, and nobody reads it.
func (c *creation) withoutSELinux() {
	if c.spec.Linux.MountLabel == "" || selinuxEnabled() {
		return
	}
	c.rt.warn("linux.mountLabel %q: SELinux is not enabled on this host; the mounts go without", c.spec.Linux.MountLabel)
	c.spec.Linux.MountLabel = ""
}

func selinuxEnabled() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}

// checkLabels refuses labels of security modules that this host does not run, before anything is made.
func checkLabels(p *specs.Process, mountLabel string) error {
	if label := p.SelinuxLabel + mountLabel; label != "" && !selinuxEnabled() {
		return errs.New(errs.Unsupported, "SELinux label %q is asked for, but SELinux is not enabled on this host; leave it out", label)
	}
	if profile := p.ApparmorProfile; profile != "" && profile != "unconfined" {
		on, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
		if err != nil || len(on) == 0 || on[0] != 'Y' {
			return errs.New(errs.Unsupported, "AppArmor profile %q is asked for, but AppArmor is not enabled on this host; leave it out", profile)
		}
	}
	return nil
}

// ReadBundle reads a bundle's config.json.
func ReadBundle(bundle string) (*specs.Spec, []byte, error) {
	data, err := os.ReadFile(filepath.Join(bundle, spec.ConfigFile))
	if err != nil {
		return nil, nil, errs.New(errs.Invalid, "read the bundle's configuration: %w; a bundle is a directory with config.json and the root file system", err)
	}
	s, err := spec.Parse(data)
	return s, data, err
}

func hostMounts(s *specs.Spec) bool { return spec.Namespace(s, specs.MountNamespace) == nil }

func (c *creation) checkRoot() error {
	root := absRoot(c.opts.Bundle, c.spec.Root.Path)
	st, err := os.Stat(root)
	if err != nil {
		return errs.New(errs.Invalid, "the root file system %s of the bundle: %w", root, err)
	}
	if !st.IsDir() {
		return errs.New(errs.Invalid, "the root file system %s of the bundle is not a directory", root)
	}
	if root == "/" {
		return errs.New(errs.Invalid, "the root file system is the host's own /: it cannot be a container's")
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return fmt.Errorf("resolve the root file system: %w", err)
	}
	c.spec.Root.Path = root
	return nil
}

// makeState reserves the name, and records where the cgroup will be before it is made, so that a crash leaves nothing
// that cannot be found.
func (c *creation) makeState() error {
	host, err := c.rt.host()
	if err != nil {
		return err
	}
	c.cgroup, err = host.New(cgroup.Config{ID: c.opts.ID, Path: c.spec.Linux.CgroupsPath, Parent: c.opts.CgroupParent, BestEffort: c.opts.Rootless})
	if err != nil {
		return err
	}
	if c.dir, err = c.rt.store.Create(c.opts.ID); err != nil {
		return err
	}
	c.undo.Add(func() { c.dir.Remove() })
	groups, err := c.cgroup.MarshalJSON()
	if err != nil {
		return err
	}
	c.record = &state.Record{ID: c.opts.ID, Bundle: c.opts.Bundle, Created: time.Now().UTC(), Owner: uint32(os.Geteuid()),
		Rootless: c.opts.Rootless, Rootfs: c.spec.Root.Path, Cgroup: groups}
	if hostMounts(c.spec) {
		if c.record.HostMount, err = rootfs.MountID(c.spec.Root.Path); err != nil {
			return err
		}
	}
	if err := c.dir.Write(c.record); err != nil {
		c.dir.Close()
		return err
	}
	if c.record.HostMount != 0 {
		c.undo.Add(func() { rootfs.DropHostMounts(c.record.Rootfs, c.record.HostMount) })
	}
	return failpoint.Hit("runtime/container/recorded")
}

// compiled is the result of compiling the seccomp profile, beside everything else.
type compiled struct {
	filter []byte
	err    error
}

func compileSeccomp(profile *specs.LinuxSeccomp) <-chan compiled {
	done := make(chan compiled, 1)
	if profile == nil {
		done <- compiled{}
		return done
	}
	go func() {
		f, err := seccomp.Compile(profile)
		var b []byte
		if err == nil && f != nil {
			b, err = f.MarshalBinary()
		}
		done <- compiled{b, err}
	}()
	return done
}

// launch makes the cgroup and the child, sends it its configuration, and keeps the records while the child starts.
func (c *creation) launch() error {
	filter := compileSeccomp(c.spec.Linux.Seccomp)
	root, err := mountRoot(c.spec)
	if err != nil {
		return err
	}
	defer root.close()
	if err := c.cgroup.Create(c.spec.Linux.Resources); err != nil {
		return err
	}
	c.undo.Add(func() { c.cgroup.KillAll(); c.cgroup.Destroy() })
	if c.opts.Joins != nil {
		if err := c.opts.Joins(); err != nil {
			return err
		}
	}
	create, joins, err := openJoins(c.spec)
	if err != nil {
		return err
	}
	defer closeJoins(joins)
	userNS := spec.Namespace(c.spec, specs.UserNamespace) != nil
	src, err := openSources(c.spec, userNS)
	if err != nil {
		return err
	}
	defer src.close()
	src.root = root
	if userNS {
		giveStreams(c.opts.Stdio, c.spec)
	}
	if c.exe, err = openSelf(); err != nil {
		return err
	}
	deny := denySetgroups(c.spec)
	child := &namespaces.Child{New: create, Joins: joins, TimeOffsets: timeOffsets(c.spec), Exe: c.exe,
		Args: []string{initproc.Name, namespaces.SyncPlaceholder}, Env: initEnv(), Stdio: c.opts.Stdio, Keep: src.fds(),
		Identity: namespaces.Identity{Map: mapper(c.spec, deny), BecomeRoot: userNS, DenySetgroups: deny}}
	if c.spec.Process.Terminal {
		child.Stdio = [3]*os.File{}
	}
	gate, err := c.openGate(child)
	if err != nil {
		return err
	}
	if gate != nil {
		defer gate.Close()
	}
	child.Keep = append(child.Keep, preserved(c.opts.PreserveFDs)...)
	cfg, err := c.initConfig(src, gate, create)
	if err != nil {
		return err
	}
	// The state for hooks inside the container has the pid in it; without such hooks nothing has to wait for it.
	hooked := len(cfg.CreateContainer)+len(cfg.StartContainer) > 0
	var config <-chan encoded
	if !hooked {
		config = c.encode(cfg, filter, root)
	}
	err = c.cgroup.Spawn(func(fd int) (err error) {
		child.Cgroup = fd
		c.child, err = namespaces.Start(child)
		return err
	})
	if err != nil {
		return err
	}
	c.undo.Add(c.child.Abort)
	c.proc.Pid, c.proc.PidFD = c.child.Pid, c.child.PidFD
	if err := c.keepRecords(userNS); err != nil {
		return err
	}
	if hooked {
		cfg.State = c.state(specs.StateCreating)
		config = c.encode(cfg, filter, root)
	}
	return sendConfig(c.child, <-config)
}

// keepRecords writes down the process, and what only the runtime can set for it from outside.
func (c *creation) keepRecords(userNS bool) error {
	c.record.Pid = c.child.Pid
	c.record.PidStart, _, _ = state.StartTime(c.child.Pid)
	c.record.Started = !c.gated
	if c.opts.Rootless { // groups that this user may not make are not there
		groups, err := c.cgroup.MarshalJSON()
		if err != nil {
			return err
		}
		c.record.Cgroup = groups
	}
	if err := os.WriteFile(filepath.Join(c.dir.Path(), spec.ConfigFile), c.raw, 0o600); err != nil {
		return fmt.Errorf("keep the configuration: %w", err)
	}
	if err := c.dir.Write(c.record); err != nil {
		return err
	}
	if err := setOOMScore(c.child.Pid, c.spec.Process.OOMScoreAdj, c.opts.Rootless); err != nil {
		return err
	}
	if userNS {
		privilege.RaiseHard(c.child.Pid, c.spec.Process.Rlimits)
	}
	if err := moveNetDevices(c.child.Pid, c.spec.Linux.NetDevices); err != nil {
		return err
	}
	return c.opts.tellPid(c.proc)
}

// tellPid writes the pid file and sends the pidfd, where they are wanted.
func (l *Launch) tellPid(p *Process) error {
	if l.PidFile != "" {
		if err := atomicfile.Write(l.PidFile, []byte(strconv.Itoa(p.Pid)), 0o644, atomicfile.Volatile); err != nil {
			return fmt.Errorf("write the pid file: %w", err)
		}
	}
	if l.PidfdSocket != "" {
		return sendFile(l.PidfdSocket, "pidfd", p.PidFD)
	}
	return nil
}

// initEnv is init's own environment, not the program's: no garbage collection and one processor for so short a life.
func initEnv() []string { return []string{"GOGC=off", "GOMAXPROCS=1"} }

func preserved(n int) []int {
	var list []int
	for fd := 3; fd < 3+n; fd++ {
		list = append(list, fd)
	}
	return list
}

func setOOMScore(pid int, score *int, rootless bool) error {
	if score == nil {
		return nil
	}
	err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(strconv.Itoa(*score)), 0)
	if err != nil && rootless {
		return nil
	}
	if errors.Is(err, unix.EACCES) {
		// Not in errno's words: callers take those for a program that may not be executed (exit code 126).
		return errs.New(errs.Unsupported, "the kernel refuses to set oom_score_adj to %d: lowering it below the runtime's own needs CAP_SYS_RESOURCE, "+
			"which the runtime lacks here", *score)
	}
	if err != nil {
		return fmt.Errorf("set oom_score_adj to %d: %w", *score, err)
	}
	return nil
}

// openGate makes the socket on which init waits for start.
func (c *creation) openGate(child *namespaces.Child) (*os.File, error) {
	if !c.gated {
		return nil, nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make the start socket: %w", err)
	}
	gate := os.NewFile(uintptr(fd), state.StartSocket)
	// The directory's descriptor keeps the address short whatever the root directory is called.
	addr := &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", c.dir.Fd(), state.StartSocket)}
	if err = unix.Bind(fd, addr); err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		gate.Close()
		return nil, fmt.Errorf("make the start socket in %s: %w", c.dir.Path(), err)
	}
	child.Keep = append(child.Keep, fd)
	return gate, nil
}

// encoded is init's configuration with the filter behind it.
type encoded struct {
	message namespaces.Message
	err     error
}

// encode makes init's configuration while the child is being forked.
func (c *creation) encode(cfg *initproc.Config, filter <-chan compiled, root *rootMount) <-chan encoded {
	done := make(chan encoded, 1)
	go func() {
		m, err := encodeConfig(cfg, <-filter)
		if err == nil && root != nil {
			var fd int
			fd, err = root.tree()
			m.Files = []int{fd}
		}
		done <- encoded{m, err}
	}()
	return done
}

func (c *creation) initConfig(src *sources, gate *os.File, create uintptr) (*initproc.Config, error) {
	s := c.spec
	overlay, err := spec.Overlay(s)
	if err != nil {
		return nil, err
	}
	cfg := &initproc.Config{ID: c.opts.ID, Process: s.Process, Hostname: s.Hostname, Domainname: s.Domainname, Sysctl: s.Linux.Sysctl,
		Personality: s.Linux.Personality, Memory: s.Linux.MemoryPolicy, NewNet: create&unix.CLONE_NEWNET != 0,
		DenySetgroups: denySetgroups(s), NoNewKeyring: c.opts.NoNewKeyring, Seal: fewPids(s.Linux.Resources), PreserveFDs: c.opts.PreserveFDs,
		Rootfs: rootfs.Config{Root: *s.Root, Overlay: overlay, Mounts: src.mounts, Devices: s.Linux.Devices, Masked: s.Linux.MaskedPaths,
			Readonly: s.Linux.ReadonlyPaths, Propagation: s.Linux.RootfsPropagation, MountLabel: s.Linux.MountLabel,
			Options: rootfs.Options{UserNamespace: spec.Namespace(s, specs.UserNamespace) != nil, CgroupNamespace: spec.Namespace(s, specs.CgroupNamespace) != nil,
				NoPivot: c.opts.NoPivot, HostMounts: hostMounts(s)}}}
	if src.root != nil {
		cfg.Rootfs.Overlay = nil // it comes with the configuration
	}
	if gate != nil {
		cfg.Gate = int(gate.Fd())
	}
	if h := s.Hooks; h != nil {
		cfg.RuntimeHooks = len(h.Prestart)+len(h.CreateRuntime) > 0
		cfg.CreateContainer, cfg.StartContainer = h.CreateContainer, h.StartContainer
	}
	return cfg, nil
}

func encodeConfig(cfg *initproc.Config, filter compiled) (namespaces.Message, error) {
	if filter.err != nil {
		return namespaces.Message{}, errs.Wrap(filter.err, "seccomp")
	}
	data, err := cfg.Encode()
	if err != nil {
		return namespaces.Message{}, fmt.Errorf("encode init's configuration: %w", err)
	}
	return namespaces.Message{Kind: initproc.MsgConfig, Arg: uint32(len(filter.filter)), Content: append(data, filter.filter...)}, nil
}

// fewPids says whether the process limit is so low that runtime/cgroup sets it only right before the exec.
func fewPids(r *specs.LinuxResources) bool {
	return r != nil && r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit > 0 && *r.Pids.Limit < 128
}

func sendConfig(child *namespaces.Process, config encoded) error {
	if config.err != nil {
		return config.err
	}
	if err := namespaces.Send(int(child.Sync.Fd()), config.message); err != nil && err != unix.EPIPE {
		return fmt.Errorf("send init its configuration: %w", err)
	}
	return nil // a broken pipe: what init has to say about it comes next
}

func (c *creation) state(status specs.ContainerState) *specs.State {
	return &specs.State{Version: specs.Version, ID: c.opts.ID, Status: status, Pid: c.proc.Pid, Bundle: c.opts.Bundle, Annotations: c.spec.Annotations}
}

// report follows what init tells until the container is created, or its program runs.
func (c *creation) report() error {
	f := &follower{sync: c.child.Sync, proc: c.proc, launch: &c.opts.Launch}
	f.runtimeHooks = func() error {
		//lint:ignore SA1019 engines still write prestart hooks
		if err := hooks.Run("prestart", c.spec.Hooks.Prestart, c.state(specs.StateCreating)); err != nil {
			return err
		}
		return hooks.Run("createRuntime", c.spec.Hooks.CreateRuntime, c.state(specs.StateCreating))
	}
	f.listener = func(fd uint32) error {
		return sendListener(c.spec.Linux.Seccomp, int(fd), c.proc.PidFD, c.state(specs.StateCreating))
	}
	f.beforeExec = c.cgroup.Seal
	err := f.follow(c.gated)
	if c.proc.reaped {
		c.child.Pid = 0
	}
	if err == nil {
		c.child.Sync.Close()
	} else if c.proc.Console != nil {
		c.proc.Console.Close()
	}
	return err
}

// poststart runs the hooks after the start; the container runs whatever they say.
func (c *creation) poststart() {
	if c.spec.Hooks == nil {
		return
	}
	if err := hooks.RunAll("poststart", c.spec.Hooks.Poststart, c.state(specs.StateRunning)); err != nil {
		c.rt.warn("%v", err)
	}
}
