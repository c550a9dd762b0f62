package engine

import (
	"context"
	"io"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/model"
)

// Images is where containers come from. A container holds its image from create (Use) to remove (Release); between the
// two the image's layers stay on disk whatever happens to its names. All methods may be called at any time from many
// goroutines.
type Images interface {
	// Resolve finds an image by name, digest, ID or unique short ID; an empty platform is the host's. NotFound says how
	// to get the image.
	Resolve(ctx context.Context, ref, platform string) (model.Image, error)
	// Lowers gives the read-only directories of an image's root filesystem, top first, unpacking them when needed.
	Lowers(ctx context.Context, imageID string) ([]string, error)
	// Use keeps the image as long as the container is there; using it again is no error.
	Use(ctx context.Context, containerID, imageID string) error
	// Release ends Use; releasing what is not held is no error.
	Release(ctx context.Context, containerID string) error
	// Commit makes an image of a container's changes and returns its ID.
	Commit(ctx context.Context, c model.ImageCommit) (string, error)
	// Remove takes away a name, or with the last one the image. The engine has checked that no container is in the way.
	Remove(ctx context.Context, ref string, opts model.ImageRemoveOptions) ([]model.ImageDeletion, error)
}

// Networks connects containers. The life of a container's connection: Namespace (a fresh one with the loopback up) →
// Attach (endpoints, addresses, ports; all or nothing) → Connect and Disconnect while it runs → Detach (everything, also
// after half an Attach; detaching what is not attached is no error). After a restart of the daemon Restore is called once,
// before anything else, with the connections that still live; everything else the kernel has of ours goes.
type Networks interface {
	// Namespace makes a network namespace; it lives until the file and the last process in it are gone. With ids it belongs
	// to a new user namespace with them, which the container's is then.
	Namespace(ctx context.Context, ids *model.IDMaps) (*os.File, error)
	Attach(ctx context.Context, r NetworkAttach) (NetworkAttachment, error)
	// Connect adds one network to a running container.
	Connect(ctx context.Context, r NetworkAttach) (NetworkAttachment, error)
	// Detach takes a container off one network, or off all with an empty name.
	Detach(ctx context.Context, containerID, network string) error
	Restore(ctx context.Context, live []NetworkLive) error
	// Files makes the content of a container's /etc/hosts and /etc/resolv.conf. It asks no other room and does not wait.
	Files(f NameFiles) (hosts, resolvConf []byte, err error)
	// Resolve finds a network by name, ID or unique short ID.
	Resolve(ctx context.Context, ref string) (model.Network, error)
	// Remove takes a network away; the engine has checked that no container is attached.
	Remove(ctx context.Context, ref string) error
}

// NetworkAttach asks for a container's endpoints.
type NetworkAttach struct {
	ContainerID string
	Name        string // of the container
	Hostname    string
	Domainname  string
	Namespace   *os.File                      // the container's network namespace
	Primary     string                        // the network of the first interface
	Endpoints   map[string]model.EndpointSpec // by network name
	Exposed     []model.Port                  // what the container says it listens on
	Ports       []model.PortBinding
	Names       model.NameSpec
	Sysctls     map[string]string // net.* ones that the container asked for
}

// NetworkAttachment is what Attach made.
type NetworkAttachment struct {
	Endpoints map[string]model.Endpoint // by network name
	Ports     []model.PortBinding       // with the host ports chosen
}

// NetworkLive is a container that runs with a connection.
type NetworkLive struct {
	Attach NetworkAttach // Namespace is nil; the path below is the namespace
	Path   string        // "/proc/PID/ns/net"
	State  model.NetworkState
}

// NameFiles is what the files of name resolution are made of.
type NameFiles struct {
	Hostname   string
	Domainname string
	Host       bool // the container shares the host's network: the host's own files are the base
	Names      model.NameSpec
	Endpoints  map[string]model.Endpoint
	Links      map[string][]string // address → names, of legacy links
}

