package node

import (
	"context"
	"net/http"
	"strings"

	"github.com/shoalhq/shoal/doctor"
)

// preflight looks at the host beside the start, which does not wait for it, and names in the log what will not work.
func (n *Node) preflight(ctx context.Context) {
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

// serveDoctor answers GET /shoal/doctor with a doctor.Report of the daemon's host.
func (n *Node) serveDoctor(w http.ResponseWriter, r *http.Request) error {
	facts := doctor.Collect(r.Context(), doctor.Options{DataRoot: n.cfg.Load().Daemon.DataRoot})
	for _, f := range n.networks.Findings() {
		facts.Repairs = append(facts.Repairs, doctor.Repair{Code: f.Code, What: f.What, How: f.How, Last: f.Last, Times: f.N})
	}
	w.Header().Set("Content-Type", "application/json")
	return doctor.WriteJSON(w, doctor.Report{Findings: doctor.Evaluate(facts), Facts: facts})
}
