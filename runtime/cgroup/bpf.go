package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// The device program for cgroup v2 (BPF_PROG_TYPE_CGROUP_DEVICE), written for bpf(2) directly. The program is a few
// dozen instructions of five kinds, loaded once; github.com/cilium/ebpf would add 1.2 MB to a binary that is mapped
// once per container, for reading ELF and BTF that is not needed here.

// insn is struct bpf_insn.
type insn struct {
	code     uint8
	dst, src uint8
	off      int16
	imm      int32
}

// Instruction codes, from linux/bpf_common.h and linux/bpf.h.
const (
	opLdxW    = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	opMov32   = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_X
	opMov64K  = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
	opAnd32K  = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opRsh32K  = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	opJne32K  = unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_K
	opExit    = unix.BPF_JMP | unix.BPF_EXIT
	regResult = 0
	regCtx    = 1
	regKind   = 2
	regAccess = 3
	regMajor  = 4
	regMinor  = 5
	regTmp    = 6
	devBlock  = 1 // BPF_DEVCG_DEV_BLOCK
	devChar   = 2 // BPF_DEVCG_DEV_CHAR
)

// deviceProgram compiles the rules: last rule first, since the later one wins, and the first that matches decides. A
// request for several kinds of access is allowed by one allow rule that has them all, and refused by a deny rule
// that has any of them; kernels ask for reading and writing in one request when a file is opened for both.
func deviceProgram(rules []deviceRule) []insn {
	p := []insn{
		{code: opLdxW, dst: regKind, src: regCtx, off: 0}, // access_type: access << 16 | kind
		{code: opMov32, dst: regAccess, src: regKind},
		{code: opAnd32K, dst: regKind, imm: 0xffff},
		{code: opRsh32K, dst: regAccess, imm: 16},
		{code: opLdxW, dst: regMajor, src: regCtx, off: 4},
		{code: opLdxW, dst: regMinor, src: regCtx, off: 8},
	}
	// Rules before the last one that speaks of everything have no effect.
	start := 0
	for i, r := range rules {
		if r.whole() {
			start = i
		}
	}
	for i := len(rules) - 1; i >= start; i-- {
		block := ruleBlock(rules[i])
		p = append(p, block...)
		if rules[i].whole() {
			return p
		}
	}
	return append(p, verdict(false)...)
}

func verdict(allow bool) []insn {
	v := int32(0)
	if allow {
		v = 1
	}
	return []insn{{code: opMov64K, dst: regResult, imm: v}, {code: opExit}}
}

func ruleBlock(r deviceRule) []insn {
	var b []insn
	skip := func(code uint8, reg uint8, imm int32) { b = append(b, insn{code: code, dst: reg, imm: imm}) }
	switch r.kind {
	case 'c':
		skip(opJne32K, regKind, devChar)
	case 'b':
		skip(opJne32K, regKind, devBlock)
	}
	if r.access != accAll {
		b = append(b, insn{code: opMov32, dst: regTmp, src: regAccess})
		if r.allow {
			// Something asked for that the rule does not have: not this rule.
			b = append(b, insn{code: opAnd32K, dst: regTmp, imm: int32(accAll &^ r.access)})
			skip(opJne32K, regTmp, 0)
		} else {
			b = append(b, insn{code: opAnd32K, dst: regTmp, imm: int32(r.access)})
			skip(unix.BPF_JMP32|unix.BPF_JEQ|unix.BPF_K, regTmp, 0)
		}
	}
	if r.major != anyNumber {
		skip(opJne32K, regMajor, int32(uint32(r.major)))
	}
	if r.minor != anyNumber {
		skip(opJne32K, regMinor, int32(uint32(r.minor)))
	}
	b = append(b, verdict(r.allow)...)
	for i := range b {
		if b[i].code&7 == unix.BPF_JMP32 {
			b[i].off = int16(len(b) - i - 1)
		}
	}
	return b
}

func encode(p []insn) []byte {
	out := make([]byte, 0, 8*len(p))
	for _, i := range p {
		regs := i.dst | i.src<<4
		if bigEndian {
			regs = i.dst<<4 | i.src
		}
		out = append(out, i.code, regs)
		out = binary.NativeEndian.AppendUint16(out, uint16(i.off))
		out = binary.NativeEndian.AppendUint32(out, uint32(i.imm))
	}
	return out
}

var bigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// bpf(2) commands and constants.
const (
	bpfProgLoad      = 5
	bpfProgAttach    = 8
	bpfProgDetach    = 9
	bpfProgGetFDByID = 13
	bpfProgQuery     = 16
	typeCgroupDevice = 15 // BPF_PROG_TYPE_CGROUP_DEVICE
	attachDevice     = 6  // BPF_CGROUP_DEVICE
	flagMulti        = 2  // BPF_F_ALLOW_MULTI
	flagReplace      = 4  // BPF_F_REPLACE
)