// Volumes keeps data that outlives containers. A volume is made (Create: one that is there with the same driver is
// returned), held by containers from create to remove (Use, Release), mounted at start (Mount) and given back at exit
// (Unmount). Fill copies the image's content into a volume that is still empty, before the first start.
type Volumes interface {
	Create(ctx context.Context, v model.Volume) (model.Volume, error)
	Inspect(ctx context.Context, name string) (model.Volume, error)
	// Use with mounted says that the container has the volume mounted already: it ran before the daemon was started.
	Use(ctx context.Context, name, containerID string, mounted bool) error
	Release(ctx context.Context, name, containerID string) error
	Mount(ctx context.Context, name, containerID string) (model.VolumeMount, error)
	Unmount(ctx context.Context, name, containerID string) error
	Fill(ctx context.Context, name string, lowers []string, path, sub string) error
	// Remove takes a volume away; Conflict when a container uses it. Force: not being there is no error.
	Remove(ctx context.Context, name string, force bool) error
}

// Tasks runs containers, each under its own supervisor, which lives on when the daemon dies.
type Tasks interface {
	// Start runs a container: it returns when the program runs, or with the reason why it does not and nothing left
	// behind. StartFailure in the error's chain tells the exit code to show.
	Start(ctx context.Context, r TaskStart) (Task, error)
	// Reattach finds a container that an earlier daemon started: the running task; or the exit status of one that ended
	// meanwhile; or neither when there is nothing, or only half of a start, which it takes back.
	Reattach(ctx context.Context, id string) (Task, *TaskExit, error)
	// Known lists the IDs of which something is left in the exec root.
	Known() ([]string, error)
	// Clear removes what is left of a container that has ended. Clearing nothing is no error.
	Clear(ctx context.Context, id string) error
	// ValidateLog says why a log driver or its options cannot work here.
	ValidateLog(cfg model.LogConfig) error
	// ReadLog emits a container's log entries until the end, or with Follow until running is closed and all is read.
	ReadLog(ctx context.Context, src LogSource, opts model.LogOptions, emit func(model.LogEntry) error) error
}

// Task is one running container.
type Task interface {
	Info() TaskInfo
	// Done is closed when the container has ended and Exit tells how.
	Done() <-chan struct{}
	Exit() TaskExit
	// Signal sends to the init process, or with all to every process of the container.
	Signal(ctx context.Context, signal int, all bool) error
	// Freeze pauses (true) or resumes (false) all processes.
	Freeze(ctx context.Context, frozen bool) error
	Update(ctx context.Context, r *specs.LinuxResources) error
	// Streams is the container's input and output and its execs.
	Streams() TaskStreams
	// Figures is what it uses.
	Figures() TaskFigures
}

// TaskStreams is how to talk with a running container.
type TaskStreams interface {
	// Attach connects a client. The connection's end of output is the container's end.
	Attach(ctx context.Context, stdin, stdout, stderr bool) (Conn, error)
	// Resize sets the terminal's size, of the container ("") or of an exec.
	Resize(ctx context.Context, execID string, height, width uint) error
	// Exec runs one more process in the container.
	Exec(ctx context.Context, x TaskExec) (ExecProcess, error)
	// SignalExec signals a process that Exec started.
	SignalExec(ctx context.Context, execID string, signal int) error
}

// TaskFigures tells what a running container uses.
type TaskFigures interface {
	Stats(ctx context.Context) (model.Stats, error) // without networks, which the engine adds
	Pids(ctx context.Context) ([]int, error)
	// OnOOM calls f for every out-of-memory kill until the task ends.
	OnOOM(f func())
}

// Conn is one client's connection with the streams of a container or exec: reads give raw output for a terminal,
// otherwise frames as the Docker Engine API has them; writes go to standard input.
type Conn interface {
	io.ReadWriteCloser
	CloseWrite() error // end of input
}

// ExecProcess is a process that Exec started.
type ExecProcess struct {
	Pid  int
	Conn Conn // nil when detached
	Done <-chan struct{}
	Exit func() TaskExit // valid once Done is closed
}

