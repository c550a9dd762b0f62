package seccomp

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/seccomp/profile"
)

func p[T any](v T) *T { return &v }

// testABIs is a small machine, so that random profiles hit; it has everything that the real ones have.
func testABIs(big bool) []abi {
	calls := []call{{"accept4", 364}, {"brk", 45}, {"clone", 56}, {"exit", 1}, {"futex", 98}, {"open", 5}, {"personality", 136},
		{"read", 3}, {"socket", 359}, {"socketcall", 102}, {"write", 4}}
	narrow := append(slices.Clone(calls), call{"set_tls", 0xf0005})
	slices.SortFunc(narrow, func(a, b call) int { return strings.Compare(a.name, b.name) })
	return []abi{
		{arch: specs.ArchX86_64, audit: 0xc000003e, calls: calls, big: big},
		{arch: specs.ArchX86, audit: 0x40000003, calls: narrow, bits32: true, big: big, mux: map[string]muxed{
			"socket": {"socketcall", 1, ^uint64(0)}, "accept4": {"socketcall", 18, ^uint64(0)}}},
		{arch: specs.ArchX32, audit: 0xc000003e, calls: calls, offset: x32Bit, big: big},
	}
}

type request struct {
	nr, audit uint32
	args      [6]uint64
}

// data lays the request out as struct seccomp_data, in words.
func (r request) data(big bool) [16]uint32 {
	d := [16]uint32{r.nr, r.audit, 0x1234, 0x5678}
	for i, a := range r.args {
		lo, hi := 4+2*i, 5+2*i
		if big {
			lo, hi = hi, lo
		}
		d[lo], d[hi] = uint32(a), uint32(a>>32)
	}
	return d
}

type fataler interface{ Fatalf(string, ...any) }

// interpret runs classic BPF as the kernel does.
func interpret(t fataler, prog []unix.SockFilter, d [16]uint32) (value uint32, steps int) {
	var a uint32
	for pc := 0; ; pc++ {
		if pc >= len(prog) {
			t.Fatalf("the program runs off its end")
		}
		steps++
		i := prog[pc]
		var yes bool
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = d[i.K/4]
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= i.K
			continue
		case unix.BPF_RET | unix.BPF_K:
			return i.K, steps
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			yes = a == i.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			yes = a >= i.K
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			yes = a > i.K
		default:
			t.Fatalf("instruction %#x", i.Code)
		}
		if yes {
			pc += int(i.Jt)
		} else {
			pc += int(i.Jf)
		}
	}
}

// dumb answers from the profile itself, in the words of the package comment.
func dumb(t fataler, pr *specs.LinuxSeccomp, abis []abi, r request) uint32 {
	fallback, _ := returnValue(pr.DefaultAction, pr.DefaultErrnoRet)
	var a *abi
	for i := range abis {
		x := &abis[i]
		listed := i == 0 || slices.Contains(pr.Architectures, x.arch)
		if x.audit != r.audit || x.arch == specs.ArchX86_64 && r.nr >= x32Bit || x.arch == specs.ArchX32 && r.nr < x32Bit {
			continue
		}
		if !listed {
			if x.arch == specs.ArchX32 {
				return retENOSYS
			}
			return unix.SECCOMP_RET_KILL_PROCESS
		}
		a = x
	}
	if a == nil {
		return unix.SECCOMP_RET_KILL_PROCESS
	}
	holds := func(c specs.LinuxSeccompArg) bool {
		v, x, y := r.args[c.Index], c.Value, c.ValueTwo
		if a.bits32 {
			v, x, y = uint64(uint32(v)), uint64(uint32(x)), uint64(uint32(y))
		}
		return map[specs.LinuxSeccompOperator]bool{specs.OpEqualTo: v == x, specs.OpNotEqual: v != x, specs.OpLessThan: v < x,
			specs.OpLessEqual: v <= x, specs.OpGreaterThan: v > x, specs.OpGreaterEqual: v >= x, specs.OpMaskedEqual: v&x == y}[c.Op]
	}
	var first *uint32
	var unconditional *uint32
	var last uint32
	for _, s := range pr.Syscalls {
		value, _ := returnValue(s.Action, s.ErrnoRet)
		for _, n := range s.Names {
			nr, direct := a.lookup(n)
			m, mux := a.mux[n]
			if direct && nr-a.offset < privateBase {
				last = max(last, nr)
			}
			through, _ := a.lookup(m.through)
			if mux {
				last = max(last, through)
			}
			if value == fallback {
				continue
			}
			if direct && nr == r.nr {
				ok := true
				if len(s.Args) == 0 {
					if unconditional == nil {
						unconditional = &value
					}
				} else {
					idx := map[uint]bool{}
					any, repeated := false, false
					for _, c := range s.Args {
						ok = ok && holds(c)
						any = any || holds(c)
						repeated = repeated || idx[c.Index]
						idx[c.Index] = true
					}
					if repeated {
						ok = any
					}
					if ok && first == nil {
						first = &value
					}
				}
			}
			if mux && through == r.nr && uint32(r.args[0]) == uint32(m.code) && (len(s.Args) == 0 || denying(value) || value == retENOSYS) && first == nil {
				first = &value
			}
		}
	}
	switch {
	case unconditional != nil:
		return *unconditional
	case first != nil:
		return *first
	case denying(fallback) && last > 0 && r.nr > last && r.nr-a.offset < privateBase:
		return retENOSYS
	case denying(fallback) && last > 0 && r.nr > last && !namesPrivate(pr, a, fallback):
		return retENOSYS
	}
	return fallback
}

