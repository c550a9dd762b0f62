package convert

import (
	"net/netip"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
)

// oldInspectResponse is GET /containers/{id}/json until 1.51.
type oldInspectResponse struct {
	container.InspectResponse
	Config          oldConfig
	HostConfig      oldHostConfig
	NetworkSettings *oldNetworkSettings
}

type oldConfig struct {
	*container.Config
	OnBuild    []string // shown also when empty
	MacAddress string   `json:",omitempty"`
}

type oldHostConfig struct {
	*container.HostConfig
	KernelMemory    *int64 `json:",omitempty"` // until 1.41 shown also when zero
	KernelMemoryTCP *int64 `json:",omitempty"`
}

// oldNetworkSettings repeats the default bridge's endpoint at the top, as before networks had names.
type oldNetworkSettings struct {
	container.NetworkSettings
	Bridge                 string
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []struct{}
	SecondaryIPv6Addresses []struct{}
	EndpointID             string
	Gateway                netip.Addr
	GlobalIPv6Address      netip.Addr
	GlobalIPv6PrefixLen    int
	IPAddress              netip.Addr
	IPPrefixLen            int
	IPv6Gateway            netip.Addr
	MacAddress             string
}

// oldImageSummary is an element of GET /images/json until 1.43.
type oldImageSummary struct {
	image.Summary
	VirtualSize int64
}

// oldImageInspect is GET /images/{name}/json until 1.51.
type oldImageInspect struct {
	image.InspectResponse
	Parent          string
	Comment         string
	DockerVersion   string
	Author          string
	Created         string            `json:",omitempty"`
	Config          any               // with a container's fields until 1.49
	VirtualSize     *int64            `json:",omitempty"` // until 1.43
	Container       *string           `json:",omitempty"` // until 1.44
	ContainerConfig *container.Config `json:",omitempty"` // until 1.44
}

// OldInfo is GET /info with what newer versions left out; a nil field is left out.
type OldInfo struct {
	system.Info
	KernelMemory      *bool `json:",omitempty"` // until 1.41
	KernelMemoryTCP   *bool `json:",omitempty"` // until 1.51
	BridgeNfIptables  *bool `json:",omitempty"` // until 1.49
	BridgeNfIP6tables *bool `json:"BridgeNfIp6tables,omitempty"`
	ContainerdCommit  oldCommit
	RuncCommit        oldCommit
	InitCommit        oldCommit
}

type oldCommit struct {
	ID       string
	Expected string `json:",omitempty"` // until 1.48
}

// oldEvent adds what events carried until 1.51.
type oldEvent struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	newEvent
}

// oldImageConfigShape is an image's config in 1.50 and 1.51.
type oldImageConfigShape struct {
	User         string
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Env          []string
	Cmd          []string
	Healthcheck  *container.HealthConfig `json:",omitempty"`
	Volumes      map[string]struct{}
	WorkingDir   string
	Entrypoint   []string
	OnBuild      []string
	Labels       map[string]string
	StopSignal   string   `json:",omitempty"`
	Shell        []string `json:",omitempty"`
}
