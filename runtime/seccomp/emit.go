package seccomp

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data (linux/seccomp.h).
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16
)

func loadWord(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func ret(value uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value}
}

// jumpMax is how far a conditional jump can go; further needs an unconditional one.
const jumpMax = 255

// branch runs the next n instructions if the accumulator compares with k, and else the ones behind them.
func branch(op uint16, k uint32, n int) []unix.SockFilter {
	if n <= jumpMax {
		return []unix.SockFilter{{Code: unix.BPF_JMP | op | unix.BPF_K, K: k, Jf: uint8(n)}}
	}
	return []unix.SockFilter{{Code: unix.BPF_JMP | op | unix.BPF_K, K: k, Jt: 1}, {Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(n)}}
}

// search finds the span of the number in the accumulator by halves. Every path ends in a return. It writes behind p, and the
// last instruction first: jumps need to know how long what they jump over is, and one piece of memory is enough so.
func search(a *abi, spans []span, p []unix.SockFilter) []unix.SockFilter {
	if len(spans) == 1 {
		at := len(p)
		p = append(p, leafCode(a, spans[0].leaf)...)
		slices.Reverse(p[at:])
		return p
	}
	mid := len(spans) / 2
	p = search(a, spans[:mid], p)
	lower := len(p)
	p = search(a, spans[mid:], p)
	jump := branch(unix.BPF_JGE, spans[mid].from, len(p)-lower)
	slices.Reverse(jump)
	return append(p, jump...)
}

func leafCode(a *abi, l leaf) []unix.SockFilter {
	var p []unix.SockFilter
	for _, r := range l.rules {
		p = append(p, ruleCode(a, r)...)
	}
	return append(p, ret(l.ret))
}

// ruleCode returns the rule's value when all conditions hold, and else goes on behind itself.
func ruleCode(a *abi, r rule) []unix.SockFilter {
	var tests [][]test
	for _, c := range r.conditions {
		tests = append(tests, c.tests(a)...)
	}
	return assemble(tests, r.ret)
}

// test is one instruction of a condition; jumps name where to go when it is so and when not.
type test struct {
	code   uint16
	k      uint32
	yes    target
	no     target
	isJump bool
}

type target uint8

const (
	next target = iota // the next instruction
	pass               // the condition holds: to the next condition, or to the return
	fail               // to the next rule
)

func load(offset uint32) test {
	return test{code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, k: offset}
}

func and(mask uint32) test { return test{code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, k: mask} }

func jump(op uint16, k uint32, yes, no target) test {
	return test{code: unix.BPF_JMP | op | unix.BPF_K, k: k, yes: yes, no: no, isJump: true}
}

// tests compares a 64-bit argument by its halves: filters have only 32-bit words. On 32-bit architectures the upper
// half is always zero and, as in libseccomp, not looked at. Each group ends by passing or failing.
func (c condition) tests(a *abi) [][]test {
	lowAt := uint32(offsetArgs + 8*c.arg)
	highAt := lowAt + 4
	if a.big {
		lowAt, highAt = highAt, lowAt
	}
	high, low := uint32(c.value>>32), uint32(c.value)
	var g []test
	if !a.bits32 {
		g = append(g, load(highAt))
		switch c.op {
		case specs.OpEqualTo:
			g = append(g, jump(unix.BPF_JEQ, high, next, fail))
		case specs.OpMaskedEqual:
			g = append(g, and(uint32(c.mask>>32)), jump(unix.BPF_JEQ, high, next, fail))
		case specs.OpNotEqual:
			g = append(g, jump(unix.BPF_JEQ, high, next, pass))
		case specs.OpLessThan, specs.OpLessEqual:
			g = append(g, jump(unix.BPF_JGT, high, fail, next), jump(unix.BPF_JEQ, high, next, pass))
		case specs.OpGreaterThan, specs.OpGreaterEqual:
			g = append(g, jump(unix.BPF_JGT, high, pass, next), jump(unix.BPF_JEQ, high, next, fail))
		}
	}
	g = append(g, load(lowAt))
	switch c.op {
	case specs.OpEqualTo:
		g = append(g, jump(unix.BPF_JEQ, low, pass, fail))
	case specs.OpMaskedEqual:
		g = append(g, and(uint32(c.mask)), jump(unix.BPF_JEQ, low, pass, fail))
	case specs.OpNotEqual:
		g = append(g, jump(unix.BPF_JEQ, low, fail, pass))
	case specs.OpLessThan:
		g = append(g, jump(unix.BPF_JGE, low, fail, pass))
	case specs.OpLessEqual:
		g = append(g, jump(unix.BPF_JGT, low, fail, pass))
	case specs.OpGreaterThan:
		g = append(g, jump(unix.BPF_JGT, low, pass, fail))
	case specs.OpGreaterEqual:
		g = append(g, jump(unix.BPF_JGE, low, pass, fail))
	}
	return [][]test{g}
}

// assemble lays the groups one behind the other, the return last, and turns targets into distances. Six conditions
// of at most seven instructions keep every distance below jumpMax.
func assemble(groups [][]test, value uint32) []unix.SockFilter {
	total := 1
	for _, g := range groups {
		total += len(g)
	}
	p := make([]unix.SockFilter, 0, total)
	start := 0
	for _, g := range groups {
		end := start + len(g)
		for i, t := range g {
			at := start + i + 1 // jumps count from the instruction behind
			distance := func(to target) uint8 {
				switch to {
				case pass:
					return uint8(end - at)
				case fail:
					return uint8(total - at)
				}
				return 0
			}
			f := unix.SockFilter{Code: t.code, K: t.k}
			if t.isJump {
				f.Jt, f.Jf = distance(t.yes), distance(t.no)
			}
			p = append(p, f)
		}
		start = end
	}
	return append(p, ret(value))
}
