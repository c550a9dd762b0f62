package cgroup

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// Set changes the limits of groups that exist; what res leaves out stays as it is. When one limit is refused, those
// already changed get their old values back. Devices are left alone unless res.Devices has rules.
func (m *Manager) Set(res *specs.LinuxResources) error {
	plan, err := m.host.plan(res, false)
	if err != nil {
		return err
	}
	before := m.remember(plan)
	if err := m.apply(plan); err != nil {
		_ = m.apply(before) // the first error is the one to report
		return err
	}
	if res != nil && len(res.Devices) > 0 {
		return m.setDevices(res, false)
	}
	return nil
}

// remember gives the plan that would bring back the present values of single-valued files.
func (m *Manager) remember(p *plan) *plan {
	old := &plan{host: p.host}
	for _, w := range slices.Backward(p.writes) {
		if strings.ContainsAny(w.value, ":=") || w.file == "memory.oom_control" || w.controller == "rdma" || w.controller == "net_prio" {
			continue // tables: their lines cannot be told apart from the kernel's defaults
		}
		v, err := readFile(filepath.Join(m.dirs[m.hierarchyOf(w)], w.file))
		if err != nil {
			continue
		}
		w.value, w.check, w.option = strings.TrimSpace(v), "", optional
		old.writes = append(old.writes, w)
	}
	return old
}

func (m *Manager) hierarchyOf(w write) int {
	if w.controller == "" {
		return m.host.unified()
	}
	return m.host.find(w.controller)
}

// apply writes the plan. Some values bound each other (memory and its sum with swap; quota, period and burst), and in
// which order they fit depends on what is there now: what the kernel calls invalid is tried once more after the rest.
func (m *Manager) apply(p *plan) error {
	var again []write
	for _, w := range p.writes {
		err := m.writeSetting(m.hierarchyOf(w), w)
		switch {
		case err == nil:
		case errors.Is(err, unix.EINVAL) && len(p.writes) > 1:
			again = append(again, w)
		default:
			return err
		}
	}
	for _, w := range again {
		if err := m.writeSetting(m.hierarchyOf(w), w); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) writeSetting(i int, w write) error {
	dir := m.dirs[i]
	if dir == "" {
		return errs.New(errs.Forbidden, "%s: this user may not make control groups for the %s controller: run as root, or "+
			"delegate the hierarchy to this user", w.option, w.controller)
	}
	name := filepath.Join(dir, w.file)
	if w.check != "" {
		if err := checkBelow(filepath.Join(dir, w.check), w); err != nil {
			return err
		}
	}
	if rest, keep := strings.CutPrefix(w.value, keepFirst); keep {
		now, err := readFile(name)
		if err != nil {
			return m.explainWrite(i, w, err)
		}
		first, _, _ := strings.Cut(strings.TrimSpace(now), " ")
		w.value = first + " " + rest
	}
	err := writeFile(name, w.value)
	if err != nil && w.option == optional && errors.Is(err, unix.ENOENT) {
		return nil
	}
	// Without BFQ io.bfq.weight is missing, and io.weight (the cost model) takes its place, on its own scale.
	if errors.Is(err, unix.ENOENT) && w.file == "io.bfq.weight" {
		w.file, w.value = "io.weight", scaleIOWeight(w.value)
		err = writeFile(filepath.Join(dir, w.file), w.value)
	}
	if err != nil {
		return m.explainWrite(i, w, err)
	}
	return nil
}

// scaleIOWeight maps 10..1000 of blockIO.weight to 1..10000 of io.weight; the device in front stays.
func scaleIOWeight(v string) string {
	dev, w, ok := strings.Cut(v, " ")
	if !ok {
		dev, w = "", v
	}
	n, _ := strconv.Atoi(w)
	scaled := strconv.Itoa(1 + (n-minBlkioWeight)*9999/(maxBlkioWeight-minBlkioWeight))
	if dev == "" {
		return scaled
	}
	return dev + " " + scaled
}

func checkBelow(file string, w write) error {
	now, err := readFile(file)
	if err != nil {
		return errs.Wrap(err, "%s: memory.checkBeforeUpdate", w.option)
	}
	used, err1 := strconv.ParseUint(strings.TrimSpace(now), 10, 64)
	want, err2 := strconv.ParseUint(w.value, 10, 64)
	if err1 == nil && err2 == nil && used >= want {
		return errs.New(errs.Conflict, "%s %d is not above the %d bytes that the container uses now, and "+
			"memory.checkBeforeUpdate forbids to end processes for it: choose a higher limit", w.option, want, used)
	}
	return nil
}

// explainWrite says what was asked, which file refused which value, what bounds it, and what to do.
func (m *Manager) explainWrite(i int, w write, err error) error {
	dir := m.dirs[i]
	what := w.option
	if what == "" {
		what = w.file
	}
	fail := func(kind errs.Kind, why string) error {
		return errs.New(kind, "set %s: write %q to %s: %w: %s", what, w.value, filepath.Join(dir, w.file), cause(err), why)
	}
	parent := func() string {
		v, err := readFile(filepath.Join(path.Dir(dir), w.file))
		if err != nil || strings.TrimSpace(v) == "" {
			return "unknown"
		}
		return strings.TrimSpace(v)
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		if !isDir(dir) {
			return fail(errs.NotFound, "the control group is gone: is the container still running?")
		}
		return fail(errs.Unsupported, missingFile(w.file))
	case notAllowed(err) && w.controller == "cpuset":
		return fail(errs.Invalid, "not within the parent group's "+parent()+": choose from those")
	case notAllowed(err):
		return fail(errs.Forbidden, "this user may not change it: run as root, or delegate the group to this user")
	case errors.Is(err, unix.EBUSY) && strings.HasPrefix(w.file, "memory."):
		cur, _ := readFile(filepath.Join(dir, "memory.usage_in_bytes"))
		return fail(errs.Conflict, "the container uses "+strings.TrimSpace(cur)+" bytes and not enough can be reclaimed: choose a higher limit")
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fail(errs.Invalid, "there is no such device, or it is a partition: name the whole disk as MAJOR:MINOR (see lsblk)")
	case errors.Is(err, unix.ENOSPC) && w.controller == "cpuset":
		return fail(errs.Invalid, "the group holds processes and may not be left without processors or memory nodes")
	case errors.Is(err, unix.ERANGE), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSPC):
		return fail(errs.Invalid, m.bounds(w, parent()))
	}
	return fail(errs.KindOf(err), "the parent group has "+parent())
}

