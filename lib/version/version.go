// Package version says which build this is. The linker sets the variables (see the Makefile); nothing else may.
package version

import (
	"runtime"
	"runtime/debug"
)

// Set by the linker.
var (
	Version   = "0.1.0-dev"
	GitCommit = "unknown"
	BuildTime = "" // RFC 3339, of the commit, so that builds are reproducible
)

// String is the one-line form that --version prints.
func String() string { return Version + ", build " + GitCommit }

// Go is the version of the Go tool chain that built this.
func Go() string { return runtime.Version() }

// Module is the version of a module that is linked into this program; "unknown" when it is not.
func Module(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version
			}
		}
	}
	return "unknown"
}
