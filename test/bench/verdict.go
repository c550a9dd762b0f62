package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// part is one condition of a target: "≤ 25 ms", "≥ 10× faster than docker", "≥ 0.97 of by hand", "≥ 30,000/s", "< 1".
var part = regexp.MustCompile(`^([≤≥<]) ([0-9.,]+)(?:×(?: faster than)? (.+)| of (.+))?`)

// reasons say why a target is missed where that is known; the key is how the figure's name begins.
var reasons = map[string]string{
	"`run --rm":                   "see where the time of a start goes, below; of it 3 ms are the start of the command line as a Go program with its libraries, 2 ms that of init",
	"OCI runtime":                 "see where the time of a start goes, below; of it 3.5 ms are two starts of a Go program (the runtime and init), 1.5 ms the cgroups of this machine's version 1, made and removed",
	"TCP, container to container": "one processor is taken by the two programs themselves; compare the ratio to the hand-made pair",
}

// verdict says whether the figure meets all conditions of its target, each with what it was measured against.
func verdict(f figure, others map[string]float64) string {
	checked := false
	for _, cond := range strings.Split(f.target, ", ") {
		m := part.FindStringSubmatch(cond)
		if m == nil {
			continue // words only
		}
		want, err := strconv.ParseFloat(strings.ReplaceAll(m[2], ",", ""), 64)
		if err != nil {
			continue
		}
		got := f.value
		if f.unit {
			got /= float64(time.Millisecond)
		}
		if name := m[3] + m[4]; name != "" {
			other, there := others[name]
			if !there || f.value == 0 {
				continue // nothing to compare with on this machine
			}
			got = f.value / other
			if m[3] != "" && f.unit {
				got = other / f.value // N times faster is a smaller duration
			}
		}
		checked = true
		if m[1] == "≥" && got < want || m[1] == "≤" && got > want || m[1] == "<" && got >= want {
			text := fmt.Sprintf("no: %.3g for %s", got, cond)
			for begin, why := range reasons {
				if strings.HasPrefix(f.what, begin) {
					text += "; " + why
				}
			}
			return text
		}
	}
	if !checked {
		return ""
	}
	return "yes"
}
