// Package logs writes a container's output to its log, for the supervisor: the drivers local, json-file and none in
// process; drivers that speak with something else (syslog, journald, fluentd, gelf) through a forwarder, a second
// process that is there only for containers that use them, so that the others stay small. It must not read logs (the
// daemon does, in task/logs), nor know containers beyond spec.LogInfo.
//
// The path of a byte: the supervisor reads up to 128 KiB from the container's pipe, Splitter cuts off the last line when
// it is not finished, and the driver writes the rest as one batch with one time stamp. The driver local adds 20 bytes per
// batch and never looks at the lines.
package logs

import (
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/runtime/spec/logopts"
)

// Batch is a piece of output.
type Batch struct {
	Time    time.Time
	Stderr  bool
	Partial bool   // the last line is not finished: it has no newline and goes on in the stream's next batch
	Data    []byte // whole lines otherwise, the last without its newline where the stream ended so; valid only during the call
}

// Driver takes a container's output. Log is called by one goroutine at a time; its errors are reported once and then
// counted, the container goes on. Close writes what waits and ends.
type Driver interface {
	Log(b Batch) error
	Close() error
}

// Options are choices of the supervisor.
type Options struct {
	// Dropped, when not nil, is called when output was lost, with the number of batches lost so far and why.
	Dropped func(count int64, reason string)
	// Forwarder is the command that runs a remote driver; it gets the log target as JSON on fd 3 and batches on fd 0.
	Forwarder []string
	// Compressor is the command that compresses a file given as last argument; nil compresses in process.
	Compressor []string
}

// Open opens the log of a container. A nil Driver with a nil error is the driver none: nobody wants the output.
func Open(target spec.LogTarget, o Options) (Driver, error) {
	opts, err := logopts.Parse(target.Driver, target.Options)
	if err != nil {
		return nil, err
	}
	var d Driver
	copying := false
	switch opts.Driver {
	case logopts.None:
		return nil, nil
	case logopts.Local:
		d, err = openLocal(target.Path, opts.File, o.Compressor)
	case logopts.JSONFile:
		d, err = openJSON(target, opts, o.Compressor)
	default:
		d, err = openRemote(target, o)
		copying = !opts.NoCopy && target.Path != ""
	}
	if err != nil {
		return nil, errs.Wrap(err, "open the log (driver %s)", opts.Driver)
	}
	if opts.NonBlocking {
		d = newRing(d, opts.MaxBuffer, o.Dropped)
	}
	if copying {
		copy, err := openLocal(target.Path, opts.File, o.Compressor)
		if err != nil {
			d.Close()
			return nil, errs.Wrap(err, "open the local copy of the log (driver %s)", opts.Driver)
		}
		d = &copied{copy, d}
	}
	return d, nil
}
