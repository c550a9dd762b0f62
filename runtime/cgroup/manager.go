package cgroup

import (
	"encoding/json"
	"errors"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/undo"
)

// DefaultParent is the group below which relative and empty cgroupsPaths are put.
const DefaultParent = "/shoal"

// Config names a container's groups.
type Config struct {
	ID string // of the container; used when Path is empty
	// Path is the OCI cgroupsPath. Absolute: below the hierarchy's mount point. Relative: below Parent. Empty: Parent/ID.
	Path   string
	Parent string // "" is DefaultParent
	// BestEffort goes on where this user may not make groups (rootless), as long as no limit is asked for there.
	BestEffort bool
}

// Manager is the groups of one container. It holds no file open and needs no Close; its methods may be called from
// several goroutines, except that two changes at once (Create, Set, Seal, Destroy) are the caller's mistake.
type Manager struct {
	host       *Host
	group      string   // the same path in every hierarchy
	dirs       []string // per hierarchy of host; "" where there is no group
	bestEffort bool
	pidsMax    string // pids.max still to be written by Seal
}

// New works out the paths; it touches nothing.
func (h *Host) New(c Config) (*Manager, error) {
	group, err := resolvePath(c)
	if err != nil {
		return nil, err
	}
	m := &Manager{host: h, group: group, bestEffort: c.BestEffort, dirs: make([]string, len(h.Hierarchies))}
	for i := range h.Hierarchies {
		m.dirs[i] = h.Hierarchies[i].dir(group)
	}
	return m, nil
}

func resolvePath(c Config) (string, error) {
	p := c.Path
	if strings.ContainsAny(p, "\n\x00") || strings.ContainsAny(c.Parent, "\n\x00") {
		return "", errs.New(errs.Invalid, "cgroupsPath %q holds a newline or a zero byte: no control group can have that name", p)
	}
	if !path.IsAbs(p) {
		parent := c.Parent
		if parent == "" {
			parent = DefaultParent
		}
		if p == "" {
			if c.ID == "" || strings.ContainsAny(c.ID, "/\n\x00") || c.ID == "." || c.ID == ".." {
				return "", errs.New(errs.Invalid, "container id %q cannot name a control group: set cgroupsPath", c.ID)
			}
			p = c.ID
		}
		// Cleaned as if it were rooted, so that ".." cannot climb out of the parent.
		p = path.Join("/", parent, path.Clean("/"+p))
	}
	p = path.Clean(p)
	if p == "/" {
		return "", errs.New(errs.Invalid, "cgroupsPath %q is the root group, which belongs to the host: name a group below it", c.Path)
	}
	return p, nil
}

// Create makes the groups and sets the limits; res may be nil. Groups that exist and are empty are taken over; ones
// that hold processes are refused (Conflict), since killing or limiting this container would hit those. When it fails,
// what it made is removed. A process limit too small for the runtime's own set-up is left for Seal.
func (m *Manager) Create(res *specs.LinuxResources) error {
	plan, err := m.host.plan(res, true)
	if err != nil {
		return err
	}
	var u undo.Stack
	defer u.Run()
	for i := range m.host.Hierarchies {
		if err := m.makeGroup(i, &u, plan); err != nil {
			return err
		}
		if err := failpoint.Hit("cgroup/create"); err != nil {
			return err
		}
	}
	m.deferPids(plan)
	if err := m.apply(plan); err != nil {
		return err
	}
	if err := m.setDevices(res, true); err != nil {
		return err
	}
	u.Release()
	return nil
}

// goThreads is how many threads a Go program may have while it sets up a container; below this, pids.max waits for Seal.
const goThreads = 24

func (m *Manager) deferPids(plan *plan) {
	for i, w := range plan.writes {
		if w.file != "pids.max" {
			continue
		}
		if n, err := strconv.Atoi(w.value); err == nil && n < goThreads {
			m.pidsMax = w.value
			plan.writes = append(plan.writes[:i:i], plan.writes[i+1:]...)
		}
		return
	}
}

// Seal sets the limits that Create held back. Call it when the container's first process is single-threaded and about
// to exec. It costs nothing when nothing was held back.
func (m *Manager) Seal() error {
	if m.pidsMax == "" {
		return nil
	}
	i := m.host.find("pids")
	w := write{controller: "pids", file: "pids.max", value: m.pidsMax, option: "pids.limit"}
	if err := m.writeSetting(i, w); err != nil {
		return err
	}
	m.pidsMax = ""
	return nil
}

