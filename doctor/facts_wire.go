package doctor

import "time"

// Facts is what Collect found out. A zero Probe means "not tried".
type Facts struct {
	Kernel      Kernel           `json:"kernel"`
	Process     Process          `json:"process"`
	Cgroups     Cgroups          `json:"cgroups"`
	Storage     Storage          `json:"storage"`
	Security    Security         `json:"security"`
	Emulators   []Emulator       `json:"emulators"`
	Network     Network          `json:"network"`
	Namespaces  map[string]Probe `json:"namespaces"` // "user", "time", ...: can one be made?
	Sysctls     map[string]int64 `json:"sysctls"`    // those the rules look at, where the kernel has them
	Clock       Clock            `json:"clock"`
	MemoryBytes uint64           `json:"memoryBytes"`
	Engine      *Engine          `json:"engine,omitempty"` // nil: the daemon was not asked
}

// Emulator is a handler of the kernel (binfmt_misc) that runs programs of another processor.
type Emulator struct {
	Name    string `json:"name"` // "qemu-aarch64"
	Program string `json:"program"`
	Fixed   bool   `json:"fixed"` // flag F: the program was opened when it was registered, so containers need not have it
}

// Repair is what the daemon found changed behind its back since it started.
type Repair struct {
	Code  string    `json:"code"`
	What  string    `json:"what"`
	How   string    `json:"how"`
	Last  time.Time `json:"last"`
	Times int       `json:"times"`
}

// Probe is the outcome of trying something.
type Probe struct {
	Tried bool   `json:"tried"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"` // what the kernel said
}

// Kernel is the running one.
type Kernel struct {
	Release string `json:"release"`
	Major   int    `json:"major"`
	Minor   int    `json:"minor"`
	Machine string `json:"machine"`
}

// AtLeast compares versions.
func (k Kernel) AtLeast(major, minor int) bool {
	return k.Major > major || k.Major == major && k.Minor >= minor
}

// Process is what this process may do.
type Process struct {
	UID          int      `json:"uid"`
	MissingCaps  []string `json:"missingCapabilities"` // of those the engine uses
	FilesSoft    uint64   `json:"filesSoft"`           // RLIMIT_NOFILE
	FilesHard    uint64   `json:"filesHard"`
	OOMScoreDown Probe    `json:"oomScoreDown"` // lowering oom_score_adj
}

// Cgroups is how control groups are mounted.
type Cgroups struct {
	Mode        string          `json:"mode"` // "v1", "hybrid", "v2", "none"
	Controllers map[string]bool `json:"controllers"`
	Writable    Probe           `json:"writable"` // making a group
	SwapLimit   bool            `json:"swapLimit"`
}

// Storage is the file system of the data root.
type Storage struct {
	DataRoot   string   `json:"dataRoot"`
	FileSystem string   `json:"fileSystem"`
	Total      uint64   `json:"totalBytes"`
	Free       uint64   `json:"freeBytes"` // for everyone
	Files      uint64   `json:"inodes"`    // 0 where the file system has no fixed number
	FilesFree  uint64   `json:"inodesFree"`
	ReadOnly   bool     `json:"readOnly"`
	NoExec     bool     `json:"noExec"`
	NoSUID     bool     `json:"noSuid"`
	NoDev      bool     `json:"noDev"`
	Damaged    []string `json:"damaged,omitempty"` // what the daemon could not read and set aside
	Overlay    Probe    `json:"overlay"`           // mounting an overlay with its upper directory there
	Xattr      Probe    `json:"trustedXattr"`      // keeping trusted.* attributes there
}

// Security is what the kernel confines processes with.
type Security struct {
	Seccomp        Probe    `json:"seccomp"` // loading a filter is possible
	SeccompActions []string `json:"seccompActions"`
	AppArmor       bool     `json:"appArmor"`
	AppArmorParser bool     `json:"appArmorParser"` // the program that loads profiles is there
	SELinux        bool     `json:"selinux"`
	NoNewPrivs     bool     `json:"noNewPrivs"` // set on this process: set-uid programs and file capabilities have no effect
}

// Network is what the kernel offers for networks; the links are made in a network namespace of their own.
type Network struct {
	NFTables    Probe             `json:"nftables"`
	Links       map[string]Probe  `json:"links"`  // "bridge", "veth", "macvlan", "ipvlan", "vxlan", "dummy", "wireguard"
	Chains      []Chain           `json:"chains"` // of other programs, in the paths packets of containers take
	LegacyIPv4  []string          `json:"legacyIPTables"`
	LegacyIPv6  []string          `json:"legacyIP6Tables"`
	Resolvers   []string          `json:"resolvers"`
	Bridges     map[string]string `json:"bridgesOfDaemons,omitempty"` // links that daemons of Shoal made: name → owner
	Silent      []string          `json:"silentResolvers,omitempty"`  // those that do not answer, if they were asked
	DefaultIPv4 bool              `json:"defaultRouteIPv4"`
}

// Chain is a base chain of nftables (iptables-nft makes them as well).
type Chain struct {
	Family string `json:"family"`
	Table  string `json:"table"`
	Name   string `json:"name"`
	Hook   string `json:"hook"`
	Drops  bool   `json:"drops"`      // its policy
	Ends   bool   `json:"endsInDrop"` // its last rule drops or rejects what is left; looked at in forward chains only
}

// Clock is the host's time.
type Clock struct {
	Unix         int64 `json:"unix"`
	Synchronized bool  `json:"synchronized"`
}

// Engine is what only the daemon knows.
type Engine struct {
	Down    string         `json:"down,omitempty"`  // why it could not be asked
	Owner   string         `json:"owner,omitempty"` // as in Network.Bridges
	Exposed []Exposure     `json:"exposed"`
	Open    []string       `json:"open"` // addresses served without client certificates
	Sockets []BrokenSocket `json:"brokenSockets"`
	Repairs []Repair       `json:"repairs,omitempty"`
}

// Exposure is a container that can make itself master of the engine.
type Exposure struct {
	Container string `json:"container"`
	Source    string `json:"source"` // of the mount
	What      string `json:"what"`   // it sees there
	Key       bool   `json:"key"`    // a client's key, not the engine's own socket, key or directory
}

// BrokenSocket is a scoped socket that is not served.
type BrokenSocket struct {
	Name    string `json:"name"`
	Problem string `json:"problem"`
}