func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		fd, _, e := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
		if e == unix.EINTR || e == unix.EAGAIN && cmd == bpfProgLoad {
			continue // the verifier was interrupted by a signal
		}
		if e != 0 {
			return -1, e
		}
		return int(fd), nil
	}
}

func loadProgram(p []insn) (int, error) {
	// Pinned: the kernel gets their addresses as numbers, which the garbage collector does not follow.
	var pins runtime.Pinner
	defer pins.Unpin()
	code, license := encode(p), []byte("Apache\x00")
	pins.Pin(&code[0])
	pins.Pin(&license[0])
	attr := struct {
		progType, count uint32
		insns, license  uint64
		logLevel, size  uint32
		log             uint64
		kernel, flags   uint32
		name            [16]byte
		_               [8]byte
	}{progType: typeCgroupDevice, count: uint32(len(p)), insns: uint64(uintptr(unsafe.Pointer(&code[0]))),
		license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	copy(attr.name[:], "shoal_devices")
	return bpf(bpfProgLoad, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

type attachAttr struct{ target, prog, kind, flags, replace uint32 }

// attached lists the ids of the device programs on the group itself.
func attached(dirFD int) ([]uint32, error) {
	var pins runtime.Pinner
	defer pins.Unpin()
	for n := 16; ; n *= 4 {
		ids := make([]uint32, n)
		pins.Pin(&ids[0])
		attr := struct {
			target, kind, query, flags uint32
			ids                        uint64
			count                      uint32
			_                          uint32
		}{target: uint32(dirFD), kind: attachDevice, ids: uint64(uintptr(unsafe.Pointer(&ids[0]))), count: uint32(n)}
		_, err := bpf(bpfProgQuery, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
		if errors.Is(err, unix.ENOSPC) && n < 1<<16 {
			continue
		}
		if err != nil {
			return nil, err
		}
		return ids[:attr.count], nil
	}
}

func programByID(id uint32) (int, error) {
	attr := struct{ id, next, flags uint32 }{id: id}
	return bpf(bpfProgGetFDByID, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

// attachDevices puts the program for the rules on the group and takes away what was there; access is never wider in
// between than the wider of the two.
func attachDevices(dir string, rules []deviceRule) error {
	dirFD, err := openRetry(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return errs.Wrap(err, "open control group %s", dir)
	}
	defer unix.Close(dirFD)
	old, err := attached(dirFD)
	if err != nil {
		return explainBPF(err, "look for device programs on "+dir)
	}
	if len(old) == 0 && len(rules) > 0 && allowsAll(rules) {
		return nil
	}
	prog, err := loadProgram(deviceProgram(rules))
	if err != nil {
		return explainBPF(err, "load the device program for "+dir)
	}
	defer unix.Close(prog)
	attr := attachAttr{target: uint32(dirFD), prog: uint32(prog), kind: attachDevice, flags: flagMulti}
	if len(old) == 1 {
		if fd, err := programByID(old[0]); err == nil {
			attr.flags, attr.replace = flagMulti|flagReplace, uint32(fd)
			defer unix.Close(fd)
		}
	}
	if _, err := bpf(bpfProgAttach, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return explainBPF(err, "attach the device program to "+dir)
	}
	if attr.flags&flagReplace != 0 {
		return nil
	}
	for _, id := range old {
		fd, err := programByID(id)
		if err != nil {
			continue // gone by itself
		}
		detach := attachAttr{target: uint32(dirFD), prog: uint32(fd), kind: attachDevice}
		_, err = bpf(bpfProgDetach, unsafe.Pointer(&detach), unsafe.Sizeof(detach))
		unix.Close(fd)
		if err != nil {
			return explainBPF(err, fmt.Sprintf("detach the old device program %d from %s", id, dir))
		}
	}
	return nil
}

// allowsAll says whether everything is allowed: then no program is needed.
func allowsAll(rules []deviceRule) bool {
	all := false
	for _, r := range rules {
		if r.whole() {
			all = r.allow
		} else if !r.allow {
			all = false
		}
	}
	return all
}

func explainBPF(err error, doing string) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return errs.New(errs.Forbidden, "%s: %w: device rules on cgroup v2 need CAP_BPF or CAP_SYS_ADMIN in the host's user "+
			"namespace: run as root", doing, err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return errs.New(errs.Unsupported, "%s: %w: device rules on cgroup v2 need CONFIG_CGROUP_BPF and kernel 5.7 or newer", doing, err)
	}
	return errs.Wrap(err, "%s", doing)
}
