package build

import (
	"reflect"
	"unsafe"

	"github.com/moby/buildkit/control"

	"github.com/shoalhq/shoal/lib/errs"
)

// noSampler takes the sampler of the host's load away from BuildKit's solver, which does without where there is none: once
// used it looks every two seconds for ever, and a daemon that rests must not wake. Provenance then lacks the load that
// the whole host had meanwhile. BuildKit offers no option, so that its unexported field is set, before anything uses it.
func noSampler(c *control.Controller) error {
	solver := reflect.ValueOf(c).Elem().FieldByName("solver")
	if solver.Kind() != reflect.Pointer || solver.Elem().Kind() != reflect.Struct {
		return errs.New(errs.Internal, "BuildKit's controller has no solver where it was: change build/quiet.go")
	}
	field := solver.Elem().FieldByName("sysSampler")
	if field.Kind() != reflect.Pointer {
		return errs.New(errs.Internal, "BuildKit's solver has no sampler where it was: change build/quiet.go")
	}
	*(*unsafe.Pointer)(unsafe.Pointer(field.UnsafeAddr())) = nil
	return nil
}
