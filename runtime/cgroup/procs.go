package cgroup

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// Pids lists every process in the container's groups and the groups below them, in ascending order.
func (m *Manager) Pids() ([]int, error) {
	if len(m.Paths()) == 0 {
		return nil, errs.New(errs.Unsupported, "the container has no control group, since its user may not make any: its processes cannot be listed or frozen; "+
			"delegate a hierarchy to the user (systemd: Delegate=yes)")
	}
	var first error
	for _, i := range m.byPreference() {
		pids, err := pidsBelow(m.dirs[i], nil)
		if err == nil && len(pids) > 0 {
			slices.Sort(pids)
			return slices.Compact(pids), nil
		}
		if err != nil && !errors.Is(err, unix.ENOENT) && first == nil {
			first = errs.Wrap(err, "list the processes of control group %s", m.dirs[i])
		}
	}
	return nil, first
}

// byPreference orders the hierarchies by how sure they list all processes: unified, then the usual v1 controllers.
func (m *Manager) byPreference() []int {
	var order []int
	for _, i := range []int{m.host.unified(), m.host.find("pids"), m.host.find("freezer"), m.host.find("memory"), 0} {
		if i >= 0 && m.dirs[i] != "" && !slices.Contains(order, i) {
			order = append(order, i)
		}
	}
	return order
}

func pidsBelow(dir string, pids []int) ([]int, error) {
	text, err := readFile(filepath.Join(dir, "cgroup.procs"))
	// Threaded groups do not list processes; their threaded domain above does.
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return pids, err
	}
	for line := range strings.Lines(text) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			return pids, err
		}
		pids = append(pids, pid)
	}
	for _, c := range children(dir) {
		if pids, err = pidsBelow(filepath.Join(dir, c), pids); err != nil && !errors.Is(err, unix.ENOENT) {
			return pids, err
		}
	}
	return pids, nil
}

