package model

import (
	"time"
)

// Status is where a container stands in its life.
type Status string

// The states of a container, with the Docker Engine API's names.
const (
	StatusCreated    Status = "created"
	StatusRunning    Status = "running"
	StatusPaused     Status = "paused"
	StatusRestarting Status = "restarting"
	StatusRemoving   Status = "removing"
	StatusExited     Status = "exited"
	StatusDead       Status = "dead"
)

// State is what became of a container.
type State struct {
	Status       Status
	Pid          int // of the init process, while running
	ExitCode     int
	OOMKilled    bool
	Error        string // why the last start failed, whole
	StartedAt    time.Time
	FinishedAt   time.Time
	RestartCount int
	UserStopped  bool         // a user asked it to stop: unless-stopped stays down
	Health       *HealthState // nil: no health check
}

// Alive says whether the container has a running init process.
func (s State) Alive() bool { return s.Status == StatusRunning || s.Status == StatusPaused }

// HealthState is the result of a container's health check.
type HealthState struct {
	Status        string // starting, healthy, unhealthy
	FailingStreak int
	Log           []HealthResult // the last five, oldest first
}

// HealthResult is one run of the health check.
type HealthResult struct {
	Start, End time.Time
	ExitCode   int
	Output     string // at most 4096 bytes
}
