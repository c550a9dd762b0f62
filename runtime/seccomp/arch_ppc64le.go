package seccomp

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hostABIs lists what can run here, the native one first.
func hostABIs() []abi {
	return []abi{{arch: specs.ArchPPC64LE, audit: unix.AUDIT_ARCH_PPC64LE, calls: tablePPC64LE}}
}
