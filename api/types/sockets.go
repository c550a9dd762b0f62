package types

import "time"

// SocketSpec is the body of POST /shoal/sockets: a socket whose users may do little and see little.
type SocketSpec struct {
	Name     string   `json:"Name"`
	ReadOnly bool     `json:"ReadOnly,omitempty"` // all verbs that change nothing
	Verbs    []string `json:"Verbs,omitempty"`    // in addition
	Labels   []string `json:"Labels,omitempty"`   // "name" or "name=value": what is seen has all of them; none: everything
	Group    string   `json:"Group,omitempty"`    // who may connect besides root: name or number
}

// Socket is one element of the answer to GET /shoal/sockets, and the answer to POST.
type Socket struct {
	Name    string    `json:"Name"`
	Path    string    `json:"Path"`
	Verbs   []string  `json:"Verbs"`
	Labels  []string  `json:"Labels"`
	Group   string    `json:"Group,omitempty"`
	Created time.Time `json:"Created"`
	Problem string    `json:"Problem,omitempty"` // why it is not served
}
