package node

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/doctor"
)

// preflight looks at the host beside the start, which does not wait for it, and names in the log what will not work.
func (n *Node) preflight(ctx context.Context) {
	if err := n.spare().Keep(); err != nil && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) { // a full disk is told of below
		n.log.Warn("no space could be kept in reserve for removals on a full disk", "error", err)
	}
	for _, f := range doctor.Evaluate(doctor.Collect(ctx, doctor.Options{DataRoot: n.cfg.Load().Daemon.DataRoot})) {
		attrs := []any{"code", f.Code, "cause", f.Cause, "fix", f.Fix, "affects", strings.Join(f.Affects, "; ")}
		switch f.Severity {
		case doctor.Error:
			n.log.Error("this host lacks what containers need", attrs...)
		case doctor.Warning:
			n.log.Warn("something will not work on this host", attrs...)
		default:
			n.log.Debug("about this host", attrs...)
		}
	}
}
