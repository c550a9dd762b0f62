//go:build lean

package supervise

import (
	"math"
	_ "unsafe" // for go:linkname
)

// The Go runtime's monitor thread wakes every minute, half of forcegcperiod, to see whether a garbage collection is due,
// even when collection is off and every goroutine waits: with 100 idle containers that is more than one wake-up per second.
// The variable is not for outsiders, so this file needs -ldflags=-checklinkname=0 and has a build tag of its own; a build
// without it works the same and wakes once a minute.
//
//go:linkname forcegcperiod runtime.forcegcperiod
var forcegcperiod int64

func quiet() { forcegcperiod = math.MaxInt64 / 4 }
