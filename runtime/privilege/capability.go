package privilege

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// capNames are the capabilities by number, as linux/capability.h has them.
var capNames = [...]string{"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE",
	"SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME",
	"SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
	"WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"}

// CapNames lists the capabilities this runtime knows, as "CAP_X".
func CapNames() []string {
	names := make([]string, len(capNames))
	for i, n := range capNames {
		names[i] = "CAP_" + n
	}
	return names
}

// Caps are the five sets as bits. Known is false where the configuration had none: then nothing is changed.
type Caps struct {
	Known                                                bool
	Bounding, Effective, Permitted, Inheritable, Ambient uint64
}

// ParseCaps turns names into bits. Names this kernel or this runtime does not know cannot be granted and are left out,
// as a newer engine may name newer capabilities; they are returned for a warning.
func ParseCaps(c *specs.LinuxCapabilities) (Caps, []string) {
	if c == nil {
		return Caps{}, nil
	}
	var unknown []string
	bits := func(names []string) uint64 {
		var set uint64
		for _, name := range names {
			n := capNumber(name)
			if n < 0 || n > lastCap() {
				unknown = append(unknown, name)
				continue
			}
			set |= 1 << n
		}
		return set
	}
	// Not in one with the return: which value of unknown that would return is not specified, and Go 1.26.8 returned a
	// slice on the dead stack.
	caps := Caps{Known: true, Bounding: bits(c.Bounding), Effective: bits(c.Effective), Permitted: bits(c.Permitted),
		Inheritable: bits(c.Inheritable), Ambient: bits(c.Ambient)}
	return caps, unknown
}

func capNumber(name string) int {
	name = strings.TrimPrefix(strings.ToUpper(name), "CAP_")
	for i, n := range capNames {
		if n == name {
			return i
		}
	}
	return -1
}

// lastCap asks the kernel once which capability, of those known here, is its last.
var lastCap = sync.OnceValue(func() int {
	for last := len(capNames) - 1; last > 0; last-- {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(last), 0, 0, 0); err == nil {
			return last
		}
	}
	return 0
})

// Limit leaves out what this process does not have itself, so cannot grant; the specification wants a warning for it, not
// an error. It returns what was left out.
func (c *Caps) Limit() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("read the runtime's own capabilities: %w", err)
	}
	have := uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32
	lost := (c.Bounding | c.Effective | c.Permitted | c.Inheritable | c.Ambient) &^ have
	for _, set := range []*uint64{&c.Bounding, &c.Effective, &c.Permitted, &c.Inheritable, &c.Ambient} {
		*set &= have
	}
	return lost, nil
}

// Ungrantable names the capabilities of the configuration that this process cannot grant: unknown, or not its own.
func Ungrantable(c *specs.LinuxCapabilities) []string {
	caps, names := ParseCaps(c)
	lost, err := caps.Limit()
	if err != nil {
		return names
	}
	for i, n := range capNames {
		if lost&(1<<i) != 0 {
			names = append(names, "CAP_"+n)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// dropBounding takes all capabilities out of the bounding set which the container must never gain.
func (c *Caps) dropBounding() error {
	if !c.Known {
		return nil
	}
	for n := 0; n < 64; n++ {
		if c.Bounding&(1<<n) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0)
		if err == unix.EINVAL {
			return nil // past the kernel's last
		}
		if err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", n, err)
		}
	}
	return nil
}

// set applies the other sets to this thread.
func (c *Caps) set() error {
	if !c.Known {
		return nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(c.Effective), Permitted: uint32(c.Permitted), Inheritable: uint32(c.Inheritable)},
		{Effective: uint32(c.Effective >> 32), Permitted: uint32(c.Permitted >> 32), Inheritable: uint32(c.Inheritable >> 32)},
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return errs.New(errs.Forbidden, "set capabilities: %w; effective must be within permitted, and permitted within what the runtime itself has", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && err != unix.EINVAL {
		return fmt.Errorf("clear the ambient capabilities: %w", err)
	}
	for n := 0; n < len(capNames); n++ {
		// The kernel raises only what is permitted and inheritable. Configurations as `runc spec` writes them list more,
		// and mean what runc makes of it: the others stay out.
		if c.Ambient&c.Permitted&c.Inheritable&(1<<n) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0); err != nil {
			return errs.New(errs.Invalid, "raise ambient capability CAP_%s: %w", capNames[n], err)
		}
	}
	return nil
}
