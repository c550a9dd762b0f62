package seccomp

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hostABIs lists what can run here, the native one first.
func hostABIs() []abi {
	return []abi{
		{arch: specs.ArchAARCH64, audit: unix.AUDIT_ARCH_AARCH64, calls: tableAARCH64},
		{arch: specs.ArchARM, audit: unix.AUDIT_ARCH_ARM, bits32: true, calls: tableARM},
	}
}
