// Package profile gives Docker's default seccomp profile for a container's capabilities. The list of calls is that of
// github.com/moby/profiles, so that it ages with Docker's and not by itself; it must not know how profiles are compiled.
package profile

import (
	mobyseccomp "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
)

// Unconfined and Default are the names of --security-opt seccomp= which are not files.
const (
	Unconfined = "unconfined"
	Default    = "builtin"
)

// For gives the default profile as it applies on this machine and its kernel to a process with these bounding
// capabilities ("CAP_SYS_ADMIN"): what a capability allows, its calls are allowed for.
func For(capabilities []string) (*specs.LinuxSeccomp, error) {
	p, err := mobyseccomp.GetDefaultProfile(specFor(capabilities))
	return p, errs.Wrap(err, "make the default seccomp profile")
}

// Parse reads a profile in Docker's JSON form (which includes the OCI one), with its conditions on architecture,
// kernel and capabilities resolved. An empty profile gives nil: unconfined.
func Parse(body string, capabilities []string) (*specs.LinuxSeccomp, error) {
	p, err := mobyseccomp.LoadProfile(body, specFor(capabilities))
	if err != nil {
		return nil, errs.New(errs.Invalid, "read the seccomp profile: %w", err)
	}
	return p, nil
}

func specFor(capabilities []string) *specs.Spec {
	return &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: capabilities}}}
}
