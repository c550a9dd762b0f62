// Package foreign speaks with network drivers that are other programs: Docker's remote network drivers and IPAM drivers
// (by the plug-in protocol), and CNI plug-ins (programs that are started for each endpoint). It keeps nothing: what must
// be remembered is given to the caller and asked back. It must not touch the kernel itself.
package foreign

import (
	"context"
	"encoding/json"
	"net/netip"

	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/network/plan"
)

// DriverCNI is the driver's name of networks that are made from CNI configurations.
const DriverCNI = "cni"

// Endpoint is what a driver is asked to make, or to take away.
type Endpoint struct {
	model.Endpoint               // the addresses as far as they are chosen; the driver may choose the others
	Net            model.Network `json:"net"`
	Ports          []model.PortBinding
	Exposed        []model.Port
	// Namespace is a path by which other programs open the container's network namespace; "" when that is gone.
	Namespace string          `json:"-"`
	Memo      json.RawMessage `json:"memo,omitempty"` // what the driver wants to be reminded of
}

// Made is what a driver made.
type Made struct {
	// Link is a link of the host that the caller moves into the container and gives the addresses, "" when the driver
	// has done all that is needed inside the container.
	Link   string
	Prefix string // of the link's name in the container, when the driver has a wish
	MAC    model.MAC
	V4, V6 netip.Prefix // zero: as asked
	GW4    netip.Addr
	GW6    netip.Addr
	Routes []plan.Route
	Memo   json.RawMessage
}

// Driver connects the containers of networks. Life: CreateNetwork → for each endpoint Connect → Disconnect →
// RemoveNetwork. A Connect that failed leaves nothing; Disconnect may be called for what is gone already. All are
// bounded in time.
type Driver interface {
	CreateNetwork(ctx context.Context, n model.Network) error
	RemoveNetwork(ctx context.Context, n model.Network) error
	Connect(ctx context.Context, e Endpoint) (Made, error)
	Disconnect(ctx context.Context, e Endpoint) error
	// Check says what is wrong with an endpoint of a running container, as far as the driver can tell.
	Check(ctx context.Context, e Endpoint) error
}
