package node

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/doctor"
	"github.com/shoalhq/shoal/lib/version"
	"github.com/shoalhq/shoal/node/config"
)

// about tells what this daemon and its host are, for /info and /version.
type about struct {
	cfg      func() config.Config // the present configuration, which a reload changes
	id       string
	hostname string
	runtime  string                       // our OCI runtime's program
	driver   func(context.Context) string // of the image store
	images   func(context.Context) int
	warnings func() []string
	host     hostFacts
	logs     []string        // names of the log drivers
	drivers  func() []string // of volumes
}

// hostFacts is what does not change while the daemon runs.
type hostFacts struct {
	kernel, os, osVersion, arch string
	memory                      int64 // bytes
	cgroupVersion               string
	controllers                 map[string]bool
	apparmor, selinux           bool
}

var readHostFacts = sync.OnceValue(func() hostFacts {
	var f hostFacts
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		f.kernel, f.arch = unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])
	}
	f.os, f.osVersion = osRelease()
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		f.memory = int64(info.Totalram) * int64(info.Unit)
	}
	f.cgroupVersion, f.controllers = cgroupFacts()
	_, err := os.Stat("/sys/kernel/security/apparmor")
	f.apparmor = err == nil
	_, err = os.Stat("/sys/fs/selinux/enforce")
	f.selinux = err == nil
	return f
})

func osRelease() (name, version string) {
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch v = strings.Trim(v, `"'`); k {
			case "PRETTY_NAME":
				name = v
			case "VERSION_ID":
				version = v
			}
		}
		return name, version
	}
	return "Linux", ""
}

func cgroupFacts() (string, map[string]bool) {
	var fs unix.Statfs_t
	have := map[string]bool{}
	if unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		data, _ := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
		for c := range strings.FieldsSeq(string(data)) {
			have[c] = true
		}
		return "2", have
	}
	data, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(data)) {
		if f := strings.SplitN(line, ":", 3); len(f) == 3 {
			for c := range strings.SplitSeq(f[1], ",") {
				have[c] = true
			}
		}
	}
	return "1", have
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// maskedURL hides who a proxy is used as, as Docker does.
func maskedURL(s string) string {
	if u, err := url.Parse(s); err == nil && u.User != nil {
		u.User = url.UserPassword("xxxxx", "xxxxx")
		return u.String()
	}
	return s
}

// Info is the daemon's and the host's description.
func (a *about) Info(ctx context.Context) (system.Info, error) {
	c := a.cfg()
	h := a.host
	v1 := h.cgroupVersion == "1"
	info := system.Info{
		ID: a.id, Name: a.hostname, Driver: a.driver(ctx), Images: a.images(ctx), Labels: append([]string{}, c.Daemon.Labels...),
		Plugins:     system.PluginsInfo{Volume: a.drivers(), Network: []string{"bridge", "host", "ipvlan", "macvlan", "null"}, Log: a.logs, Authorization: c.API.Guard.AuthzPlugins},
		MemoryLimit: h.controllers["memory"], SwapLimit: !v1 || exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"),
		CPUCfsPeriod: h.controllers["cpu"], CPUCfsQuota: h.controllers["cpu"], CPUShares: h.controllers["cpu"], CPUSet: h.controllers["cpuset"],
		PidsLimit: h.controllers["pids"], OomKillDisable: v1 && h.controllers["memory"],
		IPv4Forwarding: forwarding(), Debug: c.Daemon.LogLevel == "debug",
		NFd: openFiles(), NGoroutines: goruntime.NumGoroutine(), LoggingDriver: c.Container.LogDriver,
		CgroupDriver: "cgroupfs", CgroupVersion: h.cgroupVersion,
		KernelVersion: h.kernel, OperatingSystem: h.os, OSVersion: h.osVersion, OSType: "linux", Architecture: h.arch,
		NCPU: goruntime.NumCPU(), MemTotal: h.memory, DockerRootDir: c.Daemon.DataRoot,
		HTTPProxy: maskedURL(os.Getenv("HTTP_PROXY")), HTTPSProxy: maskedURL(os.Getenv("HTTPS_PROXY")), NoProxy: os.Getenv("NO_PROXY"),
		ExperimentalBuild: c.Daemon.Experimental, ServerVersion: version.Version,
		DefaultRuntime: c.Container.DefaultRuntime, LiveRestoreEnabled: true, InitBinary: "built in",
		Swarm:           swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive},
		FirewallBackend: &system.FirewallInfo{Driver: "nftables"},
		CDISpecDirs:     cdiSpecDirs(&c),
		RegistryConfig:  registries(&c), IndexServerAddress: "https://index.docker.io/v1/",
		Warnings: append(a.warnings(), c.Warnings...),
	}
	info.SecurityOptions = a.security()
	for _, name := range (&devices{dirs: func() []string { return info.CDISpecDirs }}).Names() {
		info.DiscoveredDevices = append(info.DiscoveredDevices, system.DeviceInfo{Source: "cdi", ID: name})
	}
	info.Runtimes = map[string]system.RuntimeWithStatus{}
	for name, r := range taskRuntimes(&c) {
		if r.Path == "" {
			r.Path = a.runtime
		}
		info.Runtimes[name] = system.RuntimeWithStatus{Runtime: system.Runtime{Path: r.Path, Args: r.Args}}
	}
	// What containers are run and started with is ours; of containerd there are the parts that keep images.
	info.RuncCommit.ID, info.InitCommit.ID = version.GitCommit, version.GitCommit
	info.ContainerdCommit.ID = version.Module("github.com/containerd/containerd/v2")
	if info.Driver == "overlay2" {
		info.DriverStatus = [][2]string{{"Backing Filesystem", doctor.FileSystem(c.Daemon.DataRoot)}, {"Supports d_type", "true"},
			{"Using metacopy", "false"}, {"Native Overlay Diff", "true"}, {"userxattr", "false"}}
	}
	for _, p := range c.Network.Pools {
		info.DefaultAddressPools = append(info.DefaultAddressPools, system.NetworkAddressPool{Base: p.Base, Size: p.Size})
	}
	return info, nil
}

