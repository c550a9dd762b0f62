package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/cgroup"
	"github.com/shoalhq/shoal/runtime/spec"
)

// foreign drives an OCI runtime program by its command line, as engines do: create, start, exec --detach, update, pause,
// resume, kill, delete. This process is the subreaper, so that what the program leaves behind becomes its child.
type foreign struct {
	ref  spec.RuntimeRef
	root string
	view *os.File // the mount namespace that the runtime's commands run in; nil is this process' own
}

func newForeign(ref spec.RuntimeRef) (Runner, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, errs.Wrap(err, "become the parent of what %s starts", ref.Path)
	}
	return &foreign{ref: ref, root: ref.Root}, nil
}

// command runs the runtime program to its end; what it says goes into the error.
func (f *foreign) command(dir string, stdio [3]*os.File, args ...string) error {
	log := filepath.Join(dir, "runtime.log")
	os.Remove(log)
	all := append([]string{f.ref.Path}, f.ref.Args...)
	if f.root != "" {
		all = append(all, "--root", f.root)
	}
	all = append(all, "--log", log, "--log-format", "json")
	all = append(all, args...)
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		w.Close()
		return err
	}
	defer null.Close()
	files := []*os.File{null, null, w}
	for i, s := range stdio {
		if s != nil {
			files[i] = s
		}
	}
	var p *os.Process
	err = f.inView(func() (err error) {
		p, err = os.StartProcess(f.ref.Path, all, &os.ProcAttr{Dir: dir, Env: runtimeEnv(), Files: files})
		return err
	})
	w.Close()
	if err != nil {
		return errs.Wrap(err, "start the runtime %s", f.ref.Path)
	}
	said := make(chan string, 1)
	if stdio[2] == nil {
		go func() { said <- readSome(r) }()
	} else {
		said <- ""
	}
	st, err := p.Wait()
	if err != nil {
		return err
	}
	if st.Success() {
		return nil
	}
	message := lastError(log)
	if message == "" {
		message = strings.TrimSpace(<-said)
	}
	return classify(errs.New(errs.Internal, "%s %s: %s", filepath.Base(f.ref.Path), args[0], orElse(message, st.String())))
}

// runtimeEnv is the supervisor's environment without what tunes its own Go program.
func runtimeEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return name == "GOGC" || name == "GOMEMLIMIT" || name == "GOMAXPROCS" || name == "GODEBUG"
	})
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func readSome(r *os.File) string {
	buf := make([]byte, 0, 4096)
	for len(buf) < cap(buf) {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			break
		}
	}
	return string(buf)
}

// lastError finds what a runtime's JSON log has of errors: runc and crun write one, others also its causes.
func lastError(path string) (message string) {
	data, _ := os.ReadFile(path)
	for line := range bytes.Lines(data) {
		var e struct{ Level, Msg string }
		if json.Unmarshal(line, &e) == nil && (e.Level == "error" || e.Level == "fatal") {
			if message != "" && !strings.Contains(e.Msg, message) {
				e.Msg = message + "; " + e.Msg
			}
			message = e.Msg
		}
	}
	return message
}

// programWords are how runtimes begin to speak of the container's program: runc (Go's os/exec), crun, youki.
var programWords = []string{`exec: "`, "exec /", "executable file `", "exec container process", "executable '", "open executable"}

// classify finds by the runtime's words whether the program was at fault.
func classify(err error) error {
	text := ""
	for _, word := range programWords {
		if _, after, ok := strings.Cut(err.Error(), word); ok && len(after) > len(text) {
			text = strings.ToLower(word + after)
		}
	}
	switch {
	case text == "":
		return err
	case strings.Contains(text, "not found"), strings.Contains(text, "no such file or directory"):
		return &Failure{Code: errs.ExitNotFound, Err: errs.As(errs.NotFound, err)}
	case strings.Contains(text, "permission denied"), strings.Contains(text, "exec format error"), strings.Contains(text, "is a directory"):
		return &Failure{Code: errs.ExitNotExecutable, Err: errs.As(errs.Forbidden, err)}
	}
	return err
}

func (f *foreign) Create(o CreateOptions) (Container, error) {
	c := &foreignContainer{f: f, id: o.ID, dir: o.Dir}
	if err := o.Spaces(); err != nil {
		return nil, err
	}
	if err := f.prepare(&o); err != nil {
		return nil, err
	}
	pidFile := filepath.Join(o.Dir, "init.pid")
	args := []string{"create", "--bundle", o.Dir, "--pid-file", pidFile}
	console, err := consoleSocket(o.Tty, o.Dir, "console")
	if err != nil {
		return nil, err
	}
	defer console.close()
	if o.Tty {
		args = append(args, "--console-socket", console.path)
	}
	if err := f.command(o.Dir, o.Stdio, append(args, o.ID)...); err != nil {
		f.command(o.Dir, [3]*os.File{}, "delete", "--force", o.ID)
		return nil, err
	}
	if c.pid, err = readPid(pidFile); err == nil {
		c.console, err = console.receive()
	}
	if err == nil {
		var groups *cgroup.Manager
		groups, err = groupsOf(c.pid)
		c.groups = groupsThere(groups)
	}
	if err != nil {
		c.Destroy()
		return nil, err
	}
	return c, nil
}

// Resume needs no more than the cgroup; the runtime program keeps its own state.
func (f *foreign) Resume(dir string, cfg *spec.SupervisorConfig, pid int, saved []byte) Container {
	return &foreignContainer{f: f, id: cfg.ID, dir: dir, pid: pid, groups: groupsSaved(saved)}
}

