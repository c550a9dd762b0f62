// Package conformance holds OCI runtimes against the validation programs of the Open Container Initiative
// (github.com/opencontainers/runtime-tools, validation/) and against each other: it builds the programs, runs each with
// a runtime, and reads what they say. The test compares shoal-runtime with expected.txt; the command in table/ runs all
// runtimes of this host and writes the table of docs/conformance.md. Further tests put shoal-runtime where dockerd and
// containerd expect runc, and hold its command line to runc's. It must not excuse a runtime: a program's verdict is its
// own, also where the program is wrong; what is wrong is said in expected.txt.
package conformance
