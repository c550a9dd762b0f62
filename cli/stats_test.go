package cli

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestStatsEndWithTheEngine: a table that is shown for ever would otherwise keep the last figures of a daemon that is gone.
func TestStatsEndWithTheEngine(t *testing.T) {
	r := newRecorder(t, func(w http.ResponseWriter, _ *http.Request, path string) bool {
		switch path {
		case "/containers/json":
			fmt.Fprint(w, "[]")
		case "/events":
			w.WriteHeader(http.StatusOK) // and the connection ends
		default:
			return false
		}
		return true
	})
	t.Setenv("SHOAL_HOST", r.host)
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	var out, said bytes.Buffer
	if code := Main([]string{"stats"}, Streams{In: strings.NewReader(""), Out: &out, Err: &said}); code != 1 || !strings.Contains(said.String(), "the connection to the engine at "+r.host+" was lost") {
		t.Errorf("exit code %d, %q", code, said.String())
	}
}
