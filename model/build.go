package model

import "time"

// BuildRequest is one build as the classic build endpoint asks for it.
type BuildRequest struct {
	ID      string // of the client's choice, to cancel by; may be empty
	Session string // of a client that serves its context itself (BuildKit); empty: the context comes with the request, or from Remote
	Remote  string // a URL of a context; empty: the request's body is an archive
	Source  BuildSource
	Options BuildOptions
	Limits  BuildLimits
	Outputs []BuildOutput // none: an image in the store
	Auth    map[string]BuildAuth
}

// BuildSource is what of the context is built, and into which names.
type BuildSource struct {
	Dockerfile string // path in the context; empty is Dockerfile
	Target     string // stage; empty is the last
	Platform   string // empty is this host's
	Tags       []string
	Labels     map[string]string
	Args       map[string]*string // nil: not set by the client; the Dockerfile's default counts
	Squash     bool
}

// BuildOptions are how it is built.
type BuildOptions struct {
	NoCache    bool
	Pull       bool // look for newer base images in the registries
	CacheFrom  []string
	Network    string   // of the steps: "", default, bridge, none, host
	ExtraHosts []string // name:address
	Quiet      bool
}

// BuildLimits hold for each step. Zero is no limit.
type BuildLimits struct {
	Memory, MemorySwap             int64 // bytes
	CPUShares, CPUQuota, CPUPeriod int64
	CpusetCPUs, CpusetMems         string
	CgroupParent                   string
	ShmSize                        int64 // bytes
	Ulimits                        []Ulimit
}

// BuildOutput is a destination that is not the image store.
type BuildOutput struct {
	Type  string
	Attrs map[string]string
}

// BuildAuth are credentials for a registry's host.
type BuildAuth struct{ Username, Password, IdentityToken, RegistryToken string }

// BuildMessage is one thing that a build says. One field is set.
type BuildMessage struct {
	Stream string // text for people
	Trace  []byte // BuildKit's status message, in protobuf
	ID     string // of the image that was made
}

// BuildCacheRecord is one entry of the build cache.
type BuildCacheRecord struct {
	ID          string
	Parents     []string
	Type        string // "regular", "internal", "frontend", "source.local", "source.git.checkout", "exec.cachemount"
	Description string
	InUse       bool
	Shared      bool  // an image has it too
	Size        int64 // bytes
	Created     time.Time
	LastUsed    time.Time // zero: never
	UsageCount  int
}

// BuildPruneOptions choose what of the build cache goes. Sizes are bytes, 0 is not set.
type BuildPruneOptions struct {
	All          bool
	ReservedSize int64
	MaxUsed      int64
	MinFree      int64
	Filters      Filters // until, id, parent, type, description, inuse, shared, private
}

// BuildPruneReport says what was removed.
type BuildPruneReport struct {
	Deleted   []string
	Reclaimed int64
}
