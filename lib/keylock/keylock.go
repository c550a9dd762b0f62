// Package keylock is a lock per name: operations on one object wait for each other, those on others do not. It must not
// be held while another name of the same set is asked for.
package keylock

import (
	"context"
	"sync"
)

// Set is a set of locks. The zero value is ready; names that nobody holds cost nothing.
type Set struct {
	mu   sync.Mutex
	held map[string]*lock
}

type lock struct {
	turn chan struct{} // has room for the one who holds the lock
	refs int           // who holds it and who waits
}

// Lock waits for the name and returns the function that frees it, to be called once.
func (s *Set) Lock(name string) (unlock func()) {
	unlock, _ = s.LockContext(context.Background(), name)
	return unlock
}

// LockContext is Lock for those who do not wait longer than their context; the error is the context's.
func (s *Set) LockContext(ctx context.Context, name string) (unlock func(), err error) {
	s.mu.Lock()
	if s.held == nil {
		s.held = map[string]*lock{}
	}
	l := s.held[name]
	if l == nil {
		l = &lock{turn: make(chan struct{}, 1)}
		s.held[name] = l
	}
	l.refs++
	s.mu.Unlock()
	select {
	case l.turn <- struct{}{}:
		return func() {
			<-l.turn
			s.leave(name, l)
		}, nil
	case <-ctx.Done():
		s.leave(name, l)
		return nil, ctx.Err()
	}
}

func (s *Set) leave(name string, l *lock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.refs--; l.refs == 0 {
		delete(s.held, name)
	}
}
