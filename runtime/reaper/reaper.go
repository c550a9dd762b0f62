// Package reaper is the small init that a container gets with --init: as process 1 it starts the container's program,
// passes signals on to it, takes in the exit statuses of orphans, and ends as the program ends. It must not do anything
// else, and it needs nothing of the container's root filesystem.
package reaper

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// Name is the name by which this program is called inside a container; tools know it from the Docker Engine.
const Name = "docker-init"

// Main starts the program of args ("--", path, arguments) and returns the exit code to end with.
func Main(args []string) int {
	debug.SetGCPercent(-1) // nothing is allocated while waiting
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: docker-init -- PROGRAM [ARGUMENT...]")
		return errs.ExitFailure
	}
	if os.Getpid() != 1 { // with the host's process IDs, orphans come here all the same
		unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	child, code, err := start(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return code
	}
	return serve(child, signals)
}

// start runs the program in a process group of its own, which gets the terminal if there is one.
func start(args []string) (pid, code int, err error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		code = errs.ExitNotFound
		if errors.Is(err, os.ErrPermission) {
			code = errs.ExitNotExecutable
		}
		return 0, code, fmt.Errorf("exec %s failed: %w", args[0], err)
	}
	attr := &os.ProcAttr{Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Sys: &syscall.SysProcAttr{Setpgid: true}}
	if _, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		attr.Sys.Setpgid, attr.Sys.Foreground, attr.Sys.Ctty = false, true, 0
	}
	p, err := os.StartProcess(path, args, attr)
	if err != nil {
		return 0, errs.ExitNotExecutable, fmt.Errorf("exec %s failed: %w", args[0], err)
	}
	return p.Pid, 0, nil
}

// serve passes signals on and reaps until the program has ended.
func serve(child int, signals <-chan os.Signal) int {
	for sig := range signals {
		number, ok := sig.(syscall.Signal)
		switch {
		case !ok, number == unix.SIGURG: // Go's own
		case number == unix.SIGCHLD:
			if code, ended := reap(child); ended {
				return code
			}
		case number == unix.SIGTTIN, number == unix.SIGTTOU: // of giving the terminal away
		default:
			unix.Kill(child, number)
		}
	}
	return errs.ExitFailure
}

// reap takes in every exit status that is there.
func reap(child int) (code int, ended bool) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return code, ended
		}
		if pid != child {
			continue
		}
		ended = true
		if code = ws.ExitStatus(); ws.Signaled() {
			code = errs.ExitSignalOffset + int(ws.Signal())
		}
	}
}
