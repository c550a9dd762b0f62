package types

// PublishedPort is one element of the answer to GET /shoal/ports.
type PublishedPort struct {
	ContainerID string   `json:"ContainerID"`
	Container   string   `json:"Container"`
	Port        string   `json:"Port"`             // "80/tcp"; empty: all
	HostIP      string   `json:"HostIP,omitempty"` // of the host's address; empty: not through the host
	HostPort    uint16   `json:"HostPort,omitempty"`
	Target      string   `json:"Target,omitempty"` // address and port of the container
	Through     string   `json:"Through"`          // "kernel", "daemon", or "" when it cannot be reached
	From        []string `json:"From"`             // who reaches it, in words, or ranges of addresses
	Problem     string   `json:"Problem,omitempty"`
}

// PortChange is the body of POST /shoal/containers/{name}/ports.
type PortChange struct {
	Add    []PortSpec `json:"Add,omitempty"`
	Remove []PortSpec `json:"Remove,omitempty"`
}

// PortSpec names a published port as a user does. In Remove, what is left out matches everything.
type PortSpec struct {
	Port     string   `json:"Port"` // "80/tcp"
	HostIP   string   `json:"HostIP,omitempty"`
	HostPort string   `json:"HostPort,omitempty"` // "8080", "8000-8010", or empty for a free one
	From     []string `json:"From,omitempty"`     // who may connect; empty: everybody
}
