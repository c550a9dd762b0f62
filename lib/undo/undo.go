// Package undo is the stack of steps that take back a half-done operation. Use:
//
//	var u undo.Stack
//	defer u.Run()
//	... u.Add(func() { ... }) after each step that must not stay behind
//	u.Release() when all is done
package undo

// Stack holds undo steps. The zero value is ready. It is for one goroutine.
type Stack struct{ steps []func() }

// Add puts a step on top.
func (s *Stack) Add(step func()) { s.steps = append(s.steps, step) }

// Run takes the steps back, newest first, each once.
func (s *Stack) Run() {
	for len(s.steps) > 0 {
		last := len(s.steps) - 1
		step := s.steps[last]
		s.steps = s.steps[:last]
		step()
	}
}

// Release forgets the steps: the operation stands.
func (s *Stack) Release() { s.steps = nil }
