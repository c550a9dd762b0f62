// Package health is the one list of the troubles that Shoal knows: each has a code that never changes, a severity, what it
// means and what to do. Whoever finds one names it by its code; docs/troubles.md is written from this list. It must not look
// for troubles itself.
package health

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// Severity says how bad a trouble is.
type Severity string

// The severities, worst first.
const (
	Error   Severity = "error"   // something does not work, or data is in danger
	Warning Severity = "warning" // something will not work, or is not safe
	Info    Severity = "info"    // good to know when looking for a reason
)

// Trouble is one known trouble.
type Trouble struct {
	Code     string
	Severity Severity // mostly; a finding may be milder
	Area     string   // "host: storage", "container", "engine"
	Means    string
	Fix      string
}

// All lists every trouble.
func All() []Trouble { return slices.Concat(host, things) }

// Find gives the trouble of a code.
func Find(code string) (Trouble, bool) {
	for _, list := range [][]Trouble{host, things} {
		for _, t := range list {
			if t.Code == code {
				return t, true
			}
		}
	}
	return Trouble{}, false
}

// Log writes a trouble to the daemon's log: cause is what was found, args are further attributes.
func Log(log *slog.Logger, code, cause string, args ...any) {
	t, _ := Find(code)
	args = append([]any{"code", code, "fix", t.Fix}, args...)
	switch t.Severity {
	case Error:
		log.Error(cause, args...)
	case Warning:
		log.Warn(cause, args...)
	default:
		log.Info(cause, args...)
	}
}

// Markdown is the list for the documentation.
func Markdown() string {
	var b strings.Builder
	b.WriteString("# Known troubles\n\nEvery code that `shoal doctor`, `shoal explain` and the daemon's log give. This page is written from `observe/health`:\n" +
		"`go test ./observe/health -rewrite`.\n")
	area := ""
	for _, t := range All() {
		if t.Area != area {
			area = t.Area
			fmt.Fprintf(&b, "\n## %s\n\n| code | severity | what it means | what to do |\n|---|---|---|---|\n", strings.ToUpper(area[:1])+area[1:])
		}
		cell := func(s string) string { return strings.ReplaceAll(s, "|", "\\|") }
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", t.Code, t.Severity, cell(t.Means), cell(t.Fix))
	}
	return b.String()
}
