//go:build kernel

package world

import (
	"testing"
	"time"
)

// Await asks f again and again until it says true. What it gives up after is for a machine that is busy with much else: only
// what never comes waits for so long.
func Await(f func() bool) bool {
	for until := time.Now().Add(time.Minute); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			return false
		}
	}
	return true
}

// Eventually fails the test when f does not become true.
func Eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	if !Await(f) {
		t.Fatalf("%s: not within a minute", what)
	}
}
