package cgroup

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// Mode is how the host arranges its control groups.
type Mode int

// The modes.
const (
	V1     Mode = iota + 1 // v1 hierarchies only
	Hybrid                 // v1 hierarchies with the controllers, and a cgroup2 hierarchy without or with other ones
	V2                     // the unified hierarchy only
)

func (m Mode) String() string {
	switch m {
	case V1:
		return "v1"
	case Hybrid:
		return "hybrid"
	case V2:
		return "v2"
	}
	return "none"
}

// Hierarchy is one mounted tree of groups.
type Hierarchy struct {
	Name        string   // what /proc/self/cgroup calls it: "cpu,cpuacct", "name=systemd"; "" is the unified hierarchy
	Controllers []string // the controllers it carries; named hierarchies have none
	Mount       string   // where it is mounted, e.g. /sys/fs/cgroup/cpu,cpuacct
	Root        string   // the group shown at Mount; "/" unless only a part is mounted here
	Own         string   // this process's group, as /proc/self/cgroup says it
	Unified     bool     // cgroup2
	Options     string   // mount options that select it on v1: "cpu,cpuacct", "none,name=systemd"
}

// Host is what Detect found. It does not change afterwards and may be shared.
type Host struct {
	Mode        Mode
	Hierarchies []Hierarchy
}

// spawned says that a thread of this process was moved into a container's groups.
var spawned atomic.Bool

// Detect reads which hierarchies are mounted and which groups this process is in.
func Detect() (*Host, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, errs.Wrap(err, "find the control groups of this host")
	}
	// The process's own groups are those of its first thread, unless Spawn may have moved that one. Asking by thread is the
	// exception: when the last thread ends at the same time as its process, the kernel forgets what it knows of
	// /proc/PID/task/TID on one processor while the parent, in wait, spins on it on another, for up to 2 ms.
	name := "/proc/self/cgroup"
	if spawned.Load() {
		name = "/proc/thread-self/cgroup"
	}
	own, err := os.ReadFile(name)
	if err != nil {
		return nil, errs.Wrap(err, "find the control groups of this process")
	}
	h, err := parseHost(mounts, own)
	if err != nil || !h.needsControllers() {
		return h, err
	}
	for i := range h.Hierarchies {
		if u := &h.Hierarchies[i]; u.Unified {
			b, err := os.ReadFile(filepath.Join(u.Mount, "cgroup.controllers"))
			if err != nil {
				return nil, errs.Wrap(err, "find the controllers of the unified hierarchy at %s", u.Mount)
			}
			u.Controllers = strings.Fields(string(b))
		}
	}
	return h, nil
}

func (h *Host) needsControllers() bool { return h.Mode == V2 || h.Mode == Hybrid }

// parseHost understands proc(5) mountinfo and cgroups(7) /proc/PID/cgroup. The first mount of a hierarchy counts: a
// second one (for example made inside a container's files) shows the same groups.
func parseHost(mountinfo, own []byte) (*Host, error) {
	groups := parseOwn(own)
	h := &Host{}
	seen := map[string]bool{}
	for line := range bytes.Lines(mountinfo) {
		// Cheap test first: hosts with many containers have thousands of lines.
		sep := bytes.Index(line, []byte(" - cgroup"))
		if sep < 0 {
			continue
		}
		pre, post := strings.Fields(string(line[:sep])), strings.Fields(string(line[sep+3:]))
		if len(pre) < 6 || len(post) < 3 {
			continue
		}
		hier := Hierarchy{Root: unescape(pre[3]), Mount: unescape(pre[4])}
		switch post[0] {
		case "cgroup2":
			hier.Unified = true
		case "cgroup":
			for o := range strings.SplitSeq(post[2], ",") {
				if g, ok := groups[o]; ok && o != "" {
					hier.Name, hier.Own = g.name, g.path
				}
			}
			if hier.Name == "" {
				continue // a hierarchy this process is not in: it has nothing to say about us
			}
			if n, named := strings.CutPrefix(hier.Name, "name="); named {
				hier.Options = "none,name=" + n
			} else {
				hier.Controllers = strings.Split(hier.Name, ",")
				hier.Options = hier.Name
			}
		default:
			continue
		}
		if hier.Unified {
			hier.Own = groups[""].path
		}
		if seen[hier.Name] {
			continue
		}
		seen[hier.Name] = true
		h.Hierarchies = append(h.Hierarchies, hier)
	}
	return h.classify()
}