// makeGroup makes the container's group in hierarchy i, with its parents.
func (m *Manager) makeGroup(i int, u *undo.Stack, plan *plan) error {
	x, dir := &m.host.Hierarchies[i], m.dirs[i]
	made, err := mkdirs(x, m.group)
	if err != nil {
		if m.bestEffort && notAllowed(err) && !plan.uses(x) {
			m.dirs[i] = ""
			return nil
		}
		return explainMkdir(err, x, dir)
	}
	if made {
		u.Add(func() { _ = rmdir(dir) })
	} else if pid, busy := firstPid(dir); busy {
		return errs.New(errs.Conflict, "control group %s already holds processes (%d is one): choose another cgroupsPath "+
			"or end them", dir, pid)
	}
	switch {
	case x.Unified && len(x.Controllers) > 0:
		return m.enableControllers(x, plan)
	case !x.Unified && x.has("cpuset"):
		return initCpuset(x, m.group)
	}
	return nil
}

// mkdirs makes the last directory first: in the usual case its parent exists and one call is enough.
func mkdirs(x *Hierarchy, group string) (made bool, err error) {
	dir := x.dir(group)
	switch err = mkdir(dir); err {
	case nil:
		return true, nil
	case unix.EEXIST:
		return false, nil
	case unix.ENOENT:
		parent := path.Dir(group)
		if parent == "/" || parent == "." {
			return false, err
		}
		if _, err := mkdirs(x, parent); err != nil {
			return false, err
		}
		if !x.Unified && x.has("cpuset") {
			if err := initCpuset(x, parent); err != nil {
				return false, err
			}
			// Groups made below from now on inherit both sets: fewer writes at each start. Only a saving, so errors do not count.
			_ = writeFile(filepath.Join(x.dir(parent), "cgroup.clone_children"), "1")
		}
		if err = mkdir(dir); err == unix.EEXIST {
			return false, nil
		}
	}
	return err == nil, err
}

func explainMkdir(err error, x *Hierarchy, dir string) error {
	switch {
	case notAllowed(err):
		return errs.New(errs.Forbidden, "make control group %s: %w: run as root, or delegate the %s hierarchy to this user", dir, err, x.label())
	case errors.Is(err, unix.EAGAIN):
		return errs.New(errs.Exhausted, "make control group %s: %w: cgroup.max.descendants or cgroup.max.depth of a parent "+
			"group is reached: raise it or remove unused groups", dir, err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.ENOMEM):
		return errs.New(errs.Exhausted, "make control group %s: %w: the kernel has no room for one more group of %s: remove "+
			"unused groups", dir, err, x.label())
	}
	return errs.Wrap(err, "make control group %s", dir)
}

func notAllowed(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS)
}

// initCpuset gives a v1 cpuset group its parent's processors and memory nodes: an empty set cannot be joined.
func initCpuset(x *Hierarchy, group string) error {
	dir := x.dir(group)
	for _, f := range [...]string{"cpuset.cpus", "cpuset.mems"} {
		got, err := readFile(filepath.Join(dir, f))
		if err != nil {
			return errs.Wrap(err, "prepare control group %s", dir)
		}
		if strings.TrimSpace(got) != "" {
			continue
		}
		from, err := readFile(filepath.Join(filepath.Dir(dir), f))
		if err != nil {
			return errs.Wrap(err, "prepare control group %s", dir)
		}
		if up := path.Dir(group); strings.TrimSpace(from) == "" && up != "/" {
			if err := initCpuset(x, up); err != nil {
				return err
			}
			if from, err = readFile(filepath.Join(filepath.Dir(dir), f)); err != nil {
				return errs.Wrap(err, "prepare control group %s", dir)
			}
		}
		from = strings.TrimSpace(from)
		if err := writeFile(filepath.Join(dir, f), from); err != nil {
			return errs.Wrap(err, "give control group %s its parent's %s (%s)", dir, f, from)
		}
	}
	return nil
}

