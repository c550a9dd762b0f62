package container

import (
	"testing"

	"github.com/shoalhq/shoal/runtime/spec"
)

// TestWarmConfig: an example with a mistake would warm nothing, and nobody would notice.
func TestWarmConfig(t *testing.T) {
	s, err := spec.Parse([]byte(warmConfig))
	if err == nil {
		err = spec.Validate(s)
	}
	if err != nil {
		t.Fatal(err)
	}
	if o, err := spec.Overlay(s); err != nil || o == nil {
		t.Errorf("overlay %v, %v", o, err)
	}
}
