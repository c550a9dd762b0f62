// Package errs is the one closed set of error kinds. Every room returns errors of these kinds, wrapped with the
// operation that failed; HTTP statuses and exit codes are derived here and nowhere else. It must not know any noun
// of the domain, and it never shortens a message.
package errs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// Kind says what sort of trouble an error is, as far as a caller can act on it.
type Kind int

// The kinds. Internal is what an error is that nobody classified.
const (
	Internal     Kind = iota // a defect or an unexpected answer of the kernel
	Invalid                  // the request can never work as it stands
	NotFound                 // the thing named is not there
	Conflict                 // the thing's present state, or another thing, is in the way
	NotModified              // the thing already is as asked
	Forbidden                // policy or permission says no
	Unauthorized             // who are you?
	Unavailable              // not now: something needed is down or not there yet
	Unsupported              // this host, kernel or version cannot do it
	Exhausted                // disk, memory, addresses, or another bounded thing ran out
	Damaged                  // content or a record on disk is not what it should be
	Canceled                 // the caller went away
	Deadline                 // it took longer than allowed
)

var names = [...]string{"internal", "invalid", "not found", "conflict", "not modified", "forbidden", "unauthorized",
	"unavailable", "unsupported", "exhausted", "damaged", "canceled", "deadline"}

func (k Kind) String() string {
	if int(k) < 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind(%d)", int(k))
	}
	return names[k]
}

type kinded struct {
	kind Kind
	err  error
}

func (e *kinded) Error() string { return e.err.Error() }
func (e *kinded) Unwrap() error { return e.err }

// New makes an error of the kind. The format may use %w; a message names what was asked, what was found and what to do.
func New(kind Kind, format string, args ...any) error {
	return &kinded{kind, fmt.Errorf(format, args...)}
}

// As gives err the kind, whatever it was before; nil stays nil.
func As(kind Kind, err error) error {
	if err == nil {
		return nil
	}
	return &kinded{kind, err}
}

// Wrap puts the operation in front of err and keeps its kind; nil stays nil.
func Wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}

// KindOf finds the outermost kind in err's chain. Errors nobody classified are judged by what the standard library
// and the kernel say of them. KindOf(nil) is Internal; ask only of errors.
func KindOf(err error) Kind {
	var k *kinded
	if errors.As(err, &k) {
		return k.kind
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return Deadline
	case errors.Is(err, fs.ErrNotExist):
		return NotFound
	case errors.Is(err, fs.ErrPermission):
		return Forbidden
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return Exhausted
	case errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EOPNOTSUPP):
		return Unsupported
	}
	return Internal
}

// Is says whether err is of the kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }

// HTTPStatus maps err's kind to the status code that the Docker Engine API documents for it. (Plain numbers:
// net/http would bring TLS into the container runtime, which must start in a millisecond.)
func HTTPStatus(err error) int {
	switch KindOf(err) {
	case Invalid:
		return 400
	case NotFound:
		return 404
	case Conflict:
		return 409
	case NotModified:
		return 304
	case Forbidden:
		return 403
	case Unauthorized:
		return 401
	case Unavailable:
		return 503
	case Unsupported:
		return 501
	}
	return 500
}

// Exit codes of the command line, as Docker's users know them.
const (
	ExitFailure        = 1   // the command failed
	ExitEngine         = 125 // the engine refused or failed before the container's program ran
	ExitNotExecutable  = 126 // the container's program cannot be invoked
	ExitNotFound       = 127 // the container's program is not there
	ExitSignalOffset   = 128 // plus the signal's number
	ExitUnknownRestart = 255 // the exit code was lost, for example by a restart of the machine
)
