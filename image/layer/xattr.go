package layer

import (
	"strings"
	"time"
)

var (
	unixEpoch = time.Unix(0, 0).UTC()
	zeroTime  time.Time
)

// wanted says whether an extended attribute is part of a file as an image knows it.
func wanted(name string) bool {
	for _, private := range overlayXattrs {
		if strings.HasPrefix(name, private) {
			return false
		}
	}
	return strings.HasPrefix(name, "user.") || name == "security.capability" || strings.HasPrefix(name, "system.posix_acl_")
}

func splitNull(b []byte) []string {
	return strings.FieldsFunc(string(b), func(r rune) bool { return r == 0 })
}
