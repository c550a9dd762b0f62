package cputime

import (
	"testing"
	"time"
)

func TestWorkCountsAndWaitingDoesNot(t *testing.T) {
	n := 0
	work := Of(func() {
		for began := Used(); Used()-began < 20*time.Millisecond; n++ {
		}
	})
	timer := time.NewTimer(20 * time.Millisecond)
	wait := Of(func() { <-timer.C })
	if n == 0 || work < 20*time.Millisecond || wait > work/2 {
		t.Errorf("work %v, wait %v", work, wait)
	}
}
