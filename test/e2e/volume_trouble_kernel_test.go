//go:build kernel

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/world"
)

// Servers that cannot be reached: the reason, at once, and a container that is not half-started.
func TestVolumeServerGone(t *testing.T) {
	w := world.New(t)
	for name, c := range map[string]struct{ kind, device, o, says string }{
		"refused": {"nfs", ":/x", "addr=127.0.0.1", "nothing listens at 127.0.0.1:2049"},
		"noway":   {"nfs4", ":/x", "addr=192.0.2.1", "no way to it"},
		"noname":  {"nfs", ":/x", "addr=nfs.invalid", "has no address"},
		"cifs":    {"cifs", "//127.0.0.1/share", "username=u,password=secret", "nothing listens at 127.0.0.1:445"},
		"udp":     {"nfs", ":/x", "addr=127.0.0.1,proto=udp", "nfs"}, // whatever this kernel says
	} {
		w.Must(w.Docker("volume", "create", "-o", "type="+c.kind, "-o", "device="+c.device, "-o", "o="+c.o, name))
		began := time.Now()
		r := w.Docker("run", "--name", "c-"+name, "-v", name+":/mnt/data", "toolbox", "true")
		if r.Code != 125 || !strings.Contains(r.Err, c.says) || strings.Contains(r.Err, "secret") {
			t.Errorf("%s: want %q: %+v", name, c.says, r)
		}
		if d := time.Since(began); d > time.Minute {
			t.Errorf("%s: after %v", name, d)
		}
		if s := w.Must(w.Docker("inspect", "-f", "{{.State.Status}} {{.State.Error}}", "c-"+name)); !strings.HasPrefix(s, "created ") || !strings.Contains(s, c.says) {
			t.Errorf("%s: half-started: %s", name, s)
		}
		w.Must(w.Docker("rm", "c-"+name))
		w.Must(w.Docker("volume", "rm", name))
	}
}
