//go:build kernel

package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// A daemon in a privileged container runs containers, whether the container has a cgroup namespace or sees the host's paths
// of groups that it is shown a part of.
func TestDaemonInContainer(t *testing.T) {
	w := world.New(t)
	bin, err := filepath.Abs(filepath.Dir(world.Bin(t, "shoald")))
	if err != nil {
		t.Fatal(err)
	}
	inner := `export PATH=/sb:$PATH DOCKER_HOST=unix:///run/s.sock
		shoald --data-root /var/d --exec-root /run/e -H $DOCKER_HOST --shutdown-containers >/tmp/log 2>&1 &
		until shoal version >/dev/null 2>&1; do sleep 0.05; done
		shoal run -d --name web -p 8080:80 whoami >/dev/null
		shoal run --rm --network container:web toolbox sh -c '` + asks("http://127.0.0.1/") + `' >/dev/null && echo answered
		wget -qO- http://127.0.0.1:8080/ >/dev/null && echo published
		shoal run --rm --cgroupns host --network none toolbox ls /sys/fs/cgroup/ >/dev/null && echo host
		shoal run --rm --cgroupns private --network none toolbox true && echo private
		shoal run --rm -m 64m --pids-limit 100 --network none toolbox true && echo limited
		shoal rm -f web >/dev/null && echo removed; cat /tmp/log >&2`
	for _, ns := range []string{"host", "private"} {
		r := w.Docker("run", "--rm", "--privileged", "--cgroupns", ns, "-v", bin+":/sb:ro", "-v", "/var/d", "toolbox", "sh", "-c", inner)
		if got := strings.Fields(r.Out); strings.Join(got, " ") != "answered published host private limited removed" {
			t.Errorf("with cgroup namespace %s: %q\n%s", ns, got, r.Err)
		}
	}
}
