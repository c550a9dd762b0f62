package seccomp

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hostABIs lists what can run here, the native one first.
func hostABIs() []abi {
	return []abi{{arch: specs.ArchX86, audit: unix.AUDIT_ARCH_I386, calls: tableX86, bits32: true, mux: muxTable()}}
}
