package logs

import (
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/runtime/spec/logopts"
)

func openRemote(target spec.LogTarget, opts logopts.Options, o Options) (Driver, error) {
	return nil, errs.New(errs.Unsupported, "log driver %s is not there yet", opts.Driver)
}

// Forward is the forwarder process.
func Forward() error { return errs.New(errs.Unsupported, "no forwarder yet") }
