package model

import "time"

// Event is something that happened to an object.
type Event struct {
	Time   time.Time
	Type   string // container, image, network, volume, daemon
	Action string // "start", "die", "exec_start: ls"
	ID     string // the actor
	Attrs  map[string]string
	Scope  string // local, swarm
}
