package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoalhq/shoal/doctor"
)

// Finding is one reason, with what shows it and what helps.
type Finding struct {
	Code     string          `json:"code"`
	Severity doctor.Severity `json:"severity"`
	Cause    string          `json:"cause"`
	Evidence []string        `json:"evidence,omitempty"`
	Fix      string          `json:"fix,omitempty"`
}

// Report is the answer.
type Report struct {
	Kind     string    `json:"kind"` // container, image, network, port
	Name     string    `json:"name"`
	ID       string    `json:"id,omitempty"`
	State    string    `json:"state"` // in one sentence
	Findings []Finding `json:"findings"`
}

// Explain tells. Pure: the same facts give the same report.
func Explain(f Facts) Report {
	var r Report
	switch {
	case f.Container != nil:
		r = container(f, f.Container)
	case f.Image != nil:
		r = image(f.Image)
	case f.Network != nil:
		r = network(f.Network)
	case f.Port != nil:
		r = port(f, f.Port)
	}
	if r.Findings == nil {
		r.Findings = []Finding{}
	}
	rank := map[doctor.Severity]int{doctor.Error: 0, doctor.Warning: 1, doctor.Info: 2}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return rank[a.Severity] - rank[b.Severity] })
	// A port that is published for IPv4 and IPv6 has the same troubles twice.
	r.Findings = slices.CompactFunc(r.Findings, func(a, b Finding) bool {
		return a.Code == b.Code && a.Cause == b.Cause && a.Fix == b.Fix && slices.Equal(a.Evidence, b.Evidence)
	})
	return r
}

// Text is the report for people.
func (r Report) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s\n", r.Kind, r.Name, r.State)
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "\n%-7s  %s\n         cause:    %s\n", f.Severity, f.Code, f.Cause)
		for _, e := range f.Evidence {
			fmt.Fprintf(&b, "         evidence: %s\n", e)
		}
		if f.Fix != "" {
			fmt.Fprintf(&b, "         fix:      %s\n", f.Fix)
		}
	}
	return b.String()
}

// codes is every code that Explain gives, for the test of the list.
var codes = map[string]doctor.Severity{
	"never-started": doctor.Info, "supervisor-killed": doctor.Error, "start-failed": doctor.Error, "exited-by-itself": doctor.Info, "exit-code": doctor.Error, "cannot-run": doctor.Error,
	"oom-killed": doctor.Error, "stopped-by-request": doctor.Info, "killed-by-signal": doctor.Error, "restarts-in-a-loop": doctor.Error,
	"restarts-given-up": doctor.Error, "unhealthy": doctor.Error, "container-paused": doctor.Warning, "container-dead": doctor.Error,
	"container-in-use": doctor.Info, "port-not-published": doctor.Info, "published-on-loopback": doctor.Info,
	"listens-on-loopback": doctor.Error, "nobody-listens": doctor.Error, "network-internal": doctor.Warning, "no-network": doctor.Info,
	"port-unreachable": doctor.Error, "port-sources": doctor.Info, "port-through-daemon": doctor.Info,
	"image-missing": doctor.Info, "image-not-found": doctor.Error, "image-denied": doctor.Error, "registry-unreachable": doctor.Error,
	"registry-certificate": doctor.Error, "registry-rate-limit": doctor.Error, "pull-failed": doctor.Error, "image-in-use": doctor.Info,
	"image-other-platform": doctor.Warning, "image-several-names": doctor.Info, "network-in-use": doctor.Info, "network-predefined": doctor.Info,
	"network-full": doctor.Error, "port-of-host-process": doctor.Error, "port-of-nobody": doctor.Error, "port-of-stopped": doctor.Error,
}

// Codes lists every code with its severity. Findings about the host's firewall are doctor's.
func Codes() map[string]doctor.Severity { return codes }

func find(code, cause, fix string, evidence ...string) Finding {
	s, ok := codes[code]
	if !ok {
		panic("explain: unknown code " + code)
	}
	return Finding{Code: code, Severity: s, Cause: cause, Fix: fix, Evidence: slices.DeleteFunc(evidence, func(e string) bool { return e == "" })}
}
