//go:build !amd64 && !arm64

package namespaces

import "syscall"

// Elsewhere the child always gets a copy of the memory.
func rawVforkClone3(args uintptr, size uintptr) (pid uintptr, errno syscall.Errno) {
	panic("no vfork on this architecture")
}

const haveVfork = false
