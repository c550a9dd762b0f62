package privilege

import (
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// maxList bounds the numbers in a list of CPUs or memory nodes.
const maxList = 8192

// ParseList turns "0-3,7" into a bit mask of 64-bit words.
func ParseList(text string) ([]uint64, error) {
	var mask []uint64
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		from, to, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseUint(strings.TrimSpace(from), 10, 32)
		b := a
		if err == nil && isRange {
			b, err = strconv.ParseUint(strings.TrimSpace(to), 10, 32)
		}
		if err != nil || b < a || b >= maxList {
			return nil, errs.New(errs.Invalid, "list %q: %q is not a number or range below %d", text, part, maxList)
		}
		for n := a; n <= b; n++ {
			for uint64(len(mask)) <= n/64 {
				mask = append(mask, 0)
			}
			mask[n/64] |= 1 << (n % 64)
		}
	}
	if len(mask) == 0 {
		return nil, errs.New(errs.Invalid, "list %q is empty", text)
	}
	return mask, nil
}

// SetAffinity binds this thread to the CPUs of the list.
func SetAffinity(list string) error {
	mask, err := ParseList(list)
	if err != nil {
		return errs.Wrap(err, "CPU affinity")
	}
	_, _, e := unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, uintptr(8*len(mask)), uintptr(unsafe.Pointer(&mask[0])))
	if e != 0 {
		return fmt.Errorf("set CPU affinity %s: %w", list, e)
	}
	return nil
}

var memoryModes = map[specs.MemoryPolicyModeType]uintptr{specs.MpolDefault: 0, specs.MpolPreferred: 1, specs.MpolBind: 2,
	specs.MpolInterleave: 3, specs.MpolLocal: 4, specs.MpolPreferredMany: 5, specs.MpolWeightedInterleave: 6}

var memoryFlags = map[specs.MemoryPolicyFlagType]uintptr{specs.MpolFNumaBalancing: 1 << 13, specs.MpolFRelativeNodes: 1 << 14, specs.MpolFStaticNodes: 1 << 15}

// SetMemoryPolicy sets the NUMA policy by set_mempolicy(2).
func SetMemoryPolicy(m *specs.LinuxMemoryPolicy) error {
	if m == nil {
		return nil
	}
	mode, ok := memoryModes[m.Mode]
	if !ok {
		return errs.New(errs.Invalid, "memory policy mode %q is not known", m.Mode)
	}
	for _, f := range m.Flags {
		bit, ok := memoryFlags[f]
		if !ok {
			return errs.New(errs.Invalid, "memory policy flag %q is not known", f)
		}
		mode |= bit
	}
	var nodes *uint64
	var bits uintptr
	if m.Nodes != "" {
		mask, err := ParseList(m.Nodes)
		if err != nil {
			return errs.Wrap(err, "memory policy nodes")
		}
		nodes, bits = &mask[0], uintptr(64*len(mask)+1)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SET_MEMPOLICY, mode, uintptr(unsafe.Pointer(nodes)), bits); e != 0 {
		return fmt.Errorf("set memory policy %s on nodes %q: %w", m.Mode, m.Nodes, e)
	}
	return nil
}