// registries tells how registries are spoken to, in Docker's shape.
func registries(c *config.Config) *registry.ServiceConfig {
	mirrors := []string{}
	for _, m := range c.Registry.Mirrors {
		if !strings.Contains(m, "=") { // those of other registries than Docker Hub have no place here
			mirrors = append(mirrors, m)
		}
	}
	out := &registry.ServiceConfig{Mirrors: mirrors, IndexConfigs: map[string]*registry.IndexInfo{
		"docker.io": {Name: "docker.io", Mirrors: mirrors, Secure: true, Official: true}}}
	for _, name := range append([]string{"127.0.0.0/8", "::1/128"}, c.Registry.Insecure...) {
		if p, err := netip.ParsePrefix(name); err == nil {
			out.InsecureRegistryCIDRs = append(out.InsecureRegistryCIDRs, p)
		} else {
			out.IndexConfigs[name] = &registry.IndexInfo{Name: name, Mirrors: []string{}}
		}
	}
	return out
}

func (a *about) security() (options []string) {
	if a.host.apparmor {
		options = append(options, "name=apparmor")
	}
	if a.cfg().Container.Defaults.SELinux {
		options = append(options, "name=selinux")
	}
	options = append(options, "name=seccomp,profile=builtin")
	if a.cfg().Container.Defaults.UsernsRemap != "" {
		options = append(options, "name=userns")
	}
	if a.host.cgroupVersion == "2" {
		options = append(options, "name=cgroupns")
	}
	return options
}

func forwarding() bool {
	b, _ := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	return strings.TrimSpace(string(b)) == "1"
}

func openFiles() int {
	es, _ := os.ReadDir("/proc/self/fd")
	return len(es)
}

// Version is the daemon's version.
func (a *about) Version(context.Context) (system.VersionResponse, error) {
	return system.VersionResponse{
		Platform: system.PlatformInfo{Name: "Shoal"}, Version: version.Version,
		APIVersion: types.MaxVersion.String(), MinAPIVersion: types.MinVersion.String(), Os: "linux", Arch: goruntime.GOARCH,
		GitCommit: version.GitCommit, GoVersion: version.Go(), KernelVersion: a.host.kernel, BuildTime: version.BuildTime,
		Experimental: a.cfg().Daemon.Experimental,
		Components: []system.ComponentVersion{{Name: "Engine", Version: version.Version, Details: map[string]string{
			"ApiVersion": types.MaxVersion.String(), "MinAPIVersion": types.MinVersion.String(), "Os": "linux", "Arch": goruntime.GOARCH,
			"GitCommit": version.GitCommit, "GoVersion": version.Go(), "KernelVersion": a.host.kernel, "BuildTime": version.BuildTime,
			"Experimental": fmt.Sprint(a.cfg().Daemon.Experimental)}}},
	}, nil
}

// daemonID is an identifier that stays the same as long as the data root does.
func daemonID(dataRoot string) string {
	machine, _ := os.ReadFile("/etc/machine-id")
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s", strings.TrimSpace(string(machine)), filepath.Clean(dataRoot)))
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}
