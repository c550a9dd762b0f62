//go:build kernel

package e2e

import (
	"strings"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// Links of the default bridge: names, variables, and the address that a linked container has after its restart.
func TestLinks(t *testing.T) {
	w := world.New(t)
	w.Must(w.Docker("run", "-d", "--name", "db1", "-e", "SECRET=word", "--expose", "443", "--expose", "80", "--expose", "80/udp", "toolbox", "sleep", "1000"))
	w.Must(w.Docker("run", "-d", "--name", "app", "--link", "db1:my-db", "-e", "MY_DB_ENV_SECRET=own", "toolbox", "sleep", "1000"))
	address := func(of string) string {
		return w.Must(w.Docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", of))
	}
	db := address("db1")
	got := w.Must(w.Docker("exec", "app", "env"))
	for _, v := range []string{"MY_DB_PORT=tcp://" + db + ":80", "MY_DB_PORT_80_TCP=tcp://" + db + ":80", "MY_DB_PORT_80_UDP_ADDR=" + db, "MY_DB_PORT_443_TCP_PORT=443",
		"MY_DB_PORT_443_TCP_PROTO=tcp", "MY_DB_NAME=/app/my-db", "MY_DB_ENV_SECRET=own"} {
		if !strings.Contains("\n"+got+"\n", "\n"+v+"\n") {
			t.Errorf("%s is not in the environment:\n%s", v, got)
		}
	}
	shown := w.Must(w.Docker("inspect", "-f", "{{index .HostConfig.Links 0}}", "app"))
	want(t, "inspect", shown, "/db1:/app/my-db")
	w.Must(w.Docker("run", "--rm", "--link", shown, "toolbox", "grep", "my-db", "/etc/hosts")) // what inspect shows is taken back
	w.Must(w.Docker("stop", "-t", "0", "db1"))
	wantIn(t, "start", w.Docker("restart", "-t", "0", "app").Err, "Cannot link to a non running container: /db1 AS /app/my-db")
	w.Must(w.Docker("start", "db1"))
	w.Must(w.Docker("start", "app"))
	w.Must(w.Docker("stop", "-t", "0", "db1"))
	w.Must(w.Docker("run", "-d", "--name", "other", "toolbox", "sleep", "1000")) // may take its address
	w.Must(w.Docker("start", "db1"))
	wantIn(t, "hosts", w.Must(w.Docker("exec", "app", "grep", "my-db", "/etc/hosts")), address("db1")+"\tmy-db")
	w.Must(w.Docker("rename", "db1", "db2"))
	w.Must(w.Docker("restart", "-t", "0", "app"))
	want(t, "inspect after the other's new name", w.Must(w.Docker("inspect", "-f", "{{index .HostConfig.Links 0}}", "app")), "/db2:/app/my-db")
	wantIn(t, "hosts after the other's new name", w.Must(w.Docker("exec", "app", "grep", "my-db", "/etc/hosts")), address("db2")+"\tmy-db")
	wantIn(t, "no such", w.Docker("run", "--rm", "--link", "nope:x", "toolbox", "true").Err, "nope")
}
