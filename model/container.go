package model

import (
	"strings"
	"time"
)

// Container is one container's whole record: what was asked (Spec), what it was made from, and what became of it.
// Times are UTC; the zero time is "never".
type Container struct {
	ID      string // 64 hexadecimal digits
	Name    string // without a leading slash, unique on the node
	Created time.Time
	Image   ContainerImage
	Spec    ContainerSpec
	State   State
	Runtime RuntimePlan // resolved at create and start
	Network NetworkState
	Mounts  []MountPoint // resolved at create; what inspect shows
}

// ContainerImage is the image that a container was made from.
type ContainerImage struct {
	Ref      string // as the user wrote it
	ID       string // config digest "sha256:..."; empty for a container of a root directory
	Digest   string // digest of the platform's manifest, when known
	Type     string // media type of the manifest
	Size     int64  // of the manifest
	Platform string // "linux/amd64"
}

// RuntimePlan is what create decided, so that every start does the same.
type RuntimePlan struct {
	Name            string   // name of the OCI runtime
	Path            string   // the program, first of Args, that the container runs
	Args            []string // its arguments, without Path
	LogPath         string   // where the log driver writes, if it writes a file
	AppArmorProfile string
	ProcessLabel    string
	MountLabel      string
	HostnamePath    string
	HostsPath       string
	ResolvConfPath  string
}

// ContainerSpec is what a user may ask of a container, the same for `run` and for a service's tasks.
type ContainerSpec struct {
	Process   ProcessSpec
	Labels    map[string]string
	Stop      StopSpec
	Health    *Healthcheck // nil: what the image says
	Restart   RestartPolicy
	Log       LogConfig
	Storage   StorageSpec
	Network   ContainerNetworkSpec
	Isolation IsolationSpec
	Security  SecuritySpec
	Resources Resources
	Options   LifeOptions
}

// ProcessSpec is the program to run and the streams it gets. Create merges the image's values into it.
type ProcessSpec struct {
	Entrypoint []string // nil: the image's; empty and not nil: none
	Cmd        []string
	Env        []string // NAME=value
	WorkingDir string
	User       string // name or uid, optionally ":" group or gid
	Shell      []string
	Umask      *uint32
	Tty        bool
	Stdin      StdinSpec
	ConsoleSz  [2]uint // height, width in characters at the start
}

// StdinSpec says what standard input is and which streams the creating client wanted attached.
type StdinSpec struct {
	Open         bool // keep standard input open though nobody is attached
	Once         bool // close it when the first client that attached leaves
	AttachStdin  bool
	AttachStdout bool
	AttachStderr bool
}

// StopSpec says how the container is asked to stop.
type StopSpec struct {
	Signal  string // "" is SIGTERM
	Timeout *int   // seconds until SIGKILL; nil is 10; negative waits for ever
}

// Healthcheck is a probe of the container's health. Zero durations and retries mean the default (30 s, 30 s, 0 s,
// 5 s, 3). Test is empty (inherit), {"NONE"}, {"CMD", args...} or {"CMD-SHELL", command}.
type Healthcheck struct {
	Test          []string
	Interval      time.Duration
	Timeout       time.Duration
	StartPeriod   time.Duration
	StartInterval time.Duration
	Retries       int
}

// RestartPolicy says when the engine starts a container again by itself.
type RestartPolicy struct {
	Name       string // "", "no", "always", "on-failure", "unless-stopped"
	MaxRetries int    // for on-failure; 0 is no limit
}

// LogConfig chooses the log driver. An empty Driver means the daemon's default.
type LogConfig struct {
	Driver  string
	Options map[string]string
}

// LifeOptions are the choices about a container's life as a whole.
type LifeOptions struct {
	AutoRemove      bool
	Init            *bool // run an init that reaps zombies; nil is the daemon's default
	Runtime         string
	Annotations     map[string]string
	ContainerIDFile string            // kept for inspect; the client writes it
	OnBuild         []string          // of the image, kept for commit
	StorageOpt      map[string]string // "size"
}

// StorageSpec is what is mounted.
type StorageSpec struct {
	Binds          []string            // "src:dst[:options]" as written
	BindsTopRO     bool                // "ro" in Binds means the top mount alone, as it did for clients before API 1.44
	Mounts         []Mount             // the structured form
	Tmpfs          map[string]string   // destination → mount options
	Volumes        map[string]struct{} // anonymous volumes
	VolumesFrom    []string            // "container[:ro|rw]"
	VolumeDriver   string
	ReadonlyRootfs bool
	ShmSize        int64 // bytes; 0 is the daemon's default
}

// Mount is one structured mount.
type Mount struct {
	Type        string // bind, volume, tmpfs, image
	Source      string
	Target      string
	ReadOnly    bool
	Consistency string
	Bind        *BindOptions
	Volume      *VolumeOptions
	Image       *ImageMountOptions
	Tmpfs       *TmpfsOptions
}

// BindOptions are the options of a bind mount.
type BindOptions struct {
	Propagation            string
	NonRecursive           bool
	CreateMountpoint       bool
	ReadOnlyNonRecursive   bool
	ReadOnlyForceRecursive bool
}

// VolumeOptions are the options of a volume mount.
type VolumeOptions struct {
	NoCopy        bool
	Labels        map[string]string
	Subpath       string
	HasDriver     bool // DriverName and DriverOptions were given
	DriverName    string
	DriverOptions map[string]string
}

// ImageMountOptions are the options of an image mount.
type ImageMountOptions struct{ Subpath string }

