package seccomp

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
)

// Filter is a compiled profile.
type Filter struct {
	Program []unix.SockFilter
	Flags   uint32 // SECCOMP_FILTER_FLAG_*
	Notify  bool   // Load gives a listener descriptor, to be passed on to the profile's listenerPath
	// Skipped are the names in the profile that this machine does not have in any architecture: usually calls of
	// other architectures or newer kernels. For a debug log.
	Skipped []string
}

// maxArgs is how many arguments a call has.
const maxArgs = 6

// Compile turns the profile into a filter for this machine. nil gives nil: no filter.
func Compile(profile *specs.LinuxSeccomp) (*Filter, error) { return compileFor(profile, hostABIs()) }

func compileFor(profile *specs.LinuxSeccomp, host []abi) (*Filter, error) {
	if profile == nil {
		return nil, nil
	}
	if len(host) == 0 {
		return nil, errs.New(errs.Unsupported, "seccomp: there is no system call table for this architecture: run without a "+
			"profile (--security-opt seccomp=unconfined)")
	}
	c := &compiler{}
	var err error
	if c.fallback, err = returnValue(profile.DefaultAction, profile.DefaultErrnoRet); err != nil {
		return nil, errs.Wrap(err, "seccomp: defaultAction")
	}
	if profile.DefaultAction == specs.ActNotify {
		return nil, errs.New(errs.Invalid, "seccomp: SCMP_ACT_NOTIFY cannot be the default action: the listener itself could not start")
	}
	if err = c.readRules(profile); err != nil {
		return nil, err
	}
	flags, err := readFlags(profile.Flags)
	if err != nil {
		return nil, err
	}
	abis, err := choose(profile.Architectures, host)
	if err != nil {
		return nil, err
	}
	c.found = make([]bool, len(c.names))
	program, err := c.program(abis)
	if err != nil {
		return nil, err
	}
	f := &Filter{Program: program, Flags: flags}
	for i, found := range c.found {
		if !found {
			f.Skipped = append(f.Skipped, c.names[i])
		}
	}
	for _, r := range c.rules {
		f.Notify = f.Notify || r.ret == unix.SECCOMP_RET_USER_NOTIF
	}
	if f.Notify && f.Flags&unix.SECCOMP_FILTER_FLAG_TSYNC != 0 {
		f.Flags |= unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH // without it TSYNC and a listener exclude each other
	}
	if f.Flags&unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV != 0 && !f.Notify {
		f.Flags &^= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV // has a meaning only with a listener; the kernel refuses it alone
	}
	return f, nil
}

type compiler struct {
	fallback uint32
	rules    []rule
	names    []string // of all entries of the profile, dropped rules included, one behind the other
	found    []bool   // of names: some architecture has the call
}

// missing is the number of a call that an architecture does not have.
const missing = ^uint32(0)

// resolve looks every name up once: this is most of what compiling costs.
func (c *compiler) resolve(a *abi) []uint32 {
	out := make([]uint32, len(c.names))
	for i, n := range c.names {
		out[i] = missing
		if nr, ok := a.lookup(n); ok {
			out[i] = nr
		}
	}
	return out
}

// rule is one of the profile's, checked.
type rule struct {
	from, to   int // its names, as a part of compiler.names
	ret        uint32
	conditions []condition // all must hold
}

type condition struct {
	arg   uint
	op    specs.LinuxSeccompOperator
	value uint64
	mask  uint64 // for MASKED_EQ
}

func (c *compiler) readRules(profile *specs.LinuxSeccomp) error {
	for i, s := range profile.Syscalls {
		if len(s.Names) == 0 {
			return errs.New(errs.Invalid, "seccomp: syscalls[%d] names no system call", i)
		}
		r := rule{from: len(c.names), to: len(c.names) + len(s.Names)}
		c.names = append(c.names, s.Names...)
		var err error
		if r.ret, err = returnValue(s.Action, s.ErrnoRet); err != nil {
			return errs.Wrap(err, "seccomp: syscalls[%d] (%s ...)", i, s.Names[0])
		}
		if r.ret == unix.SECCOMP_RET_USER_NOTIF && slices.Contains(s.Names, "write") {
			return errs.New(errs.Invalid, "seccomp: SCMP_ACT_NOTIFY cannot be used for write: the runtime needs it to hand "+
				"the listener over")
		}
		conds, repeated, err := readConditions(s.Args)
		if err != nil {
			return errs.Wrap(err, "seccomp: syscalls[%d] (%s ...)", i, s.Names[0])
		}
		switch {
		case r.ret == c.fallback: // dropped
		case !repeated:
			r.conditions = conds
			c.rules = append(c.rules, r)
		default:
			for _, one := range conds {
				r.conditions = []condition{one}
				c.rules = append(c.rules, r)
			}
		}
	}
	return nil
}

