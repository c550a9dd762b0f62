package supervise

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/runtime/logs"
	"github.com/shoalhq/shoal/runtime/logs/forward"
	"github.com/shoalhq/shoal/runtime/spec"
)

// handshakeFD is where the starter's end of the socket pair is; the network namespace, if any, follows.
const handshakeFD = 3

// Main is the verb `shoal-runtime supervise`: arguments are DIR, --wait for one that comes over the handshake,
// or another option and its argument (--reap DIR, --compress FILE, --forward).
func Main(args []string) int { return MainWith(args, pickRunner) }

// MainWith is Main with another choice of runner, for tests.
func MainWith(args []string, pick func(*spec.SupervisorConfig) (Runner, error)) int {
	if err := failpoint.Arm(os.Getenv(failpoint.EnvName)); err != nil {
		return complain(err)
	}
	switch {
	case len(args) == 1 && strings.HasPrefix(args[0], "--wait"):
		return wait(args[0], pick)
	case len(args) == 1 && args[0] == "--forward":
		return forward.Main()
	case len(args) == 2 && args[0] == "--compress":
		unix.Setpriority(unix.PRIO_PROCESS, 0, 10)
		return complain(logs.Compress(args[1]))
	case len(args) == 2 && args[0] == "--reap":
		return complain(reap(args[1], pick))
	case len(args) == 3 && args[1] == "--resume": // the directory is for those who read process lists
		fd, err := strconv.Atoi(args[2])
		if err != nil {
			return complain(err)
		}
		quiet()
		_ = os.WriteFile("/proc/self/comm", []byte("shoal-runtime"), 0) // executed as /proc/self/exe: ps, top and systemd would say "exe"
		return resume(fd, pick)
	case len(args) == 1 && args[0] != "" && args[0][0] == '/':
		return supervise(args[0], pick)
	}
	fmt.Fprintln(os.Stderr, "usage: shoal-runtime supervise DIR\nIt is started by shoald, which prepares the directory; see docs/supervisor.md.")
	return 2
}

func complain(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func supervise(dir string, pick func(*spec.SupervisorConfig) (Runner, error)) int {
	return superviseIn(dir, false, pick)
}

// superviseIn is supervise; with waits the container's namespaces are still to come.
func superviseIn(dir string, waits bool, pick func(*spec.SupervisorConfig) (Runner, error)) int {
	unix.CloseOnExec(handshakeFD)
	unix.CloseOnExec(handshakeFD + 2) // the user namespace
	unix.CloseOnExec(handshakeFD + 1) // the network namespace; when there is none this does nothing
	hand, err := pollable(handshakeFD, "handshake")
	if err != nil {
		fmt.Fprintln(os.Stderr, "shoal-runtime supervise needs the handshake of its starter on file descriptor 3")
		return 2
	}
	quiet()
	return run(dir, hand, waits, pick)
}