// cause strips the operation, which the message already has.
func cause(err error) error {
	if n := unix.Errno(0); errors.As(err, &n) {
		return n
	}
	return err
}

func missingFile(file string) string {
	switch {
	case strings.HasPrefix(file, "memory.memsw"), strings.HasPrefix(file, "memory.swap"):
		return "this kernel does not account swap: boot it with swapaccount=1, or leave memory.swap out"
	case strings.Contains(file, ".rt_"):
		return "this kernel has no realtime group scheduling (CONFIG_RT_GROUP_SCHED): leave the option out"
	case strings.Contains(file, "bfq") || file == "io.weight":
		return "this kernel has no weights for block I/O (CONFIG_BFQ_GROUP_IOSCHED or CONFIG_BLK_CGROUP_IOCOST): leave the option out"
	case strings.Contains(file, "burst"):
		return "bursts need kernel 5.14 or newer: leave the option out"
	case strings.Contains(file, "idle"):
		return "idle groups need kernel 5.15 or newer: leave the option out"
	case strings.HasPrefix(file, "hugetlb."):
		return "this kernel has no huge pages of that size: see /sys/kernel/mm/hugepages"
	case strings.Contains(file, "cfs_"), file == "cpu.max":
		return "this kernel cannot limit processor time (CONFIG_CFS_BANDWIDTH): leave the option out"
	}
	return "this kernel has no such file: leave the option out"
}