func readConditions(args []specs.LinuxSeccompArg) (conds []condition, repeated bool, err error) {
	var seen [maxArgs]bool
	for _, a := range args {
		if a.Index >= maxArgs {
			return nil, false, errs.New(errs.Invalid, "argument index %d: a system call has arguments 0 to %d", a.Index, maxArgs-1)
		}
		repeated = repeated || seen[a.Index]
		seen[a.Index] = true
		c := condition{arg: a.Index, op: a.Op, value: a.Value}
		switch a.Op {
		case specs.OpMaskedEqual:
			c.mask, c.value = a.Value, a.ValueTwo
		case specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan:
		default:
			return nil, false, errs.New(errs.Invalid, "operator %q: it is SCMP_CMP_ followed by NE, LT, LE, EQ, GE, GT or MASKED_EQ", a.Op)
		}
		conds = append(conds, c)
	}
	return conds, repeated, nil
}

// returnValue gives the filter's return value for an action.
func returnValue(action specs.LinuxSeccompAction, data *uint) (uint32, error) {
	errno := uint32(unix.EPERM)
	if data != nil {
		if action != specs.ActErrno && action != specs.ActTrace {
			return 0, errs.New(errs.Invalid, "errnoRet %d with action %s: only SCMP_ACT_ERRNO and SCMP_ACT_TRACE return a number", *data, action)
		}
		if *data > unix.SECCOMP_RET_DATA {
			return 0, errs.New(errs.Invalid, "errnoRet %d: it goes to %d", *data, unix.SECCOMP_RET_DATA)
		}
		errno = uint32(*data)
	}
	switch action {
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | errno, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | errno, nil
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActNotify:
		return unix.SECCOMP_RET_USER_NOTIF, nil
	}
	return 0, errs.New(errs.Invalid, "action %q is none of SCMP_ACT_ALLOW, ERRNO, KILL, KILL_PROCESS, KILL_THREAD, LOG, "+
		"NOTIFY, TRACE, TRAP", action)
}

func readFlags(list []specs.LinuxSeccompFlag) (uint32, error) {
	if list == nil {
		// As runc: without it kernels before 5.16 slow every process with a filter down (speculative store bypass).
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil
	}
	var flags uint32
	for _, f := range list {
		switch f {
		case "SECCOMP_FILTER_FLAG_TSYNC":
			flags |= unix.SECCOMP_FILTER_FLAG_TSYNC
		case specs.LinuxSeccompFlagLog:
			flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			flags |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		default:
			return 0, errs.New(errs.Invalid, "seccomp: flag %q is none of SECCOMP_FILTER_FLAG_TSYNC, LOG, SPEC_ALLOW, "+
				"WAIT_KILLABLE_RECV", f)
		}
	}
	return flags, nil
}

// choose gives the host's architectures that the profile lists, the native one always and first.
func choose(list []specs.Arch, host []abi) ([]abi, error) {
	for _, a := range list {
		if !slices.Contains(known, a) {
			return nil, errs.New(errs.Invalid, "seccomp: architecture %q is not one of the specification's (SCMP_ARCH_X86_64, ...)", a)
		}
	}
	out := host[:1:1]
	for _, h := range host[1:] {
		if slices.Contains(list, h.arch) {
			out = append(out, h)
		}
	}
	return out, nil
}

// denying says whether the default action keeps calls from being made: then calls newer than the profile get ENOSYS.
// Tracing counts as letting them through, since a tracer can.
func denying(action uint32) bool {
	switch action & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_TRACE:
		return false
	}
	return action != retENOSYS
}

const retENOSYS = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)

// lastKnown is the highest number among the calls the profile names for this architecture, dropped rules included.
func (c *compiler) lastKnown(a *abi, numbers []uint32) (uint32, bool) {
	var last uint32
	found := false
	for i, nr := range numbers {
		if m, ok := a.mux[c.names[i]]; ok {
			if through, ok := a.lookup(m.through); ok {
				last, found = max(last, through), true
			}
		}
		if nr != missing && nr-a.offset < privateBase {
			last, found = max(last, nr), true
		}
	}
	return last, found
}

// leaf is what is to be done for one call.
type leaf struct {
	ret   uint32 // when no rule's conditions hold, or when there are none
	rules []rule // first match wins; each has conditions
}

func (l leaf) same(o leaf) bool { return l.ret == o.ret && len(l.rules) == 0 && len(o.rules) == 0 }

// leaves collects the leaf of each call of one architecture; calls that are not there do the default.
type leaves struct {
	fallback uint32
	of       map[uint32]leaf
	fixed    map[uint32]bool // has an unconditional rule
}

func (l *leaves) add(nr uint32, r rule) {
	if l.fixed[nr] {
		return
	}
	if len(r.conditions) == 0 {
		l.fixed[nr] = true
		l.of[nr] = leaf{ret: r.ret}
		return
	}
	it, ok := l.of[nr]
	if !ok {
		it.ret = l.fallback
	}
	it.rules = append(it.rules, r)
	l.of[nr] = it
}

