//go:build amd64 || arm64

package namespaces

import "syscall"

// rawVforkClone3 is clone3 with CLONE_VM|CLONE_VFORK.
//
//go:noescape
func rawVforkClone3(args uintptr, size uintptr) (pid uintptr, errno syscall.Errno)

const haveVfork = true
