//go:build kernel

package e2e

import (
	"strings"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// What is made, removed and pruned is told, with the names that Docker gives it.
func TestEventsOfNetworksAndPrunes(t *testing.T) {
	w := world.New(t)
	for _, args := range []string{"network create one", "network create two", "network rm one", "network prune -f", "volume prune -f", "image prune -f"} {
		w.Must(w.Docker(strings.Fields(args)...))
	}
	out := w.Must(w.Docker("events", "--since", "1h", "--until", "-1s", "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"))
	for _, want := range []string{"network create one", "network create two", "network destroy one", "network destroy two", "network prune", "volume prune", "image prune"} {
		if strings.Count(out, want) != 1 {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
