package seccomp

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hostABIs lists what can run here, the native one first.
func hostABIs() []abi {
	return []abi{{arch: specs.ArchLOONGARCH64, audit: unix.AUDIT_ARCH_LOONGARCH64, calls: tableLOONGARCH64}}
}
