package model

import "strings"

// HasLabel says whether labels have what a filter wants: "key", or "key=value".
func HasLabel(labels map[string]string, want string) bool {
	key, value, hasValue := strings.Cut(want, "=")
	got, ok := labels[key]
	return ok && (!hasValue || got == value)
}

// MatchLabels applies the filters "label" (all must match) and "label!" (none may).
func (f Filters) MatchLabels(labels map[string]string) bool {
	for _, want := range f["label"] {
		if !HasLabel(labels, want) {
			return false
		}
	}
	for _, bad := range f["label!"] {
		if HasLabel(labels, bad) {
			return false
		}
	}
	return true
}
