package node

import (
	"testing"

	"github.com/shoalhq/shoal/api/access"
)

// TestEveryRouteOfOursHasARule is the other half of the server's test of that name.
func TestEveryRouteOfOursHasARule(t *testing.T) {
	for pattern := range (&Node{}).routes() {
		if _, ok := access.RuleFor(pattern, "/"); !ok {
			t.Errorf("%s has no line in api/access/routes.go: say there what right it needs", pattern)
		}
	}
}
