package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/shoalhq/shoal/lib/plural"
)

// WriteText prints findings for people, the worst first; nothing to say is said as well. Then what this host has that others
// have not.
func WriteText(w io.Writer, r Report) error {
	var b strings.Builder
	findings := r.Findings
	counts := map[Severity]int{}
	for _, f := range findings {
		counts[f.Severity]++
		fmt.Fprintf(&b, "%-7s  %s\n", f.Severity, f.Code)
		fmt.Fprintf(&b, "         cause:   %s\n", f.Cause)
		fmt.Fprintf(&b, "         fix:     %s\n", f.Fix)
		if len(f.Affects) > 0 {
			fmt.Fprintf(&b, "         affects: %s\n", strings.Join(f.Affects, "; "))
		}
		b.WriteString("\n")
	}
	switch {
	case len(findings) == 0:
		b.WriteString("This host has everything that Shoal uses.\n")
	case counts[Error] > 0:
		fmt.Fprintf(&b, "%s, %s, %s: containers will not run as they should before the errors are fixed.\n",
			plural.Of(counts[Error], "error"), plural.Of(counts[Warning], "warning"), plural.Of(counts[Info], "note"))
	default:
		fmt.Fprintf(&b, "No errors, %s, %s: containers run.\n", plural.Of(counts[Warning], "warning"), plural.Of(counts[Info], "note"))
	}
	if len(r.Facts.Emulators) > 0 {
		var names []string
		for _, e := range r.Facts.Emulators {
			names = append(names, strings.TrimPrefix(e.Name, "qemu-"))
		}
		fmt.Fprintf(&b, "Programs for these processors run by QEMU's emulation: %s.\n", strings.Join(names, ", "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Report is the JSON form.
type Report struct {
	Findings []Finding `json:"findings"`
	Facts    Facts     `json:"facts"`
}

// WriteJSON prints findings and facts for programs.
func WriteJSON(w io.Writer, r Report) error {
	if r.Findings == nil {
		r.Findings = []Finding{}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}
