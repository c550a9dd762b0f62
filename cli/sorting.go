package cli

import (
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// sortNatural sorts by name the way people count: net2 before net10.
func sortNatural[T any](list []T, name func(T) string) {
	slices.SortStableFunc(list, func(a, b T) int { return naturalCompare(name(a), name(b)) })
}

func naturalCompare(a, b string) int {
	for a != "" && b != "" {
		na, nb := digits(a), digits(b)
		if na > 0 && nb > 0 {
			x, y := strings.TrimLeft(a[:na], "0"), strings.TrimLeft(b[:nb], "0")
			if len(x) != len(y) {
				return len(x) - len(y)
			}
			if c := strings.Compare(x, y); c != 0 {
				return c
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

// notThere says whether an engine answered that it does not have the thing or, for whole areas, does not do it.
func notThere(err error) bool { return errdefs.IsNotFound(err) || errdefs.IsNotImplemented(err) }
