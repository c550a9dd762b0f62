package node

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/profiles/seccomp"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/engine"
	"github.com/shoalhq/shoal/engine/ocispec"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/node/config"
	"github.com/shoalhq/shoal/runtime/cgroup"
	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/task"
)

func (n *Node) openEngine(ctx context.Context, cfg *config.Config, profile string, idMaps *model.IDMaps, atClose engine.AtClose) (*engine.Engine, error) {
	hostname, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	defaults, err := engineDefaults(cfg)
	if err != nil {
		return nil, err
	}
	runtimePath, err := findRuntime()
	if err != nil {
		return nil, err
	}
	selinuxLabels, err := openLabels(cfg)
	if err != nil {
		return nil, err
	}
	host := specHost()
	host.SELinux, host.Profile = selinuxLabels != nil, profile
	dns := func() config.DNS { return n.cfg.Load().Network.DNS }
	return engine.Open(ctx, engine.Config{
		Root: cfg.Daemon.DataRoot, ExecRoot: cfg.Daemon.ExecRoot, Host: host, Hostname: hostname, IDMaps: idMaps,
		Seccomp: ocispec.SeccompSource{Default: seccomp.GetDefaultProfile, Load: seccomp.LoadProfile}, Log: n.log,
		InitProgram: runtimePath, AtClose: atClose, StorageDriver: n.storageDriver,
	}, engine.Ports{
		Images: n.images, Networks: engineNetworks{n.networks, dns, n.log}, Volumes: n.volumes,
		Tasks: tasks{n.tasks, hostname}, RootFS: rootFS{}, Events: n.bus, Labels: selinuxLabels, Devices: n.devices(),
	}, defaults)
}

func engineDefaults(cfg *config.Config) (engine.Defaults, error) {
	c := cfg.Container
	d := engine.Defaults{
		Runtime: c.DefaultRuntime, Log: model.LogConfig{Driver: c.LogDriver, Options: c.LogOpts},
		Limits:  ocispec.Limits{PidsLimit: c.Defaults.PidsLimit, CgroupParent: c.Defaults.CgroupParent, NoNewPrivs: c.Defaults.NoNewPrivs},
		ShmSize: c.Defaults.ShmSize, Init: c.Defaults.Init, IPC: c.Defaults.IPCMode, CgroupNS: c.Defaults.CgroupnsMode,
		NetworkDisabled: cfg.Network.Bridge == "none",
	}
	for name := range taskRuntimes(cfg) {
		d.Runtimes = append(d.Runtimes, name)
	}
	slices.Sort(d.Runtimes)
	for _, u := range c.Ulimits {
		d.Limits.Ulimits = append(d.Limits.Ulimits, model.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	switch p := c.Defaults.SeccompProfile; p {
	case "", "builtin":
	case "unconfined":
		d.Seccomp = p
	default:
		text, err := os.ReadFile(p)
		if err != nil {
			return d, errs.New(errs.Invalid, "read --seccomp-profile: %w", err)
		}
		d.Seccomp = string(text)
	}
	return d, nil
}

// specHost is what the machine can do, as far as a container's configuration depends on it.
func specHost() ocispec.Host {
	f := readHostFacts()
	h := ocispec.Host{CgroupV2: f.cgroupVersion == "2", AppArmor: appArmorActive(), Arch: goruntime.GOARCH, Size: ocispec.Size{CPUs: goruntime.NumCPU(), MemoryNodes: memoryNodes()},
		CgroupDev: exists("/proc/self/ns/cgroup"), Seccomp: exists("/proc/sys/kernel/seccomp/actions_avail")}
	last, _ := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	h.LastCap, _ = strconv.Atoi(strings.TrimSpace(string(last)))
	h.Caps = ownCapabilities()
	h.Thermal, _ = filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")
	// mount_setattr came with Linux 5.12; an empty call on no descriptor tells whether it is there.
	h.RRO = unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{}) != unix.ENOSYS
	return h
}

// ownCapabilities is what this process may do, and so can give to containers; 0 when it cannot be found out.
func ownCapabilities() uint64 {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "CapPrm:"); ok {
			mask, _ := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
			return mask
		}
	}
	return 0
}

// taskRuntimes are the foreign runtimes by the names that containers may ask for; our own has two, one of which old
// clients send by themselves.
func taskRuntimes(cfg *config.Config) map[string]spec.RuntimeRef {
	all := map[string]spec.RuntimeRef{"shoal": {}, "runc": {}, "io.containerd.runc.v2": {}}
	for name, r := range cfg.Container.Runtimes {
		all[name] = spec.RuntimeRef{Path: programPath(r.Path), Args: r.Args, Root: filepath.Join(cfg.Daemon.ExecRoot, "runtime-"+name)}
	}
	return all
}

// programPath finds a program that is named without its directory. One that is not there keeps its name, for the message
// of whoever wants to start it.
func programPath(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return name
}

func taskConfig(cfg *config.Config, runtimePath string) task.Config {
	c := task.Config{RuntimePath: runtimePath, ExecRoot: cfg.Daemon.ExecRoot, Runtimes: taskRuntimes(cfg)}
	if self, err := os.Executable(); err == nil {
		c.TLSForwarder = []string{self, "log-forward"}
	}
	if host, err := cgroup.Detect(); err == nil { // else the first container's start says what is wrong
		// Beside the containers' parent, since groups within it share its processors with them.
		c.Group = host.Apart(groupsParent(cfg) + supervisorsSuffix)
	}
	return c
}

const supervisorsSuffix = "-supervisors"

// groupsParent is the group below which containers have theirs.
func groupsParent(cfg *config.Config) string {
	return filepath.Join("/", cmp.Or(cfg.Container.Defaults.CgroupParent, cgroup.DefaultParent))
}

// warnings are what /info says of this host.
func (n *Node) warnings() (ws []string) {
	f := readHostFacts()
	for name, what := range map[string]string{"memory": "memory", "cpu": "CPU", "pids": "PID"} {
		if !f.controllers[name] {
			ws = append(ws, fmt.Sprintf("WARNING: No %s limit support: the kernel's cgroup controller %s is not there", what, name))
		}
	}
	for _, d := range n.images.Damaged() {
		ws = append(ws, "WARNING: "+d+" was damaged on disk and could not be fetched again: pull or load its image again (the daemon's log names it)")
	}
	if !forwarding() {
		ws = append(ws, "WARNING: IPv4 forwarding is disabled: containers reach nothing outside; set net.ipv4.ip_forward=1")
	}
	return ws
}

// memoryNodes is one more than the highest number of a NUMA node with memory, 0 where the kernel does not tell.
func memoryNodes() int {
	data, err := os.ReadFile("/sys/devices/system/node/has_memory")
	if err != nil {
		return 0
	}
	text := strings.TrimSpace(string(data)) // such as 0-1,3
	last, err := strconv.Atoi(text[strings.LastIndexAny(text, ",-")+1:])
	if err != nil {
		return 0
	}
	return last + 1
}
