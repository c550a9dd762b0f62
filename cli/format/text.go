package format

import (
	"slices"
	"strings"
	"time"

	units "github.com/docker/go-units"
)

// Ellipsis shortens s to width runes, the last of them an ellipsis if something is missing.
func Ellipsis(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	if width <= 1 {
		return string(r[:max(width, 0)])
	}
	return string(r[:width-1]) + "…"
}

// Ago says how long before now t was, as "3 minutes ago"; "N/A" for no time.
func Ago(now, t time.Time) string {
	if t.IsZero() || t.Unix() <= 0 {
		return "N/A"
	}
	return units.HumanDuration(now.Sub(t)) + " ago"
}

// Labels lists labels as key=value, sorted, with commas.
func Labels(m map[string]string) string {
	list := make([]string, 0, len(m))
	for k, v := range m {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}