// TaskExec is one more process.
type TaskExec struct {
	ID          string
	Process     *specs.Process
	Stdin       bool
	Stdout      bool
	Stderr      bool
	Tty         bool
	Detach      bool
	ConsoleSize [2]uint
}

// TaskStart is everything a supervisor needs.
type TaskStart struct {
	Container *model.Container // its identity, streams and log configuration
	Spec      *specs.Spec
	Root      model.OverlayDirs // mounted on Spec.Root.Path inside the container's own mount namespace
	// Namespace waits for the network namespace, which may still be in the making, so that the supervisor can begin without it;
	// nil for the machine's. The file stays the engine's.
	Namespace func() (*os.File, error)
	Log       LogTarget
	Runtime   string // name of the OCI runtime; "" is our own
	// Created is called when the container's init exists and its sockets answer, before its program runs; an error
	// takes everything back.
	Created func(t Task) error
}

// LogTarget says where a container's output goes.
type LogTarget struct {
	Driver  string
	Path    string // file of file drivers, or the local cache of the others
	Options map[string]string
	Labels  map[string]string // chosen by the options labels and labels-regex
	Env     map[string]string
}

// LogSource is a container's log as it can be read.
type LogSource struct {
	ID      string
	Target  LogTarget
	Running <-chan struct{} // closed when the container does not run (any more)
}

// TaskInfo identifies a task.
type TaskInfo struct {
	Pid       int
	StartedAt int64 // unix nanoseconds
	Cgroup    string
	Paused    bool // it was when Reattach found it
}

// TaskExit is how a container or exec ended.
type TaskExit struct {
	Code      int    // exit code, or 128 + signal
	OOMKilled bool   //
	At        int64  // unix nanoseconds
	Reason    string // set when it ended other than by its own exit, such as a killed supervisor
}

// StartFailure is in the chain of Tasks.Start's and Exec's error when the program could not be run.
type StartFailure struct {
	Code int // 126 not executable, 127 not found, 128 otherwise
	Err  error
}

func (f *StartFailure) Error() string { return f.Err.Error() }
func (f *StartFailure) Unwrap() error { return f.Err }

// RootFS reaches into a container's root filesystem, running or not, without ever following a name out of it.
type RootFS interface {
	Stat(ctx context.Context, v RootView, path string) (model.PathStat, error)
	CopyFrom(ctx context.Context, v RootView, path string) (io.ReadCloser, model.PathStat, error)
	CopyTo(ctx context.Context, v RootView, path string, tar io.Reader, opts CopyToOptions) error
	Export(ctx context.Context, v RootView, w io.Writer) error
	Changes(ctx context.Context, dirs model.OverlayDirs) ([]model.Change, error)
	// Size is the disk use of the writable layer and of the whole root filesystem, in bytes.
	Size(ctx context.Context, dirs model.OverlayDirs, rootfs bool) (model.ContainerSize, error)
	// ReadFile reads a small file of a root filesystem that nothing has mounted; NotFound when it is not there.
	ReadFile(ctx context.Context, dirs model.OverlayDirs, path string, limit int64) ([]byte, error)
	// SharedMemory mounts a tmpfs on the directory for containers that share theirs, or with size 0 unmounts it.
	SharedMemory(dir string, size int64) error
}

// RootView says how to see a container's files.
type RootView struct {
	Dirs   model.OverlayDirs
	Pid    int                // of the init process when it runs: its own view is used
	Mounts []model.MountPoint // when it does not run: what to mount in addition, in order
}

// CopyToOptions are the choices of CopyTo.
type CopyToOptions struct {
	NoOverwriteDirNonDir bool
	Owner                *[2]uint32 // user and group, in the container, that everything gets; nil keeps the archive's
	ReadOnlyRoot         bool
}

// Events takes what happened. Publish never blocks.
type Events interface {
	Publish(e model.Event)
}
