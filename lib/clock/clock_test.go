package clock

import (
	"testing"
	"time"
)

func TestFakeAdvance(t *testing.T) {
	c := NewFake(time.Unix(0, 0))
	var got []int
	c.AfterFunc(2*time.Second, func() { got = append(got, 2) })
	c.AfterFunc(time.Second, func() {
		got = append(got, 1)
		c.AfterFunc(500*time.Millisecond, func() { got = append(got, 15) })
	})
	stop := c.AfterFunc(time.Second, func() { got = append(got, 99) })
	if !stop() || stop() {
		t.Fatal("stop")
	}
	c.Advance(3 * time.Second)
	if len(got) != 3 || got[0] != 1 || got[1] != 15 || got[2] != 2 || c.Pending() != 0 {
		t.Fatal(got)
	}
}
