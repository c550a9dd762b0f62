package supervise

import (
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/spec"
)

// pickRunner chooses our own runtime, or the foreign one that the configuration names.
func pickRunner(cfg *spec.SupervisorConfig) (Runner, error) {
	return nil, errs.New(errs.Unsupported, "the runtime is not there yet")
}
