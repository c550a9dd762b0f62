package convert

import (
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// CreateBody is the body of POST /containers/create as all versions have it together.
type CreateBody struct {
	*container.Config
	Cmd              StrSlice
	Entrypoint       StrSlice
	MacAddress       string // of the whole container; until 1.51
	HostConfig       *HostConfigBody
	NetworkingConfig *network.NetworkingConfig
}

// HostConfigBody is a host configuration with what newer versions dropped.
type HostConfigBody struct {
	container.HostConfig
	KernelMemory    int64 // until 1.41
	KernelMemoryTCP int64 // until 1.51
}

// NetworkCreateBody is the body of POST /networks/create as all versions have it together. It lets addresses be strings so
// that what is wrong can be named.
type NetworkCreateBody struct {
	Name       string
	Driver     string
	Scope      string
	EnableIPv4 *bool
	EnableIPv6 *bool
	IPAM       *network.IPAM
	Internal   bool
	Attachable bool
	Ingress    bool
	ConfigOnly bool
	ConfigFrom *network.ConfigReference
	Options    map[string]string
	Labels     map[string]string
}
