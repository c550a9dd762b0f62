// Package ids makes and recognises the 64-digit hexadecimal identifiers of containers, execs and networks.
package ids

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
)

// Len is the number of characters of an identifier.
const Len = 64

// New gives a fresh identifier. One that is all digits is avoided: tools would take its short form for a number.
func New() string {
	for {
		var b [Len / 2]byte
		rand.Read(b[:]) // never fails since Go 1.24
		id := hex.EncodeToString(b[:])
		if strings.Trim(id[:12], "0123456789") != "" {
			return id
		}
	}
}

// Short is the form that people see: the first twelve characters, without an algorithm in front.
func Short(id string) string {
	if i := strings.IndexByte(id, ':'); i >= 0 {
		id = id[i+1:]
	}
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

// Valid says whether s is a whole identifier.
func Valid(s string) bool {
	return len(s) == Len && strings.Trim(s, "0123456789abcdef") == ""
}
