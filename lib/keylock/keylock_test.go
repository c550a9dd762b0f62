package keylock

import (
	"context"
	"sync"
	"testing"
)

func TestOneAtATimePerName(t *testing.T) {
	var s Set
	count := map[string]*int{"a": new(int), "b": new(int)}
	var all sync.WaitGroup
	for i := range 100 {
		name := "ab"[i%2 : i%2+1]
		all.Go(func() {
			defer s.Lock(name)()
			*count[name]++ // the race detector would tell
		})
	}
	all.Wait()
	if *count["a"] != 50 || *count["b"] != 50 || len(s.held) != 0 {
		t.Fatal(*count["a"], *count["b"], len(s.held))
	}
	free := s.Lock("a")
	s.Lock("b")() // another name does not wait
	free()
}

func TestGivesUpWaiting(t *testing.T) {
	var s Set
	free := s.Lock("a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.LockContext(ctx, "a"); err == nil {
		t.Fatal("two hold the lock")
	}
	free()
	free, err := s.LockContext(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	free()
	if len(s.held) != 0 {
		t.Fatal("a lock that nobody holds is kept")
	}
}