func (h *Host) classify() (*Host, error) {
	var v1, unified bool
	for _, x := range h.Hierarchies {
		if x.Unified {
			unified = true
		} else {
			v1 = true
		}
	}
	switch {
	case v1 && unified:
		h.Mode = Hybrid
	case v1:
		h.Mode = V1
	case unified:
		h.Mode = V2
	default:
		return nil, errs.New(errs.Unsupported, "no control groups are mounted on this host: mount them, for example "+
			"with: mount -t cgroup2 none /sys/fs/cgroup")
	}
	return h, nil
}

type ownGroup struct{ name, path string }

// parseOwn indexes /proc/self/cgroup by each controller and each name=; "" is the unified hierarchy.
func parseOwn(own []byte) map[string]ownGroup {
	groups := map[string]ownGroup{}
	for line := range strings.Lines(string(own)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		for c := range strings.SplitSeq(f[1], ",") {
			groups[c] = ownGroup{f[1], f[2]}
		}
	}
	return groups
}

// unescape undoes mountinfo's octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// dir is where the group is to be found under this hierarchy's mount.
func (x *Hierarchy) dir(group string) string { return filepath.Join(x.Mount, group) }

// OwnDir is this process's own group as a directory, or "" when the mount does not show it.
func (x *Hierarchy) OwnDir() string {
	rel, ok := x.Own, true
	if x.Root != "/" {
		rel, ok = strings.CutPrefix(x.Own, x.Root)
	}
	if !ok || strings.HasPrefix(rel, "/..") {
		return ""
	}
	return filepath.Join(x.Mount, rel)
}

// Apart is the directory, which need not exist, of the group of that name in the cgroup2 hierarchy, for processes that are
// not to share the group which this process was put into. It is "" where nobody put it into any, and without cgroup2.
func (h *Host) Apart(group string) string {
	i := h.unified()
	if i < 0 || h.Hierarchies[i].Own == "/" || h.Hierarchies[i].Own == "" {
		return ""
	}
	return h.Hierarchies[i].dir(group)
}

// label names the hierarchy in messages.
func (x *Hierarchy) label() string {
	if x.Unified {
		return "unified"
	}
	return x.Name
}

func (x *Hierarchy) has(controller string) bool {
	for _, c := range x.Controllers {
		if c == controller {
			return true
		}
	}
	return false
}

// find gives the index of the hierarchy that carries the controller, or -1.
func (h *Host) find(controller string) int {
	for i := range h.Hierarchies {
		if h.Hierarchies[i].has(controller) {
			return i
		}
	}
	return -1
}

// unified gives the index of the cgroup2 hierarchy, or -1.
func (h *Host) unified() int {
	for i := range h.Hierarchies {
		if h.Hierarchies[i].Unified {
			return i
		}
	}
	return -1
}

// Has says whether the host offers the controller ("memory", "pids", "blkio" is also "io" and the reverse).
func (h *Host) Has(controller string) bool {
	switch controller {
	case "blkio", "io":
		return h.find("blkio") >= 0 || h.find("io") >= 0
	case "devices", "freezer": // parts of the core on v2
		return h.find(controller) >= 0 || h.Mode == V2
	}
	return h.find(controller) >= 0
}

// ContainerMount says what to mount for one hierarchy below /sys/fs/cgroup in a container.
//
// On v2 there is one, with Dir "": with a cgroup namespace mount a fresh cgroup2 there, without one bind Source.
// On v1 and hybrid first mount a tmpfs, then for each: with a cgroup namespace mount FSType with Data at Dir, without
// one bind Source at Dir; then make a symbolic link to Dir for each of Links (co-mounted controllers).
type ContainerMount struct {
	Dir    string   // relative to /sys/fs/cgroup
	FSType string   // "cgroup" or "cgroup2"
	Data   string   // mount data, e.g. "cpu,cpuacct"
	Source string   // the container's own group on the host, for a bind mount
	Links  []string // names which must lead to Dir too
}

// ContainerMounts lists what a container sees at /sys/fs/cgroup, in mount order.
func (m *Manager) ContainerMounts() []ContainerMount {
	if m.host.Mode == V2 {
		return []ContainerMount{{FSType: "cgroup2", Source: m.dirs[m.host.unified()]}}
	}
	var out []ContainerMount
	for i, x := range m.host.Hierarchies {
		if m.dirs[i] == "" {
			continue
		}
		if x.Unified {
			out = append(out, ContainerMount{Dir: "unified", FSType: "cgroup2", Source: m.dirs[i]})
			continue
		}
		c := ContainerMount{Dir: strings.TrimPrefix(x.Name, "name="), FSType: "cgroup", Data: x.Options, Source: m.dirs[i]}
		if len(x.Controllers) > 1 {
			c.Links = x.Controllers
		}
		out = append(out, c)
	}
	return out
}

func isDir(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}
