package model

import (
	"io"
	"io/fs"
	"time"
)

// Filters are list filters as the Docker Engine API has them: for each key any of the values must match.
type Filters map[string][]string

// CreateRequest asks for a container.
type CreateRequest struct {
	Name     string // "" lets the engine choose one
	Image    string // reference or ID
	Platform string // "" is the host's
	Spec     ContainerSpec
}

// CreateResult is what came of it.
type CreateResult struct {
	ID       string
	Warnings []string
}

// ListOptions select containers.
type ListOptions struct {
	All     bool
	Limit   int // newest n, whatever their state; 0 is no limit
	Size    bool
	Filters Filters
}

// ContainerView is a container as lists and inspect give it: a copy that nobody else writes.
type ContainerView struct {
	Container
	ExecIDs []string
	Size    *ContainerSize // only when asked for
	// GraphDriver's directories, when the root filesystem is an overlay.
	Overlay *OverlayDirs
	// StorageDriver names what keeps the layers; "" is overlay2.
	StorageDriver string
}

// OverlayDirs are the directories of a container's root filesystem.
type OverlayDirs struct {
	Lower         []string // top first
	Upper, Work   string
	MergedIfKnown string
}

// ContainerSize is disk use in bytes.
type ContainerSize struct {
	Writable int64 // of the container's own layer
	RootFS   int64 // with the image
}

// RemoveOptions say how a container is removed.
type RemoveOptions struct{ Force, Volumes, Link bool }

// StopOptions say how a container is stopped; empty fields mean the container's own values.
type StopOptions struct {
	Signal  string
	Timeout *int
}

// UpdateRequest changes limits and the restart policy of a container, also while it runs. Nil or zero: unchanged.
type UpdateRequest struct {
	Resources Resources
	Restart   RestartPolicy
}

// WaitCondition says what Wait waits for.
type WaitCondition string

// The conditions of Wait.
const (
	WaitNotRunning WaitCondition = "not-running"
	WaitNextExit   WaitCondition = "next-exit"
	WaitRemoved    WaitCondition = "removed"
)

// WaitResult is how the container ended.
type WaitResult struct {
	ExitCode int
	Err      error // the wait itself failed
}

// TopResult is a process list.
type TopResult struct {
	Titles    []string
	Processes [][]string
}

// Streams are one client's ends of the standard streams; nil ones are not wanted. With a terminal all output goes to
// Stdout. The engine does not close them.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Raw, when set, is the client's whole connection, already past the HTTP upgrade: output goes there framed as the
	// Docker Engine API has it (raw with a terminal), input comes from Stdin; Stdout and Stderr are not used then.
	Raw io.Writer
	// CloseRaw, when set, shuts the write side of the connection when all output was sent.
	CloseRaw func() error
}

// AttachOptions choose what to attach to.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Stream                bool // live output, until the container ends
	Logs                  bool // first what was printed before
	DetachKeys            string
	// Ready is called once attached, before any byte flows: the API sends its upgrade answer there.
	Ready func() (Streams, error)
}

// LogOptions choose log entries.
type LogOptions struct {
	Stdout, Stderr bool
	Since, Until   time.Time // zero: no bound
	Tail           int       // last n; negative: all
	Follow         bool
	Details        bool
}

// LogEntry is one line of a container's log. Data ends with a newline unless Partial, when the line goes on in the stream's next
// entry, or when the stream ended without one.
type LogEntry struct {
	Time    time.Time
	Stderr  bool
	Partial bool
	Data    []byte
	Attrs   map[string]string
}

// ExecSpec is a process to run in a container.
type ExecSpec struct {
	Cmd          []string
	Env          []string
	User         string
	WorkingDir   string
	Privileged   bool
	Tty          bool
	AttachStdin  bool
	AttachStdout bool
	AttachStderr bool
	DetachKeys   string
	ConsoleSize  [2]uint // height, width
}

// Exec is an exec's record.
type Exec struct {
	ID          string
	ContainerID string
	Spec        ExecSpec
	Running     bool
	Started     bool
	Pid         int
	ExitCode    *int
}

// ExecStartOptions say how an exec is started.
type ExecStartOptions struct {
	Detach      bool
	ConsoleSize [2]uint
	Ready       func() (Streams, error) // as in AttachOptions; nil when detached
}

// Change is a difference between a container's root filesystem and its image.
type Change struct {
	Path string
	Kind ChangeKind
}

// ChangeKind says what changed.
type ChangeKind int

// The kinds of changes, with the Docker Engine API's numbers.
const (
	ChangeModified ChangeKind = 0
	ChangeAdded    ChangeKind = 1
	ChangeDeleted  ChangeKind = 2
)

// PathStat describes a path in a container.
type PathStat struct {
	Name       string
	Size       int64
	Mode       fs.FileMode
	Mtime      time.Time
	LinkTarget string
}

// CommitRequest makes an image of a container.
type CommitRequest struct {
	Container string
	Repo, Tag string
	Author    string
	Comment   string
	Changes   []string // Dockerfile instructions
	Pause     bool
	Config    *ContainerSpec // overrides what the container has; nil: as it is
}

// PruneResult says what was removed and how many bytes that freed.
type PruneResult struct {
	Deleted   []string
	Reclaimed uint64
}