// Spawn calls fn on a thread that is in the container's v1 groups: what fn clones is born there. fn gets the directory
// of the group in the cgroup2 hierarchy for CLONE_INTO_CGROUP (kernel 5.7+), or -1 on pure v1; it is closed when
// Spawn returns. fn must clone from the goroutine it is called on (os.StartProcess and raw clone do), must not start
// goroutines that lock threads, and should do little else. The calling thread is not changed.
func (m *Manager) Spawn(fn func(cgroupFD int) error) error {
	fd := -1
	if i := m.host.unified(); i >= 0 && m.dirs[i] != "" {
		var err error
		if fd, err = unix.Open(m.dirs[i], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return errs.Wrap(err, "open control group %s", m.dirs[i])
		}
		defer unix.Close(fd)
	}
	if m.host.Mode == V2 {
		return m.explainClone(fn(fd))
	}
	done := make(chan error)
	go func() {
		var err error
		// Also when fn ends the goroutine (runtime.Goexit), nobody waits for ever.
		defer func() { done <- err }()
		runtime.LockOSThread()
		err = m.joinThread()
		if err == nil {
			err = m.explainClone(fn(fd))
		}
		if leave := m.leaveThread(); leave != nil {
			// The thread stays locked and dies with this goroutine, and with it its membership.
			if unix.Gettid() == unix.Getpid() {
				err = errors.Join(err, leave)
			}
			return
		}
		runtime.UnlockOSThread()
	}()
	return <-done
}

// joinThread moves the calling thread into the v1 groups.
func (m *Manager) joinThread() error {
	spawned.Store(true)
	for i := range m.host.Hierarchies {
		if m.host.Hierarchies[i].Unified || m.dirs[i] == "" {
			continue
		}
		if err := writeFile(filepath.Join(m.dirs[i], "tasks"), "0"); err != nil {
			return m.explainJoin(i, 0, err)
		}
	}
	return nil
}

// leaveThread moves the calling thread back to where the process is.
func (m *Manager) leaveThread() error {
	var failed error
	for i := range m.host.Hierarchies {
		x := &m.host.Hierarchies[i]
		if x.Unified || m.dirs[i] == "" {
			continue
		}
		own := x.OwnDir()
		if own == "" {
			return errs.New(errs.Unsupported, "this process's own group %s is not visible at %s", x.Own, x.Mount)
		}
		if err := writeFile(filepath.Join(own, "tasks"), "0"); err != nil {
			failed = errors.Join(failed, errs.Wrap(err, "return to control group %s", own))
		}
	}
	return failed
}

// AddProcess moves a running process with all its threads into the groups. The first call after a quiet time costs
// about 10 ms (see the package comment): prefer Spawn.
func (m *Manager) AddProcess(pid int) error {
	value := strconv.Itoa(pid)
	for i := range m.host.Hierarchies {
		if m.dirs[i] == "" {
			continue
		}
		if err := writeFile(filepath.Join(m.dirs[i], "cgroup.procs"), value); err != nil {
			return m.explainJoin(i, pid, err)
		}
	}
	return nil
}

func (m *Manager) explainJoin(i, pid int, err error) error {
	x, dir := &m.host.Hierarchies[i], m.dirs[i]
	who := "the new process"
	if pid > 0 {
		who = "process " + strconv.Itoa(pid)
	}
	switch {
	case errors.Is(err, unix.ESRCH):
		return errs.New(errs.NotFound, "move %s into control group %s: it is gone: %w", who, dir, err)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV):
		return errs.New(errs.NotFound, "move %s into control group %s: the group was removed: %w", who, dir, err)
	case errors.Is(err, unix.EBUSY) && x.Unified:
		return errs.New(errs.Conflict, "move %s into control group %s: %w: the group has controllers enabled for its own "+
			"children, so it may not hold processes", who, dir, err)
	case errors.Is(err, unix.EINVAL) && x.has("cpu"):
		return errs.New(errs.Conflict, "move %s into control group %s: %w: it has a realtime scheduling policy and the group "+
			"has no realtime time: set cpu.realtimeRuntime, or do not start from a realtime process", who, dir, err)
	}
	return errs.Wrap(err, "move %s into control group %s", who, dir)
}

// explainClone says which limit a refused clone ran into.
func (m *Manager) explainClone(err error) error {
	if !errors.Is(err, unix.EAGAIN) {
		return err
	}
	i := m.host.find("pids")
	if i < 0 || m.dirs[i] == "" {
		return err
	}
	cur, _ := readFile(filepath.Join(m.dirs[i], "pids.current"))
	limit, _ := readFile(filepath.Join(m.dirs[i], "pids.max"))
	return errs.New(errs.Exhausted, "start a process in control group %s: %w: it has %s of at most %s processes: end some "+
		"or raise its process limit (--pids-limit)", m.dirs[i], err, strings.TrimSpace(cur), strings.TrimSpace(limit))
}

