package model

import "testing"

// FuzzParsePort: what is read and written again is the same.
func FuzzParsePort(f *testing.F) {
	f.Add("80/tcp", "8000-8010")
	f.Add("53/udp", "")
	f.Fuzz(func(t *testing.T, port, ports string) {
		if p, err := ParsePort(port); err == nil {
			if q, err := ParsePort(p.String()); err != nil || q != p {
				t.Errorf("%q is %v, and then %v: %v", port, p, q, err)
			}
		}
		if first, last, err := ParsePortRange(ports); err == nil && last != 0 && last < first {
			t.Errorf("%q is %d to %d", ports, first, last)
		}
	})
}
