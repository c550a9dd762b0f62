package container

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/cgroup"
	"github.com/shoalhq/shoal/runtime/hooks"
	"github.com/shoalhq/shoal/runtime/rootfs"
	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/runtime/state"
)

// held is a container that exists, with its directory open.
type held struct {
	rt     *Runtime
	id     string
	dir    *state.Dir
	record *state.Record
}

func (r *Runtime) lock(id string) (*held, error) { return r.hold(id, r.store.Lock) }
func (r *Runtime) peek(id string) (*held, error) { return r.hold(id, r.store.Peek) }

func (r *Runtime) hold(id string, open func(string) (*state.Dir, error)) (*held, error) {
	dir, err := open(id)
	if err != nil {
		return nil, err
	}
	record, err := dir.Read()
	if err != nil {
		dir.Close()
		return nil, err
	}
	return &held{r, id, dir, record}, nil
}

func (h *held) close() { h.dir.Close() }

// config reads config.json as it was at create.
func (h *held) config() (*specs.Spec, error) {
	data, err := os.ReadFile(filepath.Join(h.dir.Path(), spec.ConfigFile))
	if err != nil {
		return nil, errs.New(errs.Damaged, "read the configuration of container %q: %w", h.id, err)
	}
	return spec.Parse(data)
}

func (h *held) groups() (*cgroup.Manager, error) {
	host, err := h.rt.host()
	if err != nil {
		return nil, err
	}
	var s cgroup.State
	if err := h.record.DecodeCgroup(&s); err != nil {
		return nil, err
	}
	return host.Load(s)
}

// status finds out what state the container is in.
func (h *held) status() specs.ContainerState {
	switch {
	case h.record.Pid == 0:
		return specs.StateCreating
	case !h.record.Alive():
		return specs.StateStopped
	}
	if m, err := h.groups(); err == nil {
		if frozen, err := m.Frozen(); err == nil && frozen {
			return Paused
		}
	}
	if !h.record.Started {
		return specs.StateCreated
	}
	return specs.StateRunning
}

func (h *held) ociState(status specs.ContainerState) *specs.State {
	s := &specs.State{Version: specs.Version, ID: h.id, Status: status, Bundle: h.record.Bundle}
	if status != specs.StateStopped {
		s.Pid = h.record.Pid
	}
	if cfg, err := h.config(); err == nil {
		s.Annotations = cfg.Annotations
	}
	return s
}

func (h *held) wrongState(verb string, status specs.ContainerState) error {
	return errs.New(errs.Conflict, "cannot %s container %q: it is %s", verb, h.id, status)
}

// State tells of one container.
func (r *Runtime) State(id string) (*Status, error) {
	h, err := r.peek(id)
	if err != nil {
		return nil, err
	}
	defer h.close()
	return h.tell(), nil
}

func (h *held) tell() *Status {
	st := h.ociState(h.status())
	s := &Status{Version: specs.Version, ID: h.id, Pid: st.Pid, Status: st.Status, Bundle: h.record.Bundle, Rootfs: h.record.Rootfs,
		Created: h.record.Created, Annotations: st.Annotations, Owner: strconv.FormatUint(uint64(h.record.Owner), 10)}
	if u, err := user.LookupId(s.Owner); err == nil {
		s.Owner = u.Username
	}
	return s
}

// List tells of all containers. One whose record is damaged is listed with what is known, and named in the error.
func (r *Runtime) List() ([]*Status, error) {
	ids, err := r.store.List()
	if err != nil {
		return nil, err
	}
	var list []*Status
	var bad []error
	for _, id := range ids {
		s, err := r.State(id)
		if errs.Is(err, errs.NotFound) {
			continue // deleted meanwhile, or just being created
		}
		if err != nil {
			bad = append(bad, err)
			continue
		}
		list = append(list, s)
	}
	return list, errors.Join(bad...)
}

// Start lets the program of a created container run. It returns when it does, or with the reason why it cannot; then
// the container is stopped.
func (r *Runtime) Start(id string) error {
	h, err := r.lock(id)
	if err != nil {
		return err
	}
	defer h.close()
	if status := h.status(); status != specs.StateCreated {
		return h.wrongState("start", status)
	}
	cfg, err := h.config()
	if err != nil {
		return err
	}
	return h.start(cfg)
}

// StartCreated is Start for whoever called Create: with what Create still knows.
func (r *Runtime) StartCreated(p *Process) error {
	made := p.made
	if made == nil {
		return errs.New(errs.Conflict, "container %q was not created by this process, or was started already", p.ID)
	}
	dir, err := r.store.Lock(p.ID)
	if err != nil {
		return err
	}
	defer dir.Close()
	defer letGo(made.exe)
	p.made = nil
	return (&held{r, p.ID, dir, made.record}).start(made.spec)
}

