package seccomp

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// call is one line of a system call table.
type call struct {
	name string
	nr   uint32
}

// abi is one way into the kernel: an audit architecture with its table.
type abi struct {
	arch   specs.Arch
	audit  uint32 // AUDIT_ARCH_*
	bits32 bool   // arguments are 32 bits wide
	big    bool   // big endian
	offset uint32 // added to every number of the table (x32)
	calls  []call // sorted by name
	mux    map[string]muxed
}

// muxed is a call that (also) goes through another one, which tells them apart by its first argument.
type muxed struct {
	through string
	code    uint64
	mask    uint64
}

// lookup gives the number of a call, with the offset.
func (a *abi) lookup(name string) (uint32, bool) {
	if a.arch == specs.ArchX32 {
		return lookupX32(a, name)
	}
	i, ok := slices.BinarySearchFunc(a.calls, name, func(c call, n string) int { return strings.Compare(c.name, n) })
	if !ok {
		return 0, false
	}
	return a.calls[i].nr, true
}

// privateBase is where ARM's private calls begin; they say nothing about which calls a profile knows.
const privateBase = 0xf0000

// x32Bit marks x32 calls in the number; their audit architecture is x86_64's.
const x32Bit = 0x40000000

// The calls that x32 has under numbers of its own (arch/x86/entry/syscalls/syscall_64.tbl, abi x32). Every other call
// of x86_64 has the same number with the bit, except those in only64.
var x32Own = []call{
	{"execve", 520}, {"execveat", 545}, {"get_robust_list", 531}, {"getsockopt", 542}, {"io_setup", 543}, {"io_submit", 544},
	{"ioctl", 514}, {"kexec_load", 528}, {"move_pages", 533}, {"mq_notify", 527}, {"preadv", 534}, {"preadv2", 546},
	{"process_vm_readv", 539}, {"process_vm_writev", 540}, {"ptrace", 521}, {"pwritev", 535}, {"pwritev2", 547},
	{"readv", 515}, {"recvfrom", 517}, {"recvmmsg", 537}, {"recvmsg", 519}, {"rt_sigaction", 512}, {"rt_sigpending", 522},
	{"rt_sigqueueinfo", 524}, {"rt_sigreturn", 513}, {"rt_sigtimedwait", 523}, {"rt_tgsigqueueinfo", 536}, {"sendmmsg", 538},
	{"sendmsg", 518}, {"set_robust_list", 530}, {"setsockopt", 541}, {"sigaltstack", 525}, {"timer_create", 526},
	{"vmsplice", 532}, {"waitid", 529}, {"writev", 516},
}

// only64 are calls of x86_64 which x32 does not have.
var only64 = []string{"_sysctl", "afs_syscall", "create_module", "epoll_ctl_old", "epoll_wait_old", "get_kernel_syms",
	"get_thread_area", "getpmsg", "nfsservctl", "putpmsg", "query_module", "security", "set_thread_area", "tuxcall",
	"uselib", "vserver"}

func lookupX32(a *abi, name string) (uint32, bool) {
	byName := func(c call, n string) int { return strings.Compare(c.name, n) }
	if i, ok := slices.BinarySearchFunc(x32Own, name, byName); ok {
		return x32Own[i].nr + a.offset, true
	}
	if _, no := slices.BinarySearch(only64, name); no {
		return 0, false
	}
	if i, ok := slices.BinarySearchFunc(a.calls, name, byName); ok {
		return a.calls[i].nr + a.offset, true
	}
	return 0, false
}

// The numbers that socketcall(2) and ipc(2) tell their calls apart by (linux/net.h, linux/ipc.h).
func muxTable() map[string]muxed {
	m := map[string]muxed{}
	for i, n := range []string{"socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send",
		"recv", "sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg"} {
		m[n] = muxed{"socketcall", uint64(i + 1), ^uint64(0)}
	}
	for n, c := range map[string]uint64{"semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4, "msgsnd": 11, "msgrcv": 12,
		"msgget": 13, "msgctl": 14, "shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24} {
		m[n] = muxed{"ipc", c, 0xffff} // the upper half is a version
	}
	return m
}

// known are the architectures of the specification. Those that cannot run here are skipped: no process can have them.
var known = []specs.Arch{specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64, specs.ArchMIPS,
	specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPPC,
	specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64,
	specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB}

// Architectures lists what a filter may name.
func Architectures() []string {
	out := make([]string, len(known))
	for i, a := range known {
		out[i] = string(a)
	}
	return out
}
