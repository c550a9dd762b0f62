//go:build kernel

package kernel

import (
	"testing"
	"time"
)

func TestRedirectNamesCost(t *testing.T) {
	k, err := Open("shoal-t", "t")
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	for range 5 {
		start := time.Now()
		ns, err := k.Namespace(nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Log("namespace", time.Since(start))
		start = time.Now()
		if err := redirectNames(ns, 5353, 5354); err != nil {
			t.Fatal(err)
		}
		t.Log("redirect", time.Since(start))
		ns.Close()
	}
}
