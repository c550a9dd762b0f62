package cgroup

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/shoalhq/shoal/lib/errs"
)

func TestDeviceRuleErrors(t *testing.T) {
	for says, d := range map[string]specs.LinuxDeviceCgroup{
		"type":    {Type: "x", Access: "r"},
		"mknod":   {Type: "c", Access: "rx"},
		"without": {Type: "c"},
		"major":   {Type: "c", Major: p(int64(-2)), Access: "r"},
	} {
		if _, err := deviceRuleOf(d); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v", d, err)
		}
	}
}

func TestFoldRefusesHoles(t *testing.T) {
	_, err := fold([]deviceRule{{true, 'c', 1, -1, accAll}, {false, 'c', 1, 5, accRead}})
	if !errs.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "c 1:5 r") {
		t.Error(err)
	}
}

// dumb says what the rules mean: the last one that speaks of the request decides.
func dumb(rules []deviceRule, kind byte, major, minor int64, access uint8) bool {
	for i := len(rules) - 1; i >= 0; i-- {
		r := rules[i]
		if r.kind != 'a' && r.kind != kind || r.major != anyNumber && r.major != major || r.minor != anyNumber && r.minor != minor {
			continue
		}
		if r.allow && access&^r.access == 0 {
			return true
		}
		if !r.allow && access&r.access != 0 {
			return false
		}
	}
	return false
}

// run interprets the instructions that deviceProgram uses; registers are 32 bits wide in all of them.
func run(t *rapid.T, p []insn, ctx [3]uint32) bool {
	var reg [11]uint32
	for pc := 0; pc < len(p); pc++ {
		i := p[pc]
		jump := false
		switch i.code {
		case opLdxW:
			reg[i.dst] = ctx[i.off/4]
		case opMov32:
			reg[i.dst] = reg[i.src]
		case opMov64K:
			reg[i.dst] = uint32(i.imm)
		case opAnd32K:
			reg[i.dst] &= uint32(i.imm)
		case opRsh32K:
			reg[i.dst] >>= uint32(i.imm)
		case opJne32K:
			jump = reg[i.dst] != uint32(i.imm)
		case unix.BPF_JMP32 | unix.BPF_JEQ | unix.BPF_K:
			jump = reg[i.dst] == uint32(i.imm)
		case opExit:
			return reg[0] != 0
		default:
			t.Fatalf("instruction %x", i.code)
		}
		if jump {
			pc += int(i.off)
		}
	}
	t.Fatal("the program runs off its end")
	return false
}

func genRules() *rapid.Generator[[]deviceRule] {
	number := rapid.SampledFrom([]int64{anyNumber, 1, 5, 10, 0xffffffff})
	rule := rapid.Custom(func(t *rapid.T) deviceRule {
		return deviceRule{allow: rapid.Bool().Draw(t, "allow"), kind: rapid.SampledFrom([]byte{'a', 'b', 'c'}).Draw(t, "kind"),
			major: number.Draw(t, "major"), minor: number.Draw(t, "minor"), access: rapid.Uint8Range(1, 7).Draw(t, "access")}
	})
	return rapid.SliceOfN(rule, 0, 12)
}

func TestDeviceProgramIsWhatTheRulesSay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := genRules().Draw(t, "rules")
		prog := deviceProgram(rules)
		for _, kind := range []byte{'b', 'c'} {
			for _, major := range []int64{1, 5, 7} {
				for _, minor := range []int64{1, 10, 0xffffffff} {
					for access := uint8(1); access <= accAll; access++ {
						k := uint32(devChar)
						if kind == 'b' {
							k = devBlock
						}
						got := run(t, prog, [3]uint32{uint32(access)<<16 | k, uint32(major), uint32(minor)})
						if want := dumb(rules, kind, major, minor, access); got != want {
							t.Fatalf("%c %d:%d %s: program %v, rules %v", kind, major, minor, accessString(access), got, want)
						}
						if allowsAll(rules) && !got {
							t.Fatal("allowsAll is wrong")
						}
					}
				}
			}
		}
	})
}

// TestFoldIsWhatTheRulesSay: where v1 can hold the rules, its table answers as they do, asked for one access at a time.
func TestFoldIsWhatTheRulesSay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := append([]deviceRule{{false, 'a', anyNumber, anyNumber, accAll}}, genRules().Draw(t, "rules")...)
		table, err := fold(rules)
		if err != nil {
			return
		}
		for _, kind := range []byte{'b', 'c'} {
			for _, major := range []int64{1, 5, 7} {
				for _, minor := range []int64{1, 10} {
					for _, access := range []uint8{accMknod, accRead, accWrite} {
						hit := false
						for k, a := range table.except {
							hit = hit || k.covers(deviceKey{kind, major, minor}) && a&access != 0
						}
						if got, want := table.allow != hit, dumb(rules, kind, major, minor, access); got != want {
							t.Fatalf("%c %d:%d %s: table %v, rules %v", kind, major, minor, accessString(access), got, want)
						}
					}
				}
			}
		}
	})
}
