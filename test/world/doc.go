// Package world boots the real binaries for tests: a daemon with directories and a network namespace of its own, the
// command lines shoal and docker pointed at it, and a count of what is left on the machine afterwards. It must not
// know how the daemon works inside.
package world