// children names the groups directly below. A group's link count says at once that there are none.
func children(dir string) []string {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil || st.Nlink == 2 {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// How long the kernel gets to stop, or to bury, the processes of a group: longest is a process in the middle of
// writing to a slow disk, or one that gives back a lot of memory.
const (
	freezeTimeout  = 5 * time.Second
	destroyTimeout = 10 * time.Second
)

// Freeze stops every process of the container and returns when all have stopped. When that takes longer than 5 s
// (a process hangs in the kernel) they go on and the error has the kind Deadline.
func (m *Manager) Freeze() error {
	if dir := m.freezeDir(); dir != "" {
		if err := m.freezeV2(dir, true); err != nil {
			_ = m.freezeV2(dir, false)
			return err
		}
		return nil
	}
	return m.freezeV1()
}

// Thaw lets them go on.
func (m *Manager) Thaw() error {
	if dir := m.freezeDir(); dir != "" {
		if err := m.freezeV2(dir, false); err != nil {
			return err
		}
	}
	i := m.host.find("freezer")
	if i < 0 || m.dirs[i] == "" {
		return nil
	}
	return errs.Wrap(writeFile(filepath.Join(m.dirs[i], "freezer.state"), "THAWED"), "thaw")
}

// Frozen says whether the container is stopped by Freeze, or on the way there.
func (m *Manager) Frozen() (bool, error) {
	if i := m.host.unified(); i >= 0 && m.dirs[i] != "" {
		v, err := readFile(filepath.Join(m.dirs[i], "cgroup.freeze"))
		if err == nil && strings.TrimSpace(v) == "1" {
			return true, nil
		}
		if m.host.Mode == V2 {
			return false, errs.Wrap(err, "find out whether the container is paused")
		}
	}
	i := m.host.find("freezer")
	if i < 0 || m.dirs[i] == "" {
		return false, nil
	}
	v, err := readFile(filepath.Join(m.dirs[i], "freezer.state"))
	if err != nil {
		return false, errs.Wrap(err, "find out whether the container is paused")
	}
	return strings.TrimSpace(v) != "THAWED", nil
}

// freezeDir is the cgroup2 group when the container's processes are in it. Its freezer is the better one on hybrid
// hosts too: the kernel tells when all have stopped, and stopped processes can be killed and traced.
func (m *Manager) freezeDir() string {
	i := m.host.unified()
	if i < 0 || m.dirs[i] == "" {
		return ""
	}
	if m.host.Mode == V2 {
		return m.dirs[i]
	}
	if v, err := event(m.dirs[i], "populated"); err == nil && v == 1 {
		return m.dirs[i]
	}
	return ""
}

func (m *Manager) freezeV2(dir string, on bool) error {
	value, want := "0", uint64(0)
	if on {
		value, want = "1", 1
	}
	if err := writeFile(filepath.Join(dir, "cgroup.freeze"), value); err != nil {
		return errs.Wrap(err, "pause the processes of control group %s", dir)
	}
	ok, err := waitEvent(dir, "frozen", want, freezeTimeout)
	if err != nil {
		return err
	}
	if !ok && on {
		return errs.New(errs.Deadline, "pause the processes of control group %s: not all stopped within %s; one hangs in the "+
			"kernel, look for state D in ps: they were let go on, try again", dir, freezeTimeout)
	}
	return nil
}

func (m *Manager) freezeV1() error {
	i := m.host.find("freezer")
	if i < 0 || m.dirs[i] == "" {
		return errs.New(errs.Unsupported, "pause: this host has no freezer: mount the freezer controller or cgroup2")
	}
	file := filepath.Join(m.dirs[i], "freezer.state")
	// v1 tells nobody when it is done: reading the state is what makes the kernel look.
	var state string
	for wait, end := 50*time.Microsecond, time.Now().Add(freezeTimeout); time.Now().Before(end); time.Sleep(wait) {
		if err := writeFile(file, "FROZEN"); err != nil {
			return errs.Wrap(err, "pause")
		}
		v, err := readFile(file)
		if err != nil {
			return errs.Wrap(err, "pause")
		}
		if state = strings.TrimSpace(v); state == "FROZEN" {
			return nil
		}
		wait = min(2*wait, 20*time.Millisecond)
	}
	_ = writeFile(file, "THAWED")
	return errs.New(errs.Deadline, "pause: %s is still %s after %s; a process hangs in the kernel, look for state D in ps: "+
		"they were let go on, try again", file, state, freezeTimeout)
}

// event reads one counter of cgroup.events.
func event(dir, key string) (uint64, error) {
	text, err := readFile(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		return 0, err
	}
	return keyed(text, key), nil
}

// keyed finds "key number" in a flat keyed file; 0 when it is not there.
func keyed(text, key string) uint64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, key+" "); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(rest), 10, 64)
			return n
		}
	}
	return 0
}

// waitEvent sleeps until cgroup.events has the value: the kernel wakes pollers at each change. A group that is gone
// counts as there.
func waitEvent(dir, key string, want uint64, timeout time.Duration) (bool, error) {
	fd, err := openRetry(filepath.Join(dir, "cgroup.events"), unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		if err == unix.ENOENT {
			return true, nil
		}
		return false, errs.Wrap(err, "watch control group %s", dir)
	}
	defer unix.Close(fd)
	buf := make([]byte, 256)
	for end := time.Now().Add(timeout); ; {
		n, err := unix.Pread(fd, buf, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENODEV:
			return true, nil
		case err != nil:
			return false, errs.Wrap(err, "watch control group %s", dir)
		}
		if keyed(string(buf[:n]), key) == want {
			return true, nil
		}
		left := time.Until(end)
		if left <= 0 {
			return false, nil
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, int(left/time.Millisecond)+1); err != nil && err != unix.EINTR {
			return false, errs.Wrap(err, "watch control group %s", dir)
		}
	}
}

// KillAll sends SIGKILL to every process of the container, also ones that are being forked, and does not wait for
// their end: Destroy does. Frozen ones die too.
func (m *Manager) KillAll() error {
	if i := m.host.unified(); i >= 0 && m.dirs[i] != "" {
		err := writeFile(filepath.Join(m.dirs[i], "cgroup.kill"), "1")
		switch {
		case err == nil && m.host.Mode == V2:
			return nil
		case err == nil:
			// Hybrid: only what was put into the v1 groups and not into this one is left.
			if !m.strays() {
				return m.Thaw() // the v1 freezer would keep the dead alive
			}
		case errors.Is(err, unix.ENOENT) && !isDir(m.dirs[i]) && m.host.Mode == V2:
			return nil // gone, and with it the processes
		case !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP):
			return errs.Wrap(err, "kill the processes of control group %s", m.dirs[i])
		}
	}
	return m.killEach()
}

