//go:build kernel

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/world"
)

// A daemon that has built rests as one that has not: in some window of five seconds no thread of it runs.
func TestBuilderRests(t *testing.T) {
	w := world.New(t)
	w.Must(w.Shoal("build", "-q", write(t, t.TempDir(), map[string]string{"Dockerfile": "FROM toolbox\nRUN true\n"})))
	var turns int
	for range 6 {
		before := turnsOf(t, w.DaemonPid())
		time.Sleep(5 * time.Second)
		if turns = turnsOf(t, w.DaemonPid()) - before; turns == 0 {
			return
		}
	}
	t.Errorf("threads of the daemon still run %d times in five seconds", turns)
}

// turnsOf is how often the threads of a process were given a processor (/proc/PID/task/TID/schedstat).
func turnsOf(t *testing.T, pid int) (sum int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, f := range files {
		data, err := os.ReadFile(f)
		var run, waited, turns int
		if _, scanErr := fmt.Sscan(strings.TrimSpace(string(data)), &run, &waited, &turns); err != nil || scanErr != nil {
			continue
		}
		sum += turns
	}
	return sum
}
