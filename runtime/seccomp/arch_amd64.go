package seccomp

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hostABIs lists what can run here, the native one first.
func hostABIs() []abi {
	return []abi{
		{arch: specs.ArchX86_64, audit: unix.AUDIT_ARCH_X86_64, calls: tableX86_64},
		{arch: specs.ArchX86, audit: unix.AUDIT_ARCH_I386, bits32: true, calls: tableX86, mux: muxTable()},
		{arch: specs.ArchX32, audit: unix.AUDIT_ARCH_X86_64, calls: tableX86_64, offset: x32Bit},
	}
}
