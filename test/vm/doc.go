// Package vm boots Debian's kernel in a virtual machine and runs the kernel tests in it: cgroup v2 without any v1 hierarchy,
// disks of several filesystems, modules that the building machine has not, and power cuts. The guest's userland is a
// handful of this machine's own programs with their libraries. It must not know how Shoal works inside.
package vm
