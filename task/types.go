package task

import (
	"io"
	"os"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/clock"
	"github.com/shoalhq/shoal/runtime/spec"
)

// Config is what a Manager needs to know.
type Config struct {
	RuntimePath string // the program shoal-runtime
	ExecRoot    string // supervisors' directories are ExecRoot/tasks/ID; best on tmpfs
	// Runtimes are the foreign OCI runtimes by name; the name "" is our own and need not be there.
	Runtimes map[string]spec.RuntimeRef
	Clock    clock.Clock // nil is the real one
	// Group is a directory of the cgroup2 hierarchy where supervisors live, made when missing; "": where the daemon does.
	Group string
	// TLSForwarder is the command that forwards logs with TLS (runtime/logs/tlsdial.Main); empty: such drivers are refused.
	TLSForwarder []string
}

// StartRequest asks for a container to be run.
type StartRequest struct {
	// Config names and configures; WaitForStart is set by Start. Config.Runtime wins over Runtime when it has a path.
	Config  spec.SupervisorConfig
	Runtime string      // name of the OCI runtime
	Spec    *specs.Spec // not changed
	// Namespace, when not nil, gives the network namespace for the container. It may take its time: it is asked when the
	// supervisor is at work already. The file stays the caller's.
	Namespace func() (*os.File, error)
	// Created, when not nil, is called when the init process exists and the task answers, before the container's program
	// runs. An error takes everything back and is returned by Start.
	Created func(t *Task) error
}

// Conn is a connection with the streams of a container or an exec. Reads give raw bytes for a terminal, otherwise frames
// as the Docker Engine API has them, until the last output was sent; writes go to standard input.
type Conn interface {
	io.ReadWriteCloser
	CloseWrite() error // end of input
}

// AttachOptions choose streams.
type AttachOptions struct{ Stdin, Stdout, Stderr bool }

// ExecRequest asks for one more process in a container.
type ExecRequest struct {
	ID          string // unique in the container
	Process     *specs.Process
	Stdin       bool // without these the streams are /dev/null
	Stdout      bool
	Stderr      bool
	Tty         bool
	Detach      bool
	ConsoleSize [2]uint // height, width
}

// Exec is a process that Task.Exec started.
type Exec struct {
	Pid  int
	Conn Conn // nil when detached
	done chan struct{}
	exit spec.ExitStatus
}

// Done is closed when the process has ended and its exit status is known.
func (e *Exec) Done() <-chan struct{} { return e.done }

// Exit is how the process ended; valid once Done is closed.
func (e *Exec) Exit() spec.ExitStatus { return e.exit }

// StartFailure is in the chain of an error of Start and Exec when a program could not be run.
type StartFailure struct {
	Code int // the exit code to show: 126 not executable, 127 not found, 128 otherwise
	Err  error
}

func (f *StartFailure) Error() string { return f.Err.Error() }
func (f *StartFailure) Unwrap() error { return f.Err }

// Info identifies a task.
type Info struct {
	ID          string
	Pid         int
	StartedAt   time.Time         // zero until the program runs
	CgroupPaths map[string]string // absolute directories by controller, "" is the unified one
	Paused      bool              // it was when this daemon found it
}

// Exit codes that have no process behind them.
const (
	killedCode = 137 // the supervisor was killed and the container with it
)
