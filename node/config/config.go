// Package config reads what shoald was told: dockerd's flags and the keys of daemon.json where they have a meaning here.
// A harmless option without a meaning is accepted with a warning; one that would be unsafe to ignore is refused with
// the reason. It must not act on anything.
package config

import (
	"net/netip"
	"time"
)

// Config is a whole configuration, defaults filled in.
type Config struct {
	Daemon    Daemon
	API       API
	Network   Network
	Container Container
	Registry  Registry
	Plugins   Plugins
	Builder   Builder
	// Warnings are sentences about options that were accepted without effect.
	Warnings []string
}

// Daemon is about the daemon's own process and places.
type Daemon struct {
	DataRoot      string // images, containers, volumes
	ExecRoot      string // on tmpfs: supervisors, sockets
	Pidfile       string
	ConfigFile    string
	LogLevel      string // debug, info, warn, error, fatal
	LogFormat     string // text, json
	Labels        []string
	Experimental  bool
	LiveRestore   bool // always on; kept for /info
	StopOnExit    bool // --shutdown-containers
	StopTimeout   time.Duration
	StorageDriver string // "", overlay2, overlayfs, native, vfs
}

// API is about who may talk to the daemon.
type API struct {
	Hosts         []string // unix://, tcp://, fd://
	Group         string   // owner of the unix sockets
	TLS           bool
	TLSVerify     bool
	CACert        string
	Cert          string
	Key           string
	AllowPlainTCP bool // serve TCP without client certificates although that is root for everybody
	MetricsAddr   string
	Guard         Guard
}

// Guard is about what stands before the API.
type Guard struct {
	AuthzPlugins []string // asked about every request, in order
	AuditLog     string   // file; "" is off
	AuditLooks   bool     // requests that change nothing as well
	AuditSize    int64    // bytes after which a new file is begun
	AuditFiles   int      // old files that are kept
	SocketMounts string   // what happens to containers that mount the engine's socket: WarnMounts, ForbidMounts, AllowMounts
}

// The policies about mounts of the engine's own socket, keys and directories.
const (
	WarnMounts   = "warn"
	ForbidMounts = "forbid"
	AllowMounts  = "allow"
)

// Network is about the networks of the host.
type Network struct {
	Bridge         string // name of the default bridge's link, or "none"
	IPv4           BridgeRange
	IPv6           BridgeRange
	MTU            int
	Pools          []Pool
	Publish        Publish
	DNS            DNS
	ICC            bool
	IPForward      bool
	HostGatewayIPs []netip.Addr                 // what host-gateway stands for; empty: the gateways of the container's networks
	NetworkOpts    map[string]map[string]string // driver → options of networks made without them
}

// Plugins is where programs of others are found. Empty lists are the places that Docker and CNI use.
type Plugins struct {
	Dirs    []string // of Docker's plug-ins: NAME.sock, NAME.spec, NAME.json
	CNIBin  []string // of CNI plug-ins
	CNIConf string   // of CNI network configurations
	Timeout int      // seconds that one call may take; 0: 30
}

// BridgeRange is what one address family of the default bridge has.
type BridgeRange struct {
	On        bool         // of IPv6 only: --ipv6
	Bridge    netip.Prefix // --bip, --bip6: the bridge's address and its subnet
	FixedCIDR netip.Prefix // part of the subnet that containers get their addresses from
	Gateway   netip.Addr   // default route of the containers, when it is not the bridge
}

// Publish is about ports and packet filtering.
type Publish struct {
	Filter         bool       // --iptables: manage packet filter rules at all
	Filter6        bool       // --ip6tables
	Masquerade     bool       // --ip-masq
	DefaultAddress netip.Addr // --ip: host address of published ports that name none
	HostPolicy     bool       // --publish-policy=host: the host's firewall decides as for the host's own servers
	UserlandProxy  bool       // carry in the daemon what the packet filter cannot
	DirectRouting  bool       // published ports are open at the containers' own addresses, too
}

// DNS is what containers get unless they say otherwise.
type DNS struct {
	Servers []string
	Options []string
	Search  []string
}

// Pool is a range that networks' subnets are taken from, Size bits long each.
type Pool struct {
	Base netip.Prefix `json:"base"`
	Size int          `json:"size"`
}

// Container is what containers get unless they say otherwise.
type Container struct {
	LogDriver      string
	LogOpts        map[string]string
	Ulimits        map[string]Ulimit
	Runtimes       map[string]Runtime
	DefaultRuntime string
	Defaults       ContainerDefaults
}

// ContainerDefaults are single values that containers get unless they say otherwise.
type ContainerDefaults struct {
	Init           bool
	ShmSize        int64 // bytes
	IPCMode        string
	CgroupnsMode   string
	CgroupParent   string
	PidsLimit      int64
	NoNewPrivs     bool
	SeccompProfile string // path, "builtin" or "unconfined"
	CDISpecDirs    []string
	SELinux        bool
	UsernsRemap    string // whose subordinate ids containers get: "", "default", USER[:GROUP] or UID[:GID]
}

// Ulimit is a default resource limit.
type Ulimit struct {
	Name string
	Soft int64
	Hard int64
}

// Runtime is a foreign OCI runtime.
type Runtime struct {
	Path string   `json:"path"`
	Args []string `json:"runtimeArgs,omitempty"`
}

// Registry is about registries.
type Registry struct {
	Insecure               []string
	Mirrors                []string
	MaxConcurrentDownloads int
	MaxConcurrentUploads   int
	MaxDownloadAttempts    int
	Server                 RegistryServer
	Reclaim                Reclaim
	Proxies                Proxies
}

// Proxies are those that registries are reached by; empty ones leave it to the environment.
type Proxies struct{ HTTP, HTTPS, No string }

// Reclaim says how full the disk may become, in percent, before unused images are removed by themselves, and how full it
// may be afterwards. Zero: never.
type Reclaim struct{ High, Low int }

// RegistryServer is about the built-in registry.
type RegistryServer struct {
	Listen    string // address; "" serves none
	Users     string // file of names and bcrypt passwords; "" lets everybody in
	Cert      string
	Key       string
	Proxy     string // domain of the registry to stand before as a pull-through cache
	ReadOnly  bool
	Anonymous bool // let everybody push on an address that others reach
}

// Default is the configuration of a daemon that was told nothing.
func Default() Config {
	return Config{
		Daemon: Daemon{
			DataRoot: "/var/lib/shoal", ExecRoot: "/run/shoal", Pidfile: "/run/shoald.pid",
			ConfigFile: "/etc/shoal/daemon.json", LogLevel: "info", LogFormat: "text", LiveRestore: true, StopTimeout: 15 * time.Second,
		},
		API:     API{Group: "shoal", Guard: Guard{AuditSize: 10 << 20, AuditFiles: 5, SocketMounts: WarnMounts}},
		Network: Network{ICC: true, IPForward: true, Publish: Publish{Filter: true, Filter6: true, Masquerade: true, UserlandProxy: true}},
		Container: Container{
			LogDriver: "local", LogOpts: map[string]string{}, Ulimits: map[string]Ulimit{}, Runtimes: map[string]Runtime{}, DefaultRuntime: "shoal",
			Defaults: ContainerDefaults{ShmSize: 64 << 20, IPCMode: "private", SeccompProfile: "builtin"},
		},
		Registry: Registry{MaxConcurrentDownloads: 3, MaxConcurrentUploads: 5, MaxDownloadAttempts: 5},
	}
}

// DefaultHost is the address that the daemon serves and the command line calls when nobody says otherwise.
const DefaultHost = "unix:///run/shoal/shoal.sock"
