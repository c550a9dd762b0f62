// Package seccomp compiles the OCI runtime specification's system call profiles (specs.LinuxSeccomp) to the kernel's
// filter programs, in Go, and loads them with seccomp(2). It needs no C library and no file. It follows what runc does
// with libseccomp, so that a profile means the same here and there; where it differs, the comment says so.
//
// The compiler is pure: the same profile on the same architecture gives the same bytes. The program finds the call by
// binary search over ranges of numbers (about 7 comparisons for Docker's profile of 350 calls, where libseccomp's
// default compares one after the other), and every call without conditions on its arguments needs only the number
// and the architecture, which lets kernels from 5.11 on skip the program for allowed calls altogether.
//
// Meaning of a profile:
//   - A call with an unconditional rule does that rule's action; conditional rules for the same call then do not
//     count, wherever they stand, and of two unconditional ones the first counts (as in libseccomp).
//   - Otherwise the first conditional rule whose conditions all hold decides, and else the default action. Several
//     conditions on the same argument in one rule are alternatives, not all needed (as in runc).
//   - Rules whose action is the default one are dropped, and names that this architecture does not have are skipped.
//   - A call that is newer than every call the profile names gets ENOSYS instead of a denying default action, so that
//     C libraries fall back to older calls (as in runc).
//   - A process of an architecture that is not listed is killed. The native architecture is always listed.
//   - x32 calls where x32 is not listed get ENOSYS.
package seccomp

//go:generate go run gen.go
