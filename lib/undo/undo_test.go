package undo

import (
	"slices"
	"testing"
)

func TestNewestFirstAndOnce(t *testing.T) {
	var got []int
	var s Stack
	for i := range 3 {
		s.Add(func() { got = append(got, i) })
	}
	s.Run()
	s.Run()
	if !slices.Equal(got, []int{2, 1, 0}) {
		t.Fatal(got)
	}
}

func TestReleaseKeeps(t *testing.T) {
	var s Stack
	s.Add(func() { t.Fatal("ran") })
	s.Release()
	s.Run()
}
