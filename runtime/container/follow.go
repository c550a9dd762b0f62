package container

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/initproc"
	"github.com/shoalhq/shoal/runtime/namespaces"
)

// follower is the runtime's side of the talk with one init.
type follower struct {
	sync         *os.File
	proc         *Process
	launch       *Launch
	runtimeHooks func() error
	listener     func(fd uint32) error
	beforeExec   func() error
}

// follow returns when init is ready (gated) or its program runs, or with the failure.
func (f *follower) follow(gated bool) error {
	exec := false
	for {
		m, err := namespaces.Receive(int(f.sync.Fd()))
		if err == io.EOF {
			if exec {
				return nil
			}
			return errs.New(errs.Internal, "the container's init ended without a word%s", f.how())
		}
		if err != nil {
			return fmt.Errorf("hear from the container's init: %w", err)
		}
		if err := namespaces.Failure(m); err != nil {
			return err
		}
		switch m.Kind {
		case initproc.MsgFailed:
			return failure(m.Content)
		case initproc.MsgReady:
			if gated {
				return f.seal()
			}
		case initproc.MsgExec:
			exec = true
		case initproc.MsgConsole:
			err = f.console(m.Files)
		case initproc.MsgSeal:
			err = f.answer(f.seal())
		case initproc.MsgHooks:
			err = f.answer(f.runtimeHooks())
		case initproc.MsgListener:
			err = f.answer(f.listener(m.Arg))
		}
		if err != nil {
			return err
		}
	}
}

// how tells what became of init when it can be seen.
func (f *follower) how() string {
	var info unix.Siginfo
	if f.proc == nil || f.proc.PidFD == nil {
		return ""
	}
	if err := unix.Waitid(unix.P_PIDFD, int(f.proc.PidFD.Fd()), &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		return ""
	}
	var status unix.WaitStatus
	if pid, err := unix.Wait4(f.proc.Pid, &status, 0, nil); err != nil || pid != f.proc.Pid {
		return ""
	}
	f.proc.reaped = true
	if status.Signaled() {
		hint := ""
		if status.Signal() == unix.SIGKILL {
			hint = "; a memory limit too small for the start itself does that, and, to a command in it, the end of the container"
		}
		if status.Signal() == unix.SIGSYS {
			hint = "; the seccomp profile does not allow what the start needs"
		}
		return fmt.Sprintf(": it was killed by signal %d (%s)%s", status.Signal(), status.Signal(), hint)
	}
	return fmt.Sprintf(": exit code %d", status.ExitStatus())
}

func (f *follower) seal() error {
	if f.beforeExec == nil {
		return nil
	}
	return f.beforeExec()
}

func (f *follower) answer(err error) error {
	if err != nil {
		return err
	}
	if err := namespaces.Send(int(f.sync.Fd()), namespaces.Message{Kind: initproc.MsgGo}); err != nil {
		return fmt.Errorf("tell init to go on: %w", err)
	}
	return nil
}

func failure(content []byte) error {
	var told initproc.Failure
	if err := json.Unmarshal(content, &told); err != nil {
		return fmt.Errorf("init failed, and its message cannot be read: %w", err)
	}
	if told.Program {
		return &programError{told.Err()}
	}
	return told.Err()
}

func (f *follower) console(fds []int) error {
	if len(fds) != 1 {
		return errs.New(errs.Internal, "init sent %d descriptors as its terminal", len(fds))
	}
	master := os.NewFile(uintptr(fds[0]), "/dev/ptmx")
	if f.launch.ConsoleSocket == "" {
		f.proc.Console = master
		return nil
	}
	defer master.Close()
	return sendFile(f.launch.ConsoleSocket, "/dev/ptmx", master)
}

// sendFile sends a descriptor, with a name as the content, to a unix socket.
func sendFile(socket, name string, file *os.File) error {
	return sendFiles(socket, []byte(name), file)
}

func sendFiles(socket string, content []byte, file *os.File) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := connect(fd, socket); err != nil {
		return fmt.Errorf("connect to %s, which shall get a descriptor of the container: %w", socket, err)
	}
	if err := unix.Sendmsg(fd, content, unix.UnixRights(int(file.Fd())), nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("send a descriptor of the container to %s: %w", socket, err)
	}
	return nil
}

// connect connects to a socket by a path of any length.
func connect(fd int, path string) error {
	if len(path) < 100 {
		return unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
	file, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(file)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d", file)})
}

// sendListener takes the seccomp listener out of init and sends it to the profile's agent.
func sendListener(profile *specs.LinuxSeccomp, fd int, pidfd *os.File, st *specs.State) error {
	if profile == nil || profile.ListenerPath == "" {
		return errs.New(errs.Invalid, "the seccomp profile notifies, but has no listenerPath")
	}
	own, err := unix.PidfdGetfd(int(pidfd.Fd()), fd, 0)
	if err != nil {
		return fmt.Errorf("take the seccomp listener: %w", err)
	}
	file := os.NewFile(uintptr(own), "seccomp")
	defer file.Close()
	data, err := json.Marshal(specs.ContainerProcessState{Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: st.Pid,
		Metadata: profile.ListenerMetadata, State: *st})
	if err != nil {
		return err
	}
	return sendFiles(profile.ListenerPath, data, file)
}
