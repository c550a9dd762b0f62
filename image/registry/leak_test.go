package registry_test

import (
	"testing"

	"go.uber.org/goleak"
)

// Whatever a registry does, no goroutine of an operation outlives it.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"))
}
