// Package types holds what the API's server, converter and client share: the API version, and the bodies of Shoal's own
// endpoints under /shoal/. The Docker Engine API's bodies are those of github.com/moby/moby/api/types. It must not hold
// behaviour beyond comparing versions.
package types

import (
	"strconv"
	"strings"
)

// Version is a version of the Docker Engine API: the number behind "1.".
type Version int

// The versions spoken. Max is the newest in the published API module.
const (
	MinVersion Version = 24
	MaxVersion Version = 56
)

// String is "1.N".
func (v Version) String() string { return "1." + strconv.Itoa(int(v)) }

// ParseVersion reads "1.44"; ok says whether it is a version number at all. Versions 0.x are below all others, 2.x and
// later above.
func ParseVersion(s string) (v Version, ok bool) {
	major, minor, has := strings.Cut(s, ".")
	maj, err := strconv.ParseUint(major, 10, 16)
	if err != nil {
		return 0, false
	}
	var low uint64
	if has {
		minor, _, _ = strings.Cut(minor, ".")
		if low, err = strconv.ParseUint(minor, 10, 16); err != nil {
			return 0, false
		}
	}
	switch {
	case maj == 0:
		return -1, true
	case maj > 1:
		return 1 << 16, true
	}
	return Version(low), true
}