func (c *compiler) leaves(a *abi, numbers []uint32) map[uint32]leaf {
	l := &leaves{c.fallback, make(map[uint32]leaf, len(numbers)), make(map[uint32]bool, len(numbers))}
	for _, r := range c.rules {
		for i := r.from; i < r.to; i++ {
			if numbers[i] != missing {
				l.add(numbers[i], r)
			}
			if m, ok := a.mux[c.names[i]]; ok {
				if nr, ok := a.lookup(m.through); ok {
					l.addMuxed(nr, m, r)
				}
			}
		}
	}
	return l.of
}

// addMuxed gives socketcall and ipc the rule of the call they carry. Their other arguments are in memory where a
// filter cannot see them: a rule with conditions that lets through does not count there, one that forbids counts always.
func (l *leaves) addMuxed(nr uint32, m muxed, r rule) {
	if len(r.conditions) > 0 && !denying(r.ret) && r.ret != retENOSYS {
		return
	}
	l.add(nr, rule{ret: r.ret, conditions: []condition{{arg: 0, op: specs.OpMaskedEqual, value: m.code, mask: m.mask}}})
}

// span is a range of numbers, from its first to before the next span's, with the same leaf.
type span struct {
	from uint32
	leaf leaf
}

// spans covers all numbers from base on.
func (c *compiler) spans(a *abi) []span {
	resolved := c.resolve(a)
	for i, nr := range resolved {
		if _, mux := a.mux[c.names[i]]; nr != missing || mux {
			c.found[i] = true
		}
	}
	leaves := c.leaves(a, resolved)
	numbers := make([]uint32, 0, len(leaves))
	for nr := range leaves {
		numbers = append(numbers, nr)
	}
	slices.Sort(numbers)
	out := make([]span, 0, 2*len(numbers)+8)
	put := func(from uint32, l leaf) {
		if n := len(out); n > 0 && out[n-1].from == from {
			out[n-1].leaf = l
			return
		}
		if n := len(out); n > 0 && out[n-1].leaf.same(l) {
			return
		}
		out = append(out, span{from, l})
	}
	other := leaf{ret: c.fallback}
	newer, stub := uint32(0), false
	if denying(c.fallback) {
		if last, ok := c.lastKnown(a, resolved); ok {
			newer, stub = last+1, true
		}
	}
	put(a.offset, other)
	for _, nr := range numbers {
		if stub && nr >= newer && nr-a.offset >= privateBase && out[len(out)-1].from <= newer {
			put(newer, leaf{ret: retENOSYS})
			put(a.offset+privateBase, other)
		}
		put(nr, leaves[nr])
		put(nr+1, other)
	}
	if stub && out[len(out)-1].from <= newer {
		put(newer, leaf{ret: retENOSYS})
	}
	return out
}

func (c *compiler) program(abis []abi) ([]unix.SockFilter, error) {
	p := []unix.SockFilter{loadWord(offsetArch)}
	done := map[uint32]bool{}
	for i := range abis {
		a := &abis[i]
		if done[a.audit] {
			continue
		}
		done[a.audit] = true
		spans := c.spans(a)
		if a.arch == specs.ArchX86_64 {
			spans = append(below(spans, x32Bit), c.x32(abis)...)
		}
		spans = merge(spans)
		body := search(a, spans, make([]unix.SockFilter, 0, 3*len(spans)))
		body = append(body, loadWord(offsetNr))
		slices.Reverse(body)
		p = append(p, branch(unix.BPF_JEQ, a.audit, len(body))...)
		p = append(p, body...)
	}
	// Not an architecture of the profile.
	p = append(p, ret(unix.SECCOMP_RET_KILL_PROCESS))
	if len(p) > unix.BPF_MAXINSNS {
		return nil, errs.New(errs.Unsupported, "seccomp: the profile needs %d filter instructions, the kernel takes %d: use fewer "+
			"rules with conditions", len(p), unix.BPF_MAXINSNS)
	}
	return p, nil
}

func below(spans []span, limit uint32) []span {
	return slices.DeleteFunc(spans, func(s span) bool { return s.from >= limit })
}

// x32 covers the numbers with the x32 bit, which share x86_64's audit architecture.
func (c *compiler) x32(abis []abi) []span {
	for i := range abis {
		if abis[i].arch == specs.ArchX32 {
			return c.spans(&abis[i])
		}
	}
	return []span{{x32Bit, leaf{ret: retENOSYS}}}
}

func merge(spans []span) []span {
	return slices.CompactFunc(spans, func(a, b span) bool { return a.leaf.same(b.leaf) })
}

// String shows the program one instruction per line, for tests and for people.
func (f *Filter) String() string {
	var b strings.Builder
	for i, s := range f.Program {
		fmt.Fprintf(&b, "%4d: code=%#04x jt=%d jf=%d k=%#x\n", i, s.Code, s.Jt, s.Jf, s.K)
	}
	return b.String()
}