// start opens the gate and waits until the program runs.
func (h *held) start(cfg *specs.Spec) error {
	if cfg.Process == nil || len(cfg.Process.Args) == 0 {
		return errs.New(errs.Invalid, "start container %q: its configuration has no process to run", h.id)
	}
	conn, err := h.connectGate()
	if err != nil {
		return err
	}
	defer conn.Close()
	f := &follower{sync: conn, launch: &Launch{}}
	f.listener = func(fd uint32) error { return h.listener(fd) }
	if err := f.follow(false); err != nil {
		return err
	}
	h.record.Started = true
	if err := h.dir.Write(h.record); err != nil {
		return err
	}
	os.Remove(filepath.Join(h.dir.Path(), state.StartSocket))
	if cfg.Hooks == nil {
		return nil
	}
	if err := hooks.RunAll("poststart", cfg.Hooks.Poststart, h.ociState(specs.StateRunning)); err != nil {
		h.rt.warn("%v", err)
	}
	return nil
}

func (h *held) connectGate() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start container %q: %w", h.id, err)
	}
	addr := &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", h.dir.Fd(), state.StartSocket)}
	if err := unix.Connect(fd, addr); err != nil {
		unix.Close(fd)
		return nil, errs.New(errs.Conflict, "start container %q: its init does not wait for a start any more: %w", h.id, err)
	}
	return os.NewFile(uintptr(fd), state.StartSocket), nil
}

func (h *held) listener(fd uint32) error {
	cfg, err := h.config()
	if err != nil {
		return err
	}
	pidfd, err := h.pidfd()
	if err != nil {
		return err
	}
	defer pidfd.Close()
	return sendListener(cfg.Linux.Seccomp, int(fd), pidfd, h.ociState(specs.StateCreated))
}

// pidfd opens init such that it cannot be mistaken for a later process with its pid.
func (h *held) pidfd() (*os.File, error) {
	fd, err := unix.PidfdOpen(h.record.Pid, 0)
	if err != nil {
		return nil, errs.New(errs.Conflict, "container %q is not running: %w", h.id, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	if !h.record.Alive() {
		f.Close()
		return nil, errs.New(errs.Conflict, "container %q is not running", h.id)
	}
	return f, nil
}

// notRunning begins with the words by which containerd's shim knows that a stop came too late, which is no error to it.
func notRunning(id string, sig unix.Signal) error {
	return errs.New(errs.Conflict, "container not running: %q has ended; there is nothing to send %s to", id, unix.SignalName(sig))
}

// Kill sends a signal to the container's init, or to every process of the container.
func (r *Runtime) Kill(id string, sig unix.Signal, all bool) error {
	h, err := r.peek(id)
	if err != nil {
		return err
	}
	defer h.close()
	if all {
		return h.killAll(sig)
	}
	pidfd, err := h.pidfd()
	if err != nil {
		if cfg, cerr := h.config(); cerr == nil && spec.Namespace(cfg, specs.PIDNamespace) == nil && h.record.Pid != 0 {
			return h.killAll(sig) // without a pid namespace of its own the others live on after init
		}
		return notRunning(id, sig)
	}
	defer pidfd.Close()
	if err := unix.PidfdSendSignal(int(pidfd.Fd()), sig, nil, 0); err != nil {
		if err == unix.ESRCH {
			return notRunning(id, sig)
		}
		return fmt.Errorf("send %s to container %q: %w", unix.SignalName(sig), id, err)
	}
	if sig == unix.SIGKILL {
		h.thawForDeath()
	}
	return nil
}

// thawForDeath lets a killed process that is frozen on v1 die.
func (h *held) thawForDeath() {
	if m, err := h.groups(); err == nil {
		if frozen, err := m.Frozen(); err == nil && frozen {
			m.Thaw()
		}
	}
}

func (h *held) killAll(sig unix.Signal) error {
	m, err := h.groups()
	if err != nil {
		return err
	}
	if sig == unix.SIGKILL {
		return m.KillAll()
	}
	pids, err := m.Pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && err != unix.ESRCH {
			return fmt.Errorf("send %s to process %d of container %q: %w", unix.SignalName(sig), pid, h.id, err)
		}
	}
	return nil
}

// killTimeout is how long Delete with force waits for killed processes to be gone.
const killTimeout = 10 * time.Second

// Delete removes what is left of a stopped container. One that is not stopped is killed and removed with force, and else
// refused. With force, a container that does not exist is fine.
func (r *Runtime) Delete(id string, force bool) error {
	dir, err := r.store.Lock(id)
	if err != nil {
		if force && errs.Is(err, errs.NotFound) {
			return nil
		}
		return err
	}
	defer dir.Close()
	record, err := dir.Read()
	if err != nil {
		if force {
			return dir.Remove() // its creation was cut off, or the record is damaged: nothing else is known
		}
		return err
	}
	h := &held{r, id, dir, record}
	status := h.status()
	if status != specs.StateStopped {
		if !force {
			return errs.New(errs.Conflict, "cannot delete container %q that is not stopped: it is %s; kill it first or use --force", id, status)
		}
	}
	return h.remove()
}

func (h *held) remove() error {
	if h.record.Alive() {
		if err := h.killInit(); err != nil {
			return err
		}
	}
	m, err := h.groups()
	if err != nil {
		return err
	}
	if !m.DestroyEmpty() {
		if err := m.KillAll(); err != nil {
			return err
		}
		if err := m.Destroy(); err != nil {
			return err
		}
	}
	if h.record.HostMount != 0 {
		if err := rootfs.DropHostMounts(h.record.Rootfs, h.record.HostMount); err != nil {
			return err
		}
	}
	poststop, state := h.poststop()
	if err := h.dir.Remove(); err != nil {
		return err
	}
	if err := hooks.RunAll("poststop", poststop, state); err != nil {
		h.rt.warn("%v", err)
	}
	return nil
}

// poststop finds the hooks to run after the container is gone. Most have none, and their configuration is not decoded.
func (h *held) poststop() ([]specs.Hook, *specs.State) {
	data, err := os.ReadFile(filepath.Join(h.dir.Path(), spec.ConfigFile))
	if err != nil || !bytes.Contains(data, []byte("poststop")) {
		return nil, nil
	}
	cfg, err := spec.Parse(data)
	if err != nil || cfg.Hooks == nil {
		return nil, nil
	}
	return cfg.Hooks.Poststop, h.ociState(specs.StateStopped)
}

func (h *held) killInit() error {
	pidfd, err := h.pidfd()
	if err != nil {
		return nil // gone
	}
	defer pidfd.Close()
	if err := unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill container %q: %w", h.id, err)
	}
	h.thawForDeath()
	return WaitPidfd(pidfd, killTimeout)
}

