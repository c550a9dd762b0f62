package privilege

import (
	"fmt"
	"syscall"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

var rlimits = map[string]int{"RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4, "RLIMIT_RSS": 5,
	"RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9, "RLIMIT_LOCKS": 10, "RLIMIT_SIGPENDING": 11,
	"RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15}

// Rlimit is the number of a limit's name, or -1.
func Rlimit(name string) int {
	if n, ok := rlimits[name]; ok {
		return n
	}
	return -1
}

// RaiseHard lifts, from outside and with the runtime's rights, the hard limits that init itself could not raise inside a
// user namespace. What is refused is left for SetRlimits to report.
func RaiseHard(pid int, list []specs.POSIXRlimit) {
	for _, l := range list {
		var now unix.Rlimit
		n := Rlimit(l.Type)
		if n < 0 || unix.Prlimit(pid, n, nil, &now) != nil || now.Max >= l.Hard {
			continue
		}
		now.Max = l.Hard
		unix.Prlimit(pid, n, &now, nil)
	}
}

// RaiseOwnHard lifts this process's hard limits to those wanted, early, so that a refusal is told when the container is
// created. Tighter limits wait for SetRlimits.
func RaiseOwnHard(list []specs.POSIXRlimit) error {
	for _, l := range list {
		n := Rlimit(l.Type)
		if n < 0 {
			return errs.New(errs.Invalid, "rlimit %q is not known", l.Type)
		}
		var now unix.Rlimit
		if err := unix.Prlimit(0, n, nil, &now); err != nil {
			return fmt.Errorf("read %s: %w", l.Type, err)
		}
		if now.Max >= l.Hard {
			continue
		}
		if err := unix.Prlimit(0, n, &unix.Rlimit{Cur: now.Cur, Max: l.Hard}, nil); err != nil {
			return errs.New(errs.Forbidden, "set %s to %d:%d: %w; the hard limit is %d and raising it needs CAP_SYS_RESOURCE, which the runtime lacks here", l.Type, l.Soft, l.Hard, err, now.Max)
		}
	}
	return nil
}

// SetRlimits sets the limits of this process; call it last, they may be tight.
func SetRlimits(list []specs.POSIXRlimit) error {
	for _, l := range list {
		// Not unix.Prlimit: package syscall must learn that the limit of open files is wanted as it is.
		if err := syscall.Setrlimit(Rlimit(l.Type), &syscall.Rlimit{Cur: l.Soft, Max: l.Hard}); err != nil {
			return fmt.Errorf("set %s to %d:%d: %w", l.Type, l.Soft, l.Hard, err)
		}
	}
	return nil
}

func rawSetGroups(gids []uint32) syscall.Errno {
	_, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(gids)), uintptr(unsafe.Pointer(&gids[0])), 0)
	return e
}
