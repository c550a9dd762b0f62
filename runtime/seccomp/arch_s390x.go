package seccomp

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hostABIs lists what can run here, the native one first.
func hostABIs() []abi {
	return []abi{{arch: specs.ArchS390X, audit: unix.AUDIT_ARCH_S390X, calls: tableS390X, big: true, mux: muxTable()}}
}
