// Package keylock is a lock per name: operations on one object wait for each other, those on others do not. It must not
// be held while another name of the same set is asked for.
package keylock

import "sync"

// Set is a set of locks. The zero value is ready; names that nobody holds cost nothing.
type Set struct {
	mu   sync.Mutex
	held map[string]*lock
}

type lock struct {
	mu   sync.Mutex
	refs int
}

// Lock waits for the name and returns the function that frees it, to be called once.
func (s *Set) Lock(name string) (unlock func()) {
	s.mu.Lock()
	if s.held == nil {
		s.held = map[string]*lock{}
	}
	l := s.held[name]
	if l == nil {
		l = &lock{}
		s.held[name] = l
	}
	l.refs++
	s.mu.Unlock()
	l.mu.Lock()
	return func() {
		l.mu.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.refs--; l.refs == 0 {
			delete(s.held, name)
		}
	}
}
