// Package plural words counts. It knows English only, and none of its exceptions.
package plural

import "strconv"

// Of is "1 error", "2 errors".
func Of(n int, word string) string {
	if n != 1 {
		word += "s"
	}
	return strconv.Itoa(n) + " " + word
}