// strays says whether a process of the v1 groups is outside the cgroup2 group.
func (m *Manager) strays() bool {
	inside := path.Join(m.host.Hierarchies[m.host.unified()].Root, m.group)
	for _, i := range m.byPreference() {
		if m.host.Hierarchies[i].Unified {
			continue
		}
		pids, _ := pidsBelow(m.dirs[i], nil)
		for _, pid := range pids {
			text, err := readFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
			if err != nil {
				continue
			}
			_, own, _ := strings.Cut(text, "0::")
			own, _, _ = strings.Cut(own, "\n")
			if own != inside && !strings.HasPrefix(own, inside+"/") {
				return true
			}
		}
		return false
	}
	return false
}

// killEach is for kernels before 5.14 and pure v1. Frozen processes cannot fork and their numbers cannot be given
// away, so one pass gets all of them; where freezing fails, passes go on until a pass finds nothing new.
func (m *Manager) killEach() error {
	frozen := m.Freeze() == nil
	defer m.Thaw() //nolint:errcheck // the processes' groups may be gone by then
	known := map[int]bool{}
	for range 100 {
		pids, err := m.Pids()
		if err != nil {
			return err
		}
		news := false
		for _, pid := range pids {
			news = news || !known[pid]
			known[pid] = true
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return errs.Wrap(err, "kill process %d of control group %s", pid, m.group)
			}
		}
		if frozen || !news {
			return nil
		}
	}
	return errs.New(errs.Conflict, "kill the processes of control group %s: new ones appear faster than they can be killed "+
		"and this host has no freezer: set a process limit", m.group)
}

// DestroyEmpty removes the groups if no process and no further group is in them, as is usual after the end of a container
// with a PID namespace, and says whether they are gone. It does not wait and spares KillAll, which costs more than the removal.
func (m *Manager) DestroyEmpty() bool {
	// The cgroup2 group first: it knows of the processes in all hierarchies.
	if i := m.host.unified(); i >= 0 && m.dirs[i] != "" && rmdir(m.dirs[i]) != nil {
		return false
	}
	for _, dir := range m.dirs {
		if dir != "" && rmdir(dir) != nil {
			return false
		}
	}
	return true
}

// Destroy removes the groups and the groups below them. Processes in the middle of dying are waited for (10 s); with
// live ones it fails with the kind Conflict and names them. Groups that are gone already are fine.
func (m *Manager) Destroy() error {
	end := time.Now().Add(destroyTimeout)
	var failed error
	for i := range m.dirs {
		if m.dirs[i] == "" {
			continue
		}
		if err := m.remove(i, end); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

func (m *Manager) remove(i int, end time.Time) error {
	dir := m.dirs[i]
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := removeTree(dir)
		if err == nil {
			return nil
		}
		if err != unix.EBUSY {
			return errs.Wrap(err, "remove control group %s", dir)
		}
		if time.Now().After(end) {
			pids, _ := pidsBelow(dir, nil)
			return errs.New(errs.Conflict, "remove control group %s: it still holds processes %v: end them first", dir, pids)
		}
		// The cgroup2 group tells when the last process is gone, for all hierarchies. Without one, v1 tells nobody
		// (release_agent would start a program): ask again, ever more seldom.
		if u := m.host.unified(); u >= 0 && m.dirs[u] != "" {
			if v, err := event(m.dirs[u], "populated"); err == nil && v == 1 {
				if _, err := waitEvent(m.dirs[u], "populated", 0, time.Until(end)); err != nil {
					return err
				}
				continue
			}
		}
		time.Sleep(wait)
	}
}

// removeTree removes the group, after the groups below it.
func removeTree(dir string) error {
	err := rmdir(dir)
	if err != unix.EBUSY && err != unix.ENOTEMPTY {
		return err
	}
	below := children(dir)
	if len(below) == 0 {
		return unix.EBUSY
	}
	for _, c := range below {
		if err := removeTree(filepath.Join(dir, c)); err != nil {
			return err
		}
	}
	return rmdir(dir)
}