// namesPrivate: with a rule for a private call of ARM, the numbers from there on are not "newer".
func namesPrivate(pr *specs.LinuxSeccomp, a *abi, fallback uint32) bool {
	for _, s := range pr.Syscalls {
		v, _ := returnValue(s.Action, s.ErrnoRet)
		for _, n := range s.Names {
			if nr, ok := a.lookup(n); ok && nr-a.offset >= privateBase && v != fallback {
				return true
			}
		}
	}
	return false
}

var interesting = []uint64{0, 1, 2, 5, 18, 0x80000000, 0xffffffff, 0x100000000, 0x100000001, 0x7e020000, 1 << 63, ^uint64(0)}

func genProfile() *rapid.Generator[*specs.LinuxSeccomp] {
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActTrap, specs.ActLog, specs.ActTrace}
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan,
		specs.OpGreaterEqual, specs.OpMaskedEqual}
	names := []string{"accept4", "brk", "clone", "exit", "futex", "open", "personality", "read", "socket", "socketcall", "write", "set_tls", "nosuch"}
	arg := rapid.Custom(func(t *rapid.T) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: rapid.UintRange(0, 5).Draw(t, "index"), Op: rapid.SampledFrom(ops).Draw(t, "op"),
			Value: rapid.SampledFrom(interesting).Draw(t, "value"), ValueTwo: rapid.SampledFrom(interesting).Draw(t, "two")}
	})
	sys := rapid.Custom(func(t *rapid.T) specs.LinuxSyscall {
		s := specs.LinuxSyscall{Names: rapid.SliceOfN(rapid.SampledFrom(names), 1, 4).Draw(t, "names"), Action: rapid.SampledFrom(actions).Draw(t, "action"),
			Args: rapid.SliceOfN(arg, 0, 3).Draw(t, "args")}
		if s.Action == specs.ActErrno && rapid.Bool().Draw(t, "hasErrno") {
			s.ErrnoRet = p(rapid.SampledFrom([]uint{1, 38, 13}).Draw(t, "errno"))
		}
		return s
	})
	return rapid.Custom(func(t *rapid.T) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: rapid.SampledFrom(actions).Draw(t, "default"),
			Architectures: rapid.SliceOfNDistinct(rapid.SampledFrom([]specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchMIPS}), 0, 4, rapid.ID).Draw(t, "archs"),
			Syscalls:      rapid.SliceOfN(sys, 0, 8).Draw(t, "syscalls")}
	})
}

func TestFilterIsWhatTheProfileSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		big := rapid.Bool().Draw(t, "big")
		pr, abis := genProfile().Draw(t, "profile"), testABIs(big)
		f, err := compileFor(pr, abis)
		if err != nil {
			t.Fatal(err)
		}
		numbers := []uint32{0, 1, 2, 3, 4, 5, 6, 45, 56, 57, 98, 102, 136, 359, 364, 365, 999, 0xeffff, 0xf0000, 0xf0005, 0xf0006, x32Bit, x32Bit | 3,
			x32Bit | 56, x32Bit | 365, x32Bit | 999, 0xffffffff}
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		for _, nr := range numbers {
			for _, audit := range []uint32{0xc000003e, 0x40000003, 0x7} {
				for range 4 {
					r := request{nr: nr, audit: audit}
					for i := range r.args {
						r.args[i] = interesting[rnd.IntN(len(interesting))]
					}
					got, _ := interpret(t, f.Program, r.data(big))
					if want := dumb(t, pr, abis, r); got != want {
						t.Fatalf("%+v: filter %#x, profile %#x\n%s", r, got, want, f)
					}
				}
			}
		}
	})
}