// bounds tells the limits of a value that the kernel refused.
func (m *Manager) bounds(w write, parent string) string {
	switch {
	case strings.Contains(w.file, "cfs_period"), strings.Contains(w.file, "cfs_quota"), w.file == "cpu.max":
		return "periods go from 1000 to 1000000 microseconds, quotas from 1000 up, and quota/period may not exceed the parent group's (" + parent + ")"
	case strings.Contains(w.file, "burst"):
		return "the burst may not exceed the quota"
	case strings.Contains(w.file, ".rt_"):
		return "the realtime share of all children may not exceed the parent group's (" + parent + "): give the parent some first"
	case w.file == "cpu.weight", w.file == "cpu.shares":
		return "the kernel refuses weights while cpu.idle is 1"
	case w.controller == "cpuset":
		return "not a list of processors or nodes such as 0-3,7, or not within the parent group's " + parent
	case strings.Contains(w.file, "memsw"), w.file == "memory.limit_in_bytes":
		return "memory.swap is the sum of memory and swap and must be at least memory.limit: give both"
	case w.controller == "pids":
		return "process limits go from 1 to 4194304, or -1 for none"
	case w.controller == "rdma":
		return "not an RDMA device of this host: see /sys/class/infiniband"
	case w.controller == "net_prio":
		return "not a network interface of the host's namespace: see /sys/class/net"
	case strings.Contains(w.file, "bfq.weight"):
		return "weights go from 10 to 1000; weights of one device need the bfq scheduler on it (/sys/block/*/queue/scheduler)"
	}
	return "the parent group has " + parent
}

// enableControllers passes the controllers from the root of the cgroup2 hierarchy down to the group's parent.
func (m *Manager) enableControllers(x *Hierarchy, p *plan) error {
	want := x.Controllers
	have, err := readFile(filepath.Join(x.dir(m.group), "cgroup.controllers"))
	if err != nil {
		return errs.Wrap(err, "find the controllers of control group %s", m.group)
	}
	if !missingAny(have, want) {
		return nil // the usual case: an earlier container did it
	}
	dir := x.Mount
	for _, part := range strings.Split(strings.TrimPrefix(m.group, "/"), "/") {
		if err := m.enableIn(dir, want, p); err != nil {
			return err
		}
		dir = filepath.Join(dir, part)
	}
	return nil
}

// evacuate moves the processes of a group into a child when the group is all that is mounted of the hierarchy, as in a
// container that runs a daemon: cgroup2 passes controllers on only from groups without processes, except for the true root.
// Nobody manages such a group; an init system would have done the same.
func evacuate(root string) bool {
	if _, err := os.Stat(filepath.Join(root, "cgroup.type")); err != nil {
		return false // the true root
	}
	leaf := filepath.Join(root, "init")
	if err := mkdir(leaf); err != nil && err != unix.EEXIST {
		return false
	}
	for range 10 { // they fork meanwhile
		text, err := readFile(filepath.Join(root, "cgroup.procs"))
		if err != nil || text == "" {
			return err == nil
		}
		for pid := range strings.FieldsSeq(text) {
			if err := writeFile(filepath.Join(leaf, "cgroup.procs"), pid); err != nil && !errors.Is(err, unix.ESRCH) {
				return false
			}
		}
	}
	return false
}

func (m *Manager) enableIn(dir string, want []string, p *plan) error {
	file := filepath.Join(dir, "cgroup.subtree_control")
	on, err := readFile(file)
	if err != nil {
		return errs.Wrap(err, "find the enabled controllers of %s", dir)
	}
	if !missingAny(on, want) {
		return nil
	}
	all := "+" + strings.Join(want, " +")
	err = writeFile(file, all)
	if errors.Is(err, unix.EBUSY) && dir == m.host.Hierarchies[m.host.unified()].Mount && evacuate(dir) {
		err = writeFile(file, all)
	}
	if err == nil {
		return nil
	}
	// One of them is refused; one by one, so that the rest works, and only what was asked for is an error.
	for _, c := range want {
		if err := writeFile(file, "+"+c); err != nil && p.needs(c) {
			why := "a parent group does not pass it on"
			switch {
			case errors.Is(err, unix.EBUSY):
				why = "the group holds processes itself, and cgroup v2 allows that only to groups without controllers for " +
					"children: move them into a child group, or run with a cgroup namespace of its own"
			case c == "cpu" && errors.Is(err, unix.EINVAL):
				why = "realtime processes outside of the root group forbid it (CONFIG_RT_GROUP_SCHED)"
			}
			return errs.New(errs.Unsupported, "enable the %s controller in %s: %w: %s", c, file, cause(err), why)
		}
	}
	return nil
}

func missingAny(have string, want []string) bool {
	fields := strings.Fields(have)
	return slices.ContainsFunc(want, func(c string) bool { return !slices.Contains(fields, c) })
}
