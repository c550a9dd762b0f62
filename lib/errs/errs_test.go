package errs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
)

func TestKindSurvivesWrapping(t *testing.T) {
	err := Wrap(fmt.Errorf("outer: %w", New(Conflict, "name %q is taken", "web")), "create container")
	if got := KindOf(err); got != Conflict {
		t.Fatalf("kind = %v, want conflict", got)
	}
	if want := `create container: outer: name "web" is taken`; err.Error() != want {
		t.Fatalf("message = %q, want %q", err, want)
	}
}

func TestOutermostKindWins(t *testing.T) {
	if got := KindOf(As(Invalid, New(NotFound, "x"))); got != Invalid {
		t.Fatalf("kind = %v", got)
	}
}

func TestKindOfUnclassified(t *testing.T) {
	_, notThere := os.Open("/does/not/exist")
	for err, want := range map[error]Kind{
		notThere:                            NotFound,
		context.Canceled:                    Canceled,
		context.DeadlineExceeded:            Deadline,
		fmt.Errorf("w: %w", syscall.ENOSPC): Exhausted,
		errors.New("?"):                     Internal,
	} {
		if got := KindOf(err); got != want {
			t.Errorf("KindOf(%v) = %v, want %v", err, got, want)
		}
	}
}

func TestNilStaysNil(t *testing.T) {
	if Wrap(nil, "op") != nil || As(Invalid, nil) != nil || Is(nil, Internal) {
		t.Fatal("nil became an error")
	}
}

func TestHTTPStatus(t *testing.T) {
	for kind, want := range map[Kind]int{Invalid: 400, NotFound: 404, Conflict: 409, NotModified: 304, Internal: 500,
		Forbidden: 403, Unauthorized: 401, Unavailable: 503, Unsupported: 501, Exhausted: 500, Damaged: 500} {
		if got := HTTPStatus(New(kind, "x")); got != want {
			t.Errorf("%v: status %d, want %d", kind, got, want)
		}
	}
}
