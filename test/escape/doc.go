// Package escape tries the published ways out of a container against the real runtime: each test is one advisory's
// method, as far as it can be tried on one machine, and passes when it does not work. docs/security.md names the test
// beside each advisory. It needs root and a kernel (build tag kernel), and Debian's static busybox for the containers.
// It must not know how the runtime is built inside.
package escape
