// Package logs reads what supervisors logged: the formats of the drivers local and json-file, over rotated and compressed
// files, from the end, in a span of time, and live. It learns of new lines and of rotation from the kernel (inotify) and
// never polls. It must not write logs; it also chooses labels and environment for drivers, and checks their options.
package logs

import (
	"context"
	"time"

	"github.com/shoalhq/shoal/model"
)

// Source is a container's log.
type Source struct {
	Driver  string // local, json-file; another driver's local copy has the format local
	Options map[string]string
	Path    string
	// Running is closed when the container does not run (any more); nil is not running.
	Running <-chan struct{}
}

// Read emits the entries that opts choose, oldest first, until the end; with Follow, until the source's container has
// ended and everything is read, or ctx ends (which is no error). What emit returns ends the reading.
func Read(ctx context.Context, src Source, opts model.LogOptions, emit func(model.LogEntry) error) error {
	r, err := newReader(src, opts, emit)
	if err != nil {
		return err
	}
	defer r.close()
	err = r.run(ctx)
	if ctx.Err() != nil && opts.Follow {
		return nil
	}
	return err
}

// pick says whether an entry is wanted, and whether none after it can be.
func pick(o *model.LogOptions, stderr bool, at time.Time) (want, past bool) {
	if !o.Until.IsZero() && at.After(o.Until) {
		return false, true
	}
	if !o.Since.IsZero() && at.Before(o.Since) {
		return false, false
	}
	return stderr && o.Stderr || !stderr && o.Stdout, false
}