// Path is the group's path, the same in every hierarchy, e.g. /shoal/web.
func (m *Manager) Path() string { return m.group }

// Paths gives the group's directory per hierarchy, keyed by controller, "name=x" for named ones, "" for unified.
func (m *Manager) Paths() map[string]string {
	out := map[string]string{}
	for i, x := range m.host.Hierarchies {
		if m.dirs[i] == "" {
			continue
		}
		if len(x.Controllers) == 0 || x.Unified {
			out[x.Name] = m.dirs[i]
			continue
		}
		for _, c := range x.Controllers {
			out[c] = m.dirs[i]
		}
	}
	return out
}

// Exists says whether any of the groups is there.
func (m *Manager) Exists() bool {
	for _, d := range m.dirs {
		if d != "" && isDir(d) {
			return true
		}
	}
	return false
}

// stateVersion is the version of the saved form.
const stateVersion = 1

// State is the saved form of a Manager: JSON, to be kept beside the container's other state.
type State struct {
	Version int               `json:"version"`
	Path    string            `json:"path"`
	Dirs    map[string]string `json:"dirs"`               // by hierarchy name as /proc/self/cgroup says it
	PidsMax string            `json:"pids_max,omitempty"` // held back for Seal
}

// State gives what Load needs to find the groups again.
func (m *Manager) State() State {
	s := State{Version: stateVersion, Path: m.group, Dirs: map[string]string{}, PidsMax: m.pidsMax}
	for i, x := range m.host.Hierarchies {
		if m.dirs[i] != "" {
			s.Dirs[x.Name] = m.dirs[i]
		}
	}
	return s
}

// MarshalJSON saves the State.
func (m *Manager) MarshalJSON() ([]byte, error) { return json.Marshal(m.State()) }

// Load finds the groups of a saved State again. The groups may be gone by now: see Exists.
func (h *Host) Load(s State) (*Manager, error) {
	if s.Version != stateVersion {
		return nil, errs.New(errs.Damaged, "saved control group state has version %d, this program reads version %d", s.Version, stateVersion)
	}
	if s.Path == "" || s.Path == "/" {
		return nil, errs.New(errs.Damaged, "saved control group state names the group %q", s.Path)
	}
	m := &Manager{host: h, group: s.Path, dirs: make([]string, len(h.Hierarchies)), pidsMax: s.PidsMax}
	for i, x := range h.Hierarchies {
		m.dirs[i] = s.Dirs[x.Name]
	}
	return m, nil
}

func firstPid(dir string) (int, bool) {
	b, err := readFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil || b == "" {
		return 0, false
	}
	line, _, _ := strings.Cut(b, "\n")
	pid, err := strconv.Atoi(line)
	return pid, err == nil
}

// Raw file access: os.WriteFile would create, truncate, register with the poller and retry; these files want one write.

func writeFile(name, value string) error {
	fd, err := openRetry(name, unix.O_WRONLY|unix.O_CLOEXEC)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	if err := writeFD(fd, value); err != nil {
		return &os.PathError{Op: "write " + strconv.Quote(value) + " to", Path: name, Err: err}
	}
	return nil
}

func openRetry(name string, flags int) (int, error) {
	for {
		fd, err := unix.Open(name, flags, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func writeFD(fd int, value string) error {
	for {
		_, err := unix.Write(fd, []byte(value))
		if err != unix.EINTR {
			return err
		}
	}
}

func readFile(name string) (string, error) {
	fd, err := openRetry(name, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	buf := make([]byte, 0, 4096)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", &os.PathError{Op: "read", Path: name, Err: err}
		}
		if n == 0 {
			return string(buf), nil
		}
		buf = buf[:len(buf)+n]
	}
}

func mkdir(name string) error {
	for {
		if err := unix.Mkdir(name, 0o755); err != unix.EINTR {
			return err
		}
	}
}

func rmdir(name string) error {
	for {
		if err := unix.Rmdir(name); err != unix.EINTR {
			if err == unix.ENOENT {
				return nil
			}
			return err
		}
	}
}