func TestDockerDefaultProfile(t *testing.T) {
	pr, err := profile.For([]string{"CAP_CHOWN", "CAP_NET_BIND_SERVICE"})
	if err != nil {
		t.Fatal(err)
	}
	best := time.Hour
	var f *Filter
	for range 20 {
		start := time.Now()
		if f, err = Compile(pr); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(start))
	}
	host := hostABIs()
	steps, calls := 0, 0
	for _, c := range host[0].calls {
		_, n := interpret(t, f.Program, request{nr: c.nr, audit: host[0].audit}.data(host[0].big))
		steps, calls = steps+n, calls+1
	}
	t.Logf("%d instructions, compiled in %v, %.1f instructions per call, skipped: %d names", len(f.Program), best, float64(steps)/float64(calls), len(f.Skipped))
	if float64(steps)/float64(calls) > 20 {
		t.Error("the search is not a binary one any more")
	}
	ask := func(name string, args ...uint64) uint32 {
		nr, ok := host[0].lookup(name)
		if !ok {
			t.Fatal(name)
		}
		r := request{nr: nr, audit: host[0].audit}
		copy(r.args[:], args)
		v, _ := interpret(t, f.Program, r.data(host[0].big))
		return v
	}
	const allow, eperm = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	for name, want := range map[string]uint32{"read": allow, "execve": allow, "mount": eperm, "reboot": eperm, "bpf": eperm, "keyctl": eperm,
		"clone3": retENOSYS, "unshare": eperm} {
		if got := ask(name); got != want {
			t.Errorf("%s: %#x, want %#x", name, got, want)
		}
	}
	if ask("clone", unix.CLONE_NEWUSER) != eperm || ask("clone", 0x11) != allow {
		t.Error("clone's flags are not looked at")
	}
	if ask("socket", unix.AF_VSOCK) != eperm || ask("socket", unix.AF_INET) != allow {
		t.Error("socket's family is not looked at")
	}
	if v, _ := interpret(t, f.Program, request{nr: 5000, audit: host[0].audit}.data(false)); v != retENOSYS {
		t.Errorf("a new call: %#x", v)
	}
	if runtime.GOARCH == "amd64" {
		if v, _ := interpret(t, f.Program, request{nr: x32Bit | 520, audit: host[0].audit}.data(false)); v != allow {
			t.Errorf("x32 execve: %#x", v)
		}
		if v, _ := interpret(t, f.Program, request{nr: 11, audit: host[1].audit}.data(false)); v != allow {
			t.Errorf("i386 execve: %#x", v)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	ok := []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}}
	for says, pr := range map[string]*specs.LinuxSeccomp{
		"action":      {DefaultAction: "SCMP_ACT_X"},
		"default act": {DefaultAction: specs.ActNotify},
		"architectur": {DefaultAction: specs.ActErrno, Architectures: []specs.Arch{"amd64"}},
		"flag":        {DefaultAction: specs.ActErrno, Flags: []specs.LinuxSeccompFlag{"X"}},
		"names no":    {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Action: specs.ActAllow}}},
		"write":       {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"write"}, Action: specs.ActNotify}}},
		"index 6":     {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"a"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}}},
		"operator":    {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"a"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: "LIKE"}}}}},
		"errnoRet":    {DefaultAction: specs.ActAllow, DefaultErrnoRet: p(uint(1)), Syscalls: ok},
		"goes to":     {DefaultAction: specs.ActErrno, DefaultErrnoRet: p(uint(1 << 20)), Syscalls: ok},
	} {
		if _, err := Compile(pr); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
	if f, err := Compile(nil); f != nil || err != nil {
		t.Error("no profile is no filter")
	}
}

func TestFlagsAndNotify(t *testing.T) {
	f, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", specs.LinuxSeccompFlagLog},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}}})
	if err != nil || !f.Notify || f.Flags != unix.SECCOMP_FILTER_FLAG_TSYNC|unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH|unix.SECCOMP_FILTER_FLAG_LOG {
		t.Fatalf("%+v, %v", f, err)
	}
	b, _ := f.MarshalBinary()
	var g Filter
	if err := g.UnmarshalBinary(b); err != nil || g.Flags != f.Flags || !g.Notify || !slices.Equal(g.Program, f.Program) {
		t.Fatalf("%+v, %v", g, err)
	}
	for n := range len(b) {
		_ = g.UnmarshalBinary(b[:n])
	}
}

func TestTablesAreSorted(t *testing.T) {
	byName := func(a, b call) int { return strings.Compare(a.name, b.name) }
	for _, a := range hostABIs() {
		if !slices.IsSortedFunc(a.calls, byName) {
			t.Error(a.arch)
		}
	}
	if !slices.IsSortedFunc(x32Own, byName) || !slices.IsSorted(only64) {
		t.Error("x32")
	}
}
