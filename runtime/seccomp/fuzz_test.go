package seccomp

import (
	"encoding/json"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// FuzzCompile: whatever a bundle says, the compiler answers with an error or with a program that the kernel would
// take: every jump stays inside, every path ends in a return.
func FuzzCompile(f *testing.F) {
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],"syscalls":[{"names":["read","socket"],"action":"SCMP_ACT_ALLOW"},
		{"names":["clone"],"action":"SCMP_ACT_TRAP","args":[{"index":5,"value":18446744073709551615,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var pr specs.LinuxSeccomp
		if json.Unmarshal(data, &pr) != nil {
			return
		}
		filter, err := Compile(&pr)
		if err != nil {
			return
		}
		n := len(filter.Program)
		for i, s := range filter.Program {
			end := i
			switch {
			case s.Code == unix.BPF_JMP|unix.BPF_JA:
				end = i + 1 + int(s.K)
			case s.Code&7 == unix.BPF_JMP:
				end = i + 1 + int(max(s.Jt, s.Jf))
			case s.Code&7 != unix.BPF_RET:
				end = i + 1
			}
			if end >= n {
				t.Fatalf("instruction %d leaves the program of %d", i, n)
			}
		}
	})
}