// WaitPidfd waits until the process has ended, whoever its parent is.
func WaitPidfd(pidfd *os.File, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(0, time.Until(deadline).Milliseconds())))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return errs.New(errs.Deadline, "the process was killed but has not ended within %s; it hangs in the kernel (see /proc/PID/stack)", timeout)
		}
		return nil
	}
}

// Pids lists the processes of a container, by the host's numbers.
func (r *Runtime) Pids(id string) ([]int, error) {
	m, err := r.Cgroup(id)
	if err != nil {
		return nil, err
	}
	pids, err := m.Pids()
	slices.Sort(pids)
	return pids, err
}

// Cgroup gives the container's control groups, for statistics, events and limits.
func (r *Runtime) Cgroup(id string) (*cgroup.Manager, error) {
	h, err := r.peek(id)
	if err != nil {
		return nil, err
	}
	defer h.close()
	return h.groups()
}

// Pause freezes all processes of a running or created container.
func (r *Runtime) Pause(id string) error {
	return r.change(id, "pause", []specs.ContainerState{specs.StateRunning, specs.StateCreated}, (*cgroup.Manager).Freeze)
}

// Resume lets a paused container go on.
func (r *Runtime) Resume(id string) error {
	return r.change(id, "resume", []specs.ContainerState{Paused}, (*cgroup.Manager).Thaw)
}

// Update changes the limits; what res leaves out stays.
func (r *Runtime) Update(id string, res *specs.LinuxResources) error {
	return r.change(id, "update", []specs.ContainerState{specs.StateRunning, specs.StateCreated, Paused},
		func(m *cgroup.Manager) error { return m.Set(res) })
}

func (r *Runtime) change(id, verb string, from []specs.ContainerState, do func(*cgroup.Manager) error) error {
	h, err := r.lock(id)
	if err != nil {
		return err
	}
	defer h.close()
	if status := h.status(); !slices.Contains(from, status) {
		return h.wrongState(verb, status)
	}
	m, err := h.groups()
	if err != nil {
		return err
	}
	return errs.Wrap(do(m), "%s container %q", verb, h.id)
}
