// Package supervise is the supervisor: the small process that parents one container. It creates the container, keeps its
// streams and terminal, writes its log, records how it ended, and serves the daemon's requests on a private socket;
// runtime/spec/supervisor_wire.go is the protocol. It outlives the daemon and must not need it for anything. It decides
// nothing about the container's life, and it does nothing at all while nothing happens: it waits for events of the
// kernel, never with a timer that repeats.
//
// docs/supervisor.md tells why it is built as it is, and what was measured.
package supervise

import (
	"os"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/runtime/spec"
)

// Runner makes containers: our own runtime in process, or a foreign OCI runtime program. The life of a container: Create
// (init exists) → Ready (its program does
// not run yet) → Start → its init ends → Control().KillAll → Destroy. Processes that Create
// and Exec give are children of this process, which waits for them by their pid.
type Runner interface {
	// Create returns *Failure in the error's chain when the program is to blame, and leaves nothing behind then.
	Create(o CreateOptions) (Container, error)
	// Resume gives a container that a Runner of this process made before the process executed itself anew.
	Resume(dir string, cfg *spec.SupervisorConfig, pid int, saved []byte) Container
	// Reap kills and removes what a killed supervisor left of the container in the directory.
	Reap(dir string, cfg *spec.SupervisorConfig) error
}

// CreateOptions say what to create.
type CreateOptions struct {
	ID     string
	Dir    string      // of the supervisor; has config.json, serves as bundle
	Stdio  [3]*os.File // for the program, unless it has a terminal
	Tty    bool
	Config *spec.SupervisorConfig
	Spaces func() error // waits until what spec.NetnsPath and UsernsPath name is there
}

// Container is one container that a Runner made.
type Container interface {
	Process
	// Ready waits until init has made the container; its terminal is there from then on. It fails as Create does, and then
	// the container must not be used any more.
	Ready() error
	// Start lets the program run. *Failure in the error's chain tells the exit code.
	Start() error
	// Exec runs one more process.
	Exec(o ExecOptions) (Process, error)
	Control() Control
	// Save gives what Resume needs; not ok when the container cannot be taken over an execution.
	Save() (saved []byte, ok bool)
	// Destroy removes the cgroup and the runtime's own state after the end, or takes a container that never ran back.
	Destroy() error
}

// ExecOptions say what to run.
type ExecOptions struct {
	ID      string
	Process *specs.Process
	Stdio   [3]*os.File // unless it has a terminal
	Tty     bool
	Size    [2]uint // of the terminal: height, width
}

// Process is a child of the supervisor in the container.
type Process interface {
	Pid() int
	// Console is the master end of its terminal, or nil. The supervisor closes it.
	Console() *os.File
}

// Control acts on the whole container.
type Control interface {
	Signal(sig syscall.Signal, all bool) error
	Freeze(on bool) error
	Update(r *specs.LinuxResources) error
	Stats() (model.Stats, error) // without networks and SystemTotal
	Pids() ([]int, error)
	KillAll() error
	Paths() map[string]string // of the cgroup, by controller
	OOM() OOM
}

// OOM tells of out-of-memory kills.
type OOM interface {
	// Count is how many there were; 0 when that cannot be known.
	Count() uint64
	// Watch gives a descriptor that becomes readable when there was one, and a function that reads it and returns the
	// count; fd is -1 where the kernel cannot tell.
	Watch() (fd int, read func() (uint64, error))
}

// Failure says that the program could not be run, and with which exit code the command line shows that.
type Failure struct {
	Code int // 126 not executable, 127 not found, 128 otherwise
	Err  error
}

func (f *Failure) Error() string { return f.Err.Error() }
func (f *Failure) Unwrap() error { return f.Err }
