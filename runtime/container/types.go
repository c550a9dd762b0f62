package container

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/cgroup"
	"github.com/shoalhq/shoal/runtime/state"
)

// Runtime works on the containers below one root directory. It holds nothing open and may be shared; make it by Open.
type Runtime struct {
	store *state.Store
	host  func() (*cgroup.Host, error) // found out once
	// Warn is told of what was asked and is left out because this host does not have it; nil drops it.
	Warn func(message string)
}

// Open names the root directory, usually on tmpfs; it is made when the first container is created.
func Open(root string) *Runtime {
	return &Runtime{store: state.Open(root), host: sync.OnceValues(cgroup.Detect)}
}

// Prefetch finds out in the background what a start will need to know of this host.
func (r *Runtime) Prefetch() { go r.host() }

func (r *Runtime) warn(format string, args ...any) {
	if r.Warn != nil {
		r.Warn(fmt.Sprintf(format, args...))
	}
}

// Launch is what creating a container and running a process in one have in common.
type Launch struct {
	Stdio         [3]*os.File // standard input, output, error; nil is /dev/null. The files stay the caller's
	ConsoleSocket string      // unix socket to which the terminal's master is sent; "" returns it as Process.Console
	PidfdSocket   string      // unix socket to which the process's pidfd is sent
	PreserveFDs   int         // descriptors 3 to 3+n-1 of the caller go to the process too
	NoNewKeyring  bool
	PidFile       string // written before Create, Run or Exec return
}

// CreateOptions say what container to create. Spec nil is Bundle/config.json; Config is Spec's encoding, when the caller
// has it.
type CreateOptions struct {
	Launch
	ID           string
	Bundle       string
	Spec         *specs.Spec
	Config       []byte
	CgroupParent string // for a relative or empty cgroupsPath; "" is runtime/cgroup's default
	NoPivot      bool
	Rootless     bool // go on without what only root may have; set by Run and Create too when not root
	// Joins, when not nil, waits until the namespaces that the configuration names by path are there.
	Joins func() error
}

// ExecOptions say what process to run in a container.
type ExecOptions struct {
	Launch
	// Process is complete: nothing is taken from the container's own process. ExecProcess makes one from it.
	Process *specs.Process
	// Force allows it in a paused container.
	Force bool
}

// Process is a process whose parent the caller now is.
type Process struct {
	ID      string
	Pid     int
	PidFD   *os.File // readable when the process has ended
	Console *os.File // the terminal's master, or nil
	reaped  bool
	begun   *creation // of a container that Begin made, until Ready
	made    *made     // of a container that waits for its start
}

// made is what creating a container found out, so that a start by the same process reads nothing again.
type made struct {
	spec   *specs.Spec
	record *state.Record
	groups *cgroup.Manager
	// exe is what init executes. Whoever closes it last unmounts it, which takes the kernel some 0.1 ms: it is kept until
	// the program runs, so that this is not init.
	exe *os.File
}

// Cgroup gives the control groups of the container that Create or Begin made this process in; nil once it was started.
func (p *Process) Cgroup() *cgroup.Manager {
	switch {
	case p.begun != nil:
		return p.begun.cgroup
	case p.made != nil:
		return p.made.groups
	}
	return nil
}

// Wait waits for the end of the process. Only its parent can, once.
func (p *Process) Wait() (unix.WaitStatus, error) {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(p.Pid, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait for process %d: %w", p.Pid, err)
		}
		return status, nil
	}
}

// Close closes the descriptors of the Process; the process itself is not touched.
func (p *Process) Close() {
	for _, f := range []*os.File{p.PidFD, p.Console} {
		if f != nil {
			f.Close()
		}
	}
}

// Status is what `state` and `list` tell of a container.
type Status struct {
	Version     string               `json:"ociVersion"`
	ID          string               `json:"id"`
	Pid         int                  `json:"pid"`
	Status      specs.ContainerState `json:"status"` // creating, created, running, paused, stopped
	Bundle      string               `json:"bundle"`
	Rootfs      string               `json:"rootfs"`
	Created     time.Time            `json:"created"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Owner       string               `json:"owner"`
}

// Paused is a status beyond the specification's, as every runtime has it.
const Paused specs.ContainerState = "paused"

// ExitCode is the exit code that engines give a container or exec whose start failed with err: 127 the program is not
// there, 126 it cannot be executed, else 1.
func ExitCode(err error) int {
	var p *programError
	if !asProgramError(err, &p) {
		return 1
	}
	if errs.Is(err, errs.NotFound) {
		return errs.ExitNotFound
	}
	return errs.ExitNotExecutable
}
