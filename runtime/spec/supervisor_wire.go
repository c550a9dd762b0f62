package spec

import (
	"encoding/json"
	"time"
)

// The supervisor (`shoal-runtime supervise DIR`) parents one container. The daemon prepares DIR, a private directory on
// tmpfs, starts the supervisor with SupervisorConfig in DIR/supervisor.json and the OCI config in DIR/config.json, and
// talks to it over the unix socket DIR/sup.sock. Everything the daemon needs after its own death is in DIR:
//
//	config.json      the OCI runtime configuration; root.path and the overlay annotation name the root filesystem
//	supervisor.json  SupervisorConfig, written by the daemon before the start
//	state.json       SupervisorState, written by the supervisor when the container is created and when it runs
//	exit.json        ExitStatus, written (atomically) once, after the init process ended and its log is flushed
//	sup.sock         the supervisor listens from before the container's program runs until after exit.json is there
//
// Start-up handshake: the supervisor inherits one end of a stream socket pair as fd 3 and writes one JSON StartReport
// line per step: first "created" (init exists, its namespaces are there, its program does not run yet) with the pid; then,
// with SupervisorConfig.WaitForStart, it waits for a byte on fd 3; then "running", or "failed" with the reason. The order
// of sup.sock: it accepts before "created" is reported, and what was asked and answered before the byte is in force when
// the program runs; so an attachment made between "created" and the byte misses no output. When fd 3's other end closes
// before the byte, the supervisor takes everything back and ends. After "failed" it ends. After "running" fd 3 stays as
// an events connection (below) without a Response, so the starter needs no other.
// With SupervisorConfig.Netns the network namespace is inherited as fd 4 (NetnsPath).
//
// Requests on sup.sock: the client sends one JSON Request line, gets one JSON Response line; for OpAttach and OpExecStart
// the connection then is a stream (below); for OpWait and OpExecWait the response comes when the process has ended; for
// OpEvents, a Response and then Event lines follow until the supervisor ends; the last is "exit". Whoever has an events
// connection and sees its end without an "exit" knows that the supervisor was killed. Other operations may be repeated on
// the same connection.
//
// When the container has ended, exit.json is written first, then "exit" is sent; the supervisor then removes the
// container's cgroup and ends, and with it all its connections. Who wants to start the container again waits for that end.
//
// Stream of attach and exec after the Response: from the client come raw bytes of standard input; its shutdown of the
// write side is end of input. To the client go raw bytes for a terminal, otherwise frames as the Docker Engine API has
// them: 8 bytes {1 or 2 (stdout, stderr), 0, 0, 0, length big endian} and the data; so the daemon copies without looking.
// The supervisor closes the connection after the last byte of output (attach: when the container ended; exec: when its
// process ended and its output is drained). exec-exit is sent to the events connections before that close.

// A supervisor that was started ahead of need gets the path of its directory over fd 3, with one of these behind it. After
// DirEndSpaces the namespaces come when they are there, in a message of that byte.
const (
	DirEnd       byte = 0
	DirEndSpaces byte = 1
)

// NetnsPath is where the container's network namespace is in the supervisor, with SupervisorConfig.Netns.
const NetnsPath = "/proc/self/fd/4"

// UsernsPath is where its user namespace is, with SupervisorConfig.Userns.
const UsernsPath = "/proc/self/fd/5"

// RootfsAnnotation holds a RootfsOverlay in JSON: the init mounts it on root.path inside the container's own mount
// namespace, so that the host's mount table never has it.
const RootfsAnnotation = "dev.shoal.rootfs.overlay"

// RootfsOverlay describes an overlay mount.
type RootfsOverlay struct {
	Lower   []string `json:"lower"` // directories, top first
	Upper   string   `json:"upper,omitempty"`
	Work    string   `json:"work,omitempty"`
	Options []string `json:"options,omitempty"` // "userxattr", "volatile", ...
}

// Names of the files in a supervisor's directory.
const (
	ConfigFile     = "config.json"
	SupervisorFile = "supervisor.json"
	StateFile      = "state.json"
	ExitFile       = "exit.json"
	SocketFile     = "sup.sock"
)

// SupervisorConfig is what the supervisor of one container needs to know beyond the OCI config.
type SupervisorConfig struct {
	ID           string     `json:"id"`
	Name         string     `json:"name"`
	Tty          bool       `json:"tty,omitempty"`
	OpenStdin    bool       `json:"openStdin,omitempty"`
	StdinOnce    bool       `json:"stdinOnce,omitempty"`
	ConsoleSize  [2]uint    `json:"consoleSize,omitempty"` // height, width
	Log          LogTarget  `json:"log"`
	WaitForStart bool       `json:"waitForStart,omitempty"`
	Runtime      RuntimeRef `json:"runtime"`
	// Netns says that fd 4 is the network namespace which config.json names as NetnsPath.
	Netns bool `json:"netns,omitempty"`
	// Userns says that fd 5 is the user namespace which config.json names as UsernsPath.
	Userns bool `json:"userns,omitempty"`
	// OwnPids says that the container has a PID namespace of its own: all its processes end with the first.
	OwnPids bool `json:"ownPids,omitempty"`
}

// RuntimeRef names a foreign OCI runtime program; the zero value is our own, in process.
type RuntimeRef struct {
	Path string   `json:"path,omitempty"` // "" is our own
	Args []string `json:"args,omitempty"`
	Root string   `json:"root,omitempty"` // --root
}

// LogTarget says where the container's output is logged. Drivers that write to another machine keep a bounded local copy
// in Path as well (in the format of the driver local), unless it is empty.
type LogTarget struct {
	Driver  string            `json:"driver"` // local, json-file, none, syslog, journald, fluentd, gelf
	Path    string            `json:"path,omitempty"`
	Options map[string]string `json:"options,omitempty"`
	Info    LogInfo           `json:"info"` // for tags and attributes
	// Forwarder is the command that speaks with a log server, when it is not the supervisor's own program (TLS).
	Forwarder []string `json:"forwarder,omitempty"`
}

