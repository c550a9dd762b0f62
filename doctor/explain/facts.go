// Package explain says why a container, image, network or port is not as its owner wants it: why it stopped, restarts,
// cannot be reached, pulled or removed; with the evidence and the remedy. It is a pure function of facts, which the daemon
// gathers. Every code is in observe/health. It must not look at anything itself and must not show environments.
package explain

import (
	"net/netip"
	"time"

	"github.com/shoalhq/shoal/doctor"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/observe/audit"
)

// Facts are what is known about the one thing that was asked about. One of the pointers is set.
type Facts struct {
	Now       time.Time
	Container *Container
	Image     *Image
	Network   *Network
	Port      *Port
	Firewall  []doctor.Finding // about the host's firewall and forwarded packets
}

// Container is a container and what happened to it.
type Container struct {
	View       model.ContainerView
	Events     []model.Event  // of it, as far as they are remembered, oldest first
	Calls      []audit.Record // requests that changed it, when an audit log is kept
	LogTail    []string       // last lines that it printed
	Listening  []Listener     // sockets in its network namespace
	Listened   bool           // Listening could be found out
	Published  []Published
	Networks   []model.Network // that it is connected to
	Dependents []string        // containers that use its namespaces
}

// Listener is a socket that waits for connections or datagrams.
type Listener struct {
	Proto model.Proto // tcp, udp
	Addr  netip.Addr
	Port  uint16
}

// Published is a port as it is published now.
type Published struct {
	model.PortBinding
	Daemon  bool   // carried by the daemon
	Problem string // why nobody reaches it
}

// Image is an image, or the attempt to find it.
type Image struct {
	Ref      string
	Local    *model.Image // nil: not on this machine
	Guess    bool         // nobody said that an image was meant: nothing else has the name
	HostArch string       // "amd64"
	Users    []ImageUser
	// Remote is what the registry said when it was asked, of an image that is not here.
	Remote      error
	RemoteFound bool
}

// ImageUser is a container made from an image.
type ImageUser struct {
	Name    string
	Running bool
}

// Network is a network and who is on it.
type Network struct {
	model.Network
	Members []string
	Free    map[string]uint64 // addresses left, by subnet
}

// Port is a port of the host.
type Port struct {
	Number    uint16
	Proto     model.Proto
	By        *Container // that publishes it now
	Stopped   []string   // containers that would
	Holders   []Holder   // processes of the host that listen on it
	HolderLed bool       // Holders could be found out
}

// Holder is a process that listens on a port of the host.
type Holder struct {
	Listener
	Pid  int
	Name string
}