func (c *foreignContainer) Save() ([]byte, bool) { return c.groups.save() }

// Reap kills and deletes by the runtime's own state.
func (f *foreign) Reap(dir string, cfg *spec.SupervisorConfig) error {
	if _, err := os.Stat(filepath.Join(dir, "init.pid")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return f.command(dir, [3]*os.File{}, "delete", "--force", cfg.ID)
}

func readPid(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

// groupsOf finds the cgroup that the runtime made, in each hierarchy (proc(5), /proc/pid/cgroup).
func groupsOf(pid int) (*cgroup.Manager, error) {
	host, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return nil, err
	}
	state := cgroup.State{Version: 1, Dirs: map[string]string{}}
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || parts[2] == "/" {
			continue
		}
		for _, x := range host.Hierarchies {
			if x.Name == parts[1] {
				state.Dirs[x.Name] = filepath.Join(x.Mount, parts[2])
				state.Path = parts[2]
			}
		}
	}
	return host.Load(state)
}

type foreignContainer struct {
	f       *foreign
	id, dir string
	pid     int
	console *os.File
	groups  lazyGroups
}

func (c *foreignContainer) Pid() int          { return c.pid }
func (c *foreignContainer) Console() *os.File { return c.console }
func (c *foreignContainer) Ready() error      { return nil }
func (c *foreignContainer) Start() error {
	return c.f.command(c.dir, [3]*os.File{}, "start", c.id)
}
func (c *foreignContainer) Destroy() error {
	err := c.f.command(c.dir, [3]*os.File{}, "delete", "--force", c.id)
	if c.f.view != nil {
		c.f.view.Close() // and with it the mounts
	}
	return err
}

func (c *foreignContainer) Exec(o ExecOptions) (Process, error) {
	process := *o.Process
	process.Terminal = o.Tty
	if o.Size[0] > 0 {
		process.ConsoleSize = &specs.Box{Height: o.Size[0], Width: o.Size[1]}
	}
	data, err := json.Marshal(process)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(c.dir, "exec-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file, pidFile := filepath.Join(dir, "process.json"), filepath.Join(dir, "pid")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return nil, err
	}
	console, err := consoleSocket(o.Tty, dir, "console")
	if err != nil {
		return nil, err
	}
	defer console.close()
	args := []string{"exec", "--detach", "--process", file, "--pid-file", pidFile}
	if o.Tty {
		args = append(args, "--console-socket", console.path)
	}
	if err := c.f.command(dir, o.Stdio, append(args, c.id)...); err != nil {
		return nil, err
	}
	p := &foreignProcess{}
	if p.pid, err = readPid(pidFile); err == nil {
		p.console, err = console.receive()
	}
	return p, err
}

type foreignProcess struct {
	pid     int
	console *os.File
}

func (p *foreignProcess) Pid() int          { return p.pid }
func (p *foreignProcess) Console() *os.File { return p.console }

func (c *foreignContainer) Control() Control {
	return foreignControl{groupControl{c.groups, func(sig syscall.Signal) error {
		if sig == syscall.SIGKILL {
			return groupControl{groups: c.groups}.KillAll()
		}
		return c.f.command(c.dir, [3]*os.File{}, "kill", "--all", c.id, strconv.Itoa(int(sig)))
	}}, c}
}

// foreignControl asks the runtime for what it keeps a record of, and the kernel for the rest.
type foreignControl struct {
	groupControl
	c *foreignContainer
}

func (k foreignControl) Freeze(on bool) error {
	verb := "resume"
	if on {
		verb = "pause"
	}
	return k.c.f.command(k.c.dir, [3]*os.File{}, verb, k.c.id)
}

func (k foreignControl) Update(r *specs.LinuxResources) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	file := filepath.Join(k.c.dir, "update.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return err
	}
	defer os.Remove(file)
	return k.c.f.command(k.c.dir, [3]*os.File{}, "update", "--resources", file, k.c.id)
}

// console is the socket on which a runtime gives a terminal's master.
type console struct {
	path string
	fd   int
}

// consoleSocket binds through /proc/self/fd for the runtime's sake: the path it gets must be short.
func consoleSocket(want bool, dir, name string) (*console, error) {
	c := &console{fd: -1}
	if !want {
		return c, nil
	}
	temp, err := os.MkdirTemp("", "shoal-tty-")
	if err != nil {
		return nil, err
	}
	c.path = filepath.Join(temp, name)
	c.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(c.fd, &unix.SockaddrUnix{Name: c.path})
	}
	if err == nil {
		err = unix.Listen(c.fd, 1)
	}
	if err != nil {
		c.close()
		return nil, fmt.Errorf("make the console socket: %w", err)
	}
	return c, nil
}

// receive takes the terminal that the runtime has sent before it ended.
func (c *console) receive() (*os.File, error) {
	if c.fd < 0 {
		return nil, nil
	}
	unix.SetNonblock(c.fd, true) // the runtime has ended: it has connected by now, or never will
	conn, _, err := unix.Accept4(c.fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return nil, errs.New(errs.Internal, "the runtime sent no terminal: %w", err)
	}
	defer unix.Close(conn)
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(conn, name, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, errs.Wrap(err, "receive the terminal")
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, errs.New(errs.Internal, "the runtime sent no terminal")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errs.New(errs.Internal, "the runtime sent no terminal")
	}
	return pollable(fds[0], "terminal")
}

func (c *console) close() {
	if c.fd >= 0 {
		unix.Close(c.fd)
		os.RemoveAll(filepath.Dir(c.path))
	}
}