// LogInfo is what log drivers may say about the container.
type LogInfo struct {
	ContainerID   string            `json:"containerId"`
	ContainerName string            `json:"containerName"`
	ImageID       string            `json:"imageId,omitempty"`
	ImageName     string            `json:"imageName,omitempty"`
	Command       string            `json:"command,omitempty"`
	Created       time.Time         `json:"created"`
	Labels        map[string]string `json:"labels,omitempty"` // chosen by the log options labels, labels-regex
	Env           map[string]string `json:"env,omitempty"`    // chosen by env, env-regex
	DaemonName    string            `json:"daemonName,omitempty"`
}

// StartReport is a line on the start-up handshake.
type StartReport struct {
	Step        string            `json:"step"` // created, running, failed
	Pid         int               `json:"pid,omitempty"`
	StartedAt   time.Time         `json:"startedAt,omitzero"`    // of running
	CgroupPaths map[string]string `json:"cgroupPaths,omitempty"` // of created, as in SupervisorState
	Error       string            `json:"error,omitempty"`       // of failed, whole
	ErrorKind   int               `json:"errorKind,omitempty"`   // errs.Kind
	ExitCode    int               `json:"exitCode,omitempty"`    // of failed: 126 not executable, 127 not found, else 128
}

// SupervisorState is state.json.
type SupervisorState struct {
	ID            string    `json:"id"`
	SupervisorPid int       `json:"supervisorPid"`
	Pid           int       `json:"pid"`
	PidStart      uint64    `json:"pidStart"` // start time of Pid in clock ticks since boot (/proc/PID/stat field 22): tells pids apart
	Status        string    `json:"status"`   // created, running; in answers to OpState also paused
	StartedAt     time.Time `json:"startedAt"`
	// CgroupPaths are the absolute directories of the container's cgroup by controller; the key "" is the unified one.
	CgroupPaths map[string]string `json:"cgroupPaths,omitempty"`
}

// ExitStatus is exit.json: how the container ended.
type ExitStatus struct {
	Code      int       `json:"code"` // exit code, or 128 + signal
	Signal    int       `json:"signal,omitempty"`
	OOMKilled bool      `json:"oomKilled,omitempty"`
	At        time.Time `json:"at"`
	// LogError is why the log is not complete: the first trouble and how much was lost.
	LogError string `json:"logError,omitempty"`
	// Reason is set when the container did not end by itself, such as when its supervisor was killed.
	Reason string `json:"reason,omitempty"`
}

// Op names what is asked of a supervisor.
type Op string

// The operations of sup.sock.
const (
	OpState      Op = "state"       // → State
	OpWait       Op = "wait"        // → Exit, when the container has ended
	OpSignal     Op = "signal"      // Signal, to the init process, or to all with All
	OpPause      Op = "pause"       // freeze the cgroup
	OpResume     Op = "resume"      //
	OpUpdate     Op = "update"      // Resources: new limits (OCI LinuxResources as JSON)
	OpResize     Op = "resize"      // ExecID ("" is the container), Height, Width
	OpAttach     Op = "attach"      // stream; Stdin, Stdout, Stderr choose
	OpExecStart  Op = "exec-start"  // stream (unless Detach); Process is the OCI process as JSON
	OpExecWait   Op = "exec-wait"   // ExecID → Exit, when that process has ended
	OpExecSignal Op = "exec-signal" // ExecID, Signal
	OpStats      Op = "stats"       // → Stats, model.Stats as JSON, without networks and SystemTotal
	OpPids       Op = "pids"        // → Pids, all in the cgroup
	OpEvents     Op = "events"      // Event lines: oom, exec-exit, exit, log-dropped
)

// Request is one request line.
type Request struct {
	Op        Op              `json:"op"`
	ExecID    string          `json:"execId,omitempty"`
	Signal    int             `json:"signal,omitempty"`
	All       bool            `json:"all,omitempty"`
	Height    uint            `json:"height,omitempty"`
	Width     uint            `json:"width,omitempty"`
	Stdin     bool            `json:"stdin,omitempty"`
	Stdout    bool            `json:"stdout,omitempty"`
	Stderr    bool            `json:"stderr,omitempty"`
	Tty       bool            `json:"tty,omitempty"`
	Detach    bool            `json:"detach,omitempty"`
	Process   json.RawMessage `json:"process,omitempty"`   // OCI process
	Resources json.RawMessage `json:"resources,omitempty"` // OCI LinuxResources
}

// Response is one response line. An empty Error is success.
type Response struct {
	Error     string           `json:"error,omitempty"`
	ErrorKind int              `json:"errorKind,omitempty"` // errs.Kind
	ExitCode  int              `json:"exitCode,omitempty"`  // for a failed exec-start: 126, 127
	Pid       int              `json:"pid,omitempty"`
	State     *SupervisorState `json:"state,omitempty"`
	Exit      *ExitStatus      `json:"exit,omitempty"`
	Stats     json.RawMessage  `json:"stats,omitempty"`
	Pids      []int            `json:"pids,omitempty"`
}

// Event is one line of OpEvents.
type Event struct {
	Kind   string      `json:"kind"` // oom, exec-exit, exit, log-dropped, client-dropped
	ExecID string      `json:"execId,omitempty"`
	Exit   *ExitStatus `json:"exit,omitempty"`
	Count  int64       `json:"count,omitempty"`  // oom: kills so far; log-dropped: messages lost so far
	Reason string      `json:"reason,omitempty"` // of log-dropped and client-dropped
}
