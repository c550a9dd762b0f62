package initproc

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/namespaces"
	"github.com/shoalhq/shoal/runtime/rootfs"
)

// The talk between the runtime and its init, on the socket of runtime/namespaces:
//
//	runtime → init  MsgConfig      Config, packed (codec.go); then Arg bytes of packed seccomp filter (runtime/seccomp);
//	                               one descriptor, the root's detached mount, when the runtime made it
//	init → runtime  MsgHooks       (create) the mounts are made; run the prestart and createRuntime hooks; answered by
//	runtime → init  MsgGo          go on
//	init → runtime  MsgConsole     the terminal's master, one descriptor
//	init → runtime  MsgReady       (with Gate) everything that can be done before start is done
//	init → runtime  MsgListener    Arg is the number, in init, of the seccomp listener; the runtime fetches it, then
//	runtime → init  MsgGo
//	init → runtime  MsgSeal        (run, when asked) set the limits that would have hurt so far; then
//	runtime → init  MsgGo
//	init → runtime  MsgExec        what remains is rights and the execve; the socket closes (it worked), or
//	init → runtime  MsgFailed      Failure as JSON; may come at any time, and is the last
//
// With Gate, the socket is closed after MsgReady and the talk goes on with whoever connects to the start socket.
const (
	MsgConfig = namespaces.KindFramed + iota
	MsgHooks
	MsgGo
	MsgConsole
	MsgReady
	MsgListener
	MsgSeal
	MsgExec
	MsgFailed
)

// Config is everything init needs. The configuration of the container was validated by the runtime. Every field in it, however
// deep, is exported and of a kind that codec.go knows.
type Config struct {
	ID      string
	Exec    bool // another process of a container that is there already
	Process *specs.Process

	Rootfs      rootfs.Config
	Hostname    string
	Domainname  string
	Sysctl      map[string]string
	Personality *specs.LinuxPersonality
	Memory      *specs.LinuxMemoryPolicy

	NewNet        bool // the network namespace is new: bring up its loopback
	DenySetgroups bool
	NoNewKeyring  bool
	PreserveFDs   int
	Seal          bool // ask for the last limits before the exec
	Gate          int  // listening start socket; 0: run at once

	RuntimeHooks    bool // there are hooks for the runtime to run
	CreateContainer []specs.Hook
	StartContainer  []specs.Hook
	State           *specs.State // for these hooks
}

// Failure is an error on its way from init.
type Failure struct {
	Kind    errs.Kind `json:"kind"`
	Text    string    `json:"text"`
	Program bool      `json:"program,omitempty"` // it is about the container's program: not there, not executable
}

// Err gives it its kind back.
func (f *Failure) Err() error { return errs.New(f.Kind, "%s", f.Text) }