// TmpfsOptions are the options of a tmpfs mount.
type TmpfsOptions struct {
	SizeBytes int64
	Mode      uint32
	Options   [][]string
}

// MountSubpathOption is an OCI mount option of our own runtime: the path below the source to mount in place of the whole.
// (Options that begin with "x-" are for programs, see mount(8).)
const MountSubpathOption = "x-shoal.subpath="

// MountPoint is a mount as it was resolved.
type MountPoint struct {
	Type        string
	Name        string // of the volume
	Source      string // on the host
	Destination string // in the container
	Driver      string
	Mode        string // options as written
	RW          bool
	Propagation string
	Spec        *Mount // the structured request behind it, with what MountPoint does not say; nil for most of -v
}

// Subpath is the part of a volume or an image that is mounted; "" is the whole.
func (m *MountPoint) Subpath() string {
	switch {
	case m.Spec == nil:
	case m.Spec.Volume != nil:
		return m.Spec.Volume.Subpath
	case m.Spec.Image != nil:
		return m.Spec.Image.Subpath
	}
	return ""
}

// ContainerNetworkSpec is how the container is connected. PortBinding, Port and EndpointSpec are in network.go.
type ContainerNetworkSpec struct {
	Mode       string // "", "default", "bridge", "host", "none", "container:NAME", or a network's name
	Disabled   bool
	Hostname   string
	Domainname string
	MacAddress string
	Exposed    []Port // sorted
	Publish    []PortBinding
	PublishAll bool
	Endpoints  map[string]EndpointSpec // by network name, including the one of Mode
	Names      NameSpec
	Links      []string // "container:alias"
}

// NameSpec is name resolution inside the container.
type NameSpec struct {
	DNS        []string // addresses
	DNSOptions []string
	DNSSearch  []string
	ExtraHosts []string // "name:address" or "name:host-gateway"
}

// NetworkState is how the container is connected now.
type NetworkState struct {
	SandboxID  string
	SandboxKey string              // path of the network namespace while it runs
	Endpoints  map[string]Endpoint // by network name
	Ports      []PortBinding       // what was really published, with the host ports chosen
}

// IsolationSpec says which namespaces the container has for itself. Each mode is "" (the default), "host",
// "private", "shareable", "none" or "container:NAME", as far as the namespace knows it.
type IsolationSpec struct {
	IPC, PID, UTS, User, Cgroup string
	CgroupSpec                  string            // legacy "cgroup to join"; kept for inspect
	Isolation                   string            // "" or "default"; others exist on Windows only
	Sysctls                     map[string]string // namespaced ones
}

// SecuritySpec is what the container's processes may do.
type SecuritySpec struct {
	Privileged    bool
	CapAdd        []string
	CapDrop       []string
	GroupAdd      []string
	Options       []string  // --security-opt as written
	MaskedPaths   *[]string // nil: the default set
	ReadonlyPaths *[]string
}

// Resources are the limits and devices. Zero means no limit or the default unless it says otherwise.
type Resources struct {
	CPU           CPUResources
	Memory        MemoryResources
	BlockIO       BlockIOResources
	PidsLimit     *int64 // nil: daemon's default; 0 or negative: no limit
	Ulimits       []Ulimit
	Devices       []DeviceMapping
	DeviceRules   []string // "c 13:* rwm"
	DeviceRequest []DeviceRequest
	CgroupParent  string
	OomScoreAdj   int
}

// CPUResources limit the processors.
type CPUResources struct {
	Shares          int64
	NanoCPUs        int64 // 1e-9 processors
	Period          int64 // microseconds
	Quota           int64 // microseconds
	RealtimePeriod  int64
	RealtimeRuntime int64
	CpusetCpus      string // "0-2,4"
	CpusetMems      string
}

// MemoryResources limit memory, in bytes.
type MemoryResources struct {
	Limit          int64
	Reservation    int64
	Swap           int64 // memory and swap together; -1 is no limit
	Swappiness     *int64
	OomKillDisable *bool
}

// BlockIOResources limit block devices.
type BlockIOResources struct {
	Weight          uint16
	WeightDevice    []WeightDevice
	DeviceReadBps   []ThrottleDevice
	DeviceWriteBps  []ThrottleDevice
	DeviceReadIOps  []ThrottleDevice
	DeviceWriteIOps []ThrottleDevice
}

// WeightDevice weighs one block device.
type WeightDevice struct {
	Path   string
	Weight uint16
}

// ThrottleDevice limits one block device, in bytes or operations per second.
type ThrottleDevice struct {
	Path string
	Rate uint64
}

// Ulimit is one resource limit of the process; -1 is unlimited.
type Ulimit struct {
	Name       string // without RLIMIT_, lower case
	Soft, Hard int64
}

// DeviceMapping gives the container a device of the host.
type DeviceMapping struct {
	PathOnHost      string
	PathInContainer string
	Permissions     string // of "rwm"
}

// DeviceRequest asks a device driver (CDI) for devices.
type DeviceRequest struct {
	Driver       string
	Count        int // -1 is all
	DeviceIDs    []string
	Capabilities [][]string
	Options      map[string]string
}

// SplitLink takes a link of the default bridge apart: "NAME", "NAME:ALIAS" or, as inspect shows it, "/NAME:/OWN/ALIAS".
func SplitLink(link string) (name, alias string) {
	name, alias, has := strings.Cut(link, ":")
	if !has {
		alias = name
	}
	if strings.HasPrefix(name, "/") {
		return name[1:], alias[strings.LastIndexByte(alias, '/')+1:]
	}
	return name, alias
}
