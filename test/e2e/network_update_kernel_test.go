//go:build kernel

package e2e

import (
	"strings"
	"testing"
)

// Published ports of a running container change at once, stay changed, and are listed with who reaches them.
func TestPortsOfRunningContainer(t *testing.T) {
	w := newNetWorld(t)
	shoal := func(args ...string) string { t.Helper(); return w.Must(w.Shoal(args...)) }
	shoal("run", "-d", "--name", "web", "--hostname", "web", "-p", "8080:80", "whoami")
	shoal("run", "-d", "--name", "other", "-p", "8089:80", "whoami")
	w.reaches(t, "before", false, hostIP+":8080", "web", outsideIP)
	pid := shoal("inspect", "-f", "{{.State.Pid}}", "web")
	shoal("update", "--publish-rm", "8080:80", "--publish-add", "8081:80", "--publish-add", "published=8082,target=80,from=203.0.113.0/24", "web")
	w.silent(t, "taken back", false, hostIP+":8080")
	w.reaches(t, "added", false, hostIP+":8081", "web", outsideIP)
	w.silent(t, "not for this source", false, hostIP+":8082")
	w.reaches(t, "the host may always", true, "127.0.0.1:8082", "web")
	want(t, "same process", shoal("inspect", "-f", "{{.State.Pid}}", "web"), pid)
	list := shoal("ports", "web")
	wantIn(t, "ports", list, "0.0.0.0:8081", "everywhere", "kernel", "0.0.0.0:8082", "203.0.113.0/24")
	if strings.Contains(list, "8080") || strings.Contains(list, "other") {
		t.Errorf("ports: %s", list)
	}
	// A host port moves to another port of the container in one step; a conflict changes nothing.
	shoal("update", "--publish-rm", "8081:80", "--publish-add", "8081:81", "web")
	wantIn(t, "moved", shoal("port", "web"), "81/tcp -> 0.0.0.0:8081")
	if r := w.Shoal("update", "--publish-rm", "8081:81", "--publish-add", "8089:80", "web"); r.Code == 0 || !strings.Contains(r.Err, `"other"`) {
		t.Errorf("conflict: %d %s", r.Code, r.Err)
	}
	wantIn(t, "after the conflict", shoal("port", "web"), "81/tcp -> 0.0.0.0:8081")
	if r := w.Shoal("update", "--publish-rm", "7:7", "web"); r.Code == 0 || !strings.Contains(r.Err, "does not publish") {
		t.Errorf("not published: %d %s", r.Code, r.Err)
	}
	// The same when the container is made; a word that nobody knows is refused, not left out.
	shoal("run", "-d", "--name", "few", "--hostname", "few", "-p", "published=8086,target=80,from="+outsideIP, "-p", "published=8087,target=80,from=203.0.113.0/24", "-p", "host_ip=127.0.0.1,published=8088,target=80", "whoami")
	w.reaches(t, "for this source", false, hostIP+":8086", "few", outsideIP)
	w.silent(t, "not for this source", false, hostIP+":8087")
	w.silent(t, "the loopback only", false, hostIP+":8088")
	w.reaches(t, "the loopback", true, "127.0.0.1:8088", "few")
	for _, bad := range []string{"published=8085,target=80,form=192.0.2.0/24", "published=8085,target=80,from=nonsense", "published=8085,target=no,from=192.0.2.0/24"} {
		if r := w.Shoal("run", "-d", "--name", "bad", "-p", bad, "whoami"); r.Code != 125 {
			t.Errorf("%s: %d %s", bad, r.Code, r.Err)
		} else {
			t.Log(r.Err)
		}
	}
	if r := w.Shoal("inspect", "bad"); r.Code == 0 {
		t.Error("a container was made from a bad port")
	}
	shoal("rm", "-f", "few")
	shoal("update", "--publish-add", "8083:80", "web")
	w.KillDaemon()
	w.reaches(t, "without the daemon", false, hostIP+":8083", "web")
	w.StartDaemon()
	shoal("restart", "-t", "0", "web")
	w.reaches(t, "after a restart", false, hostIP+":8083", "web", outsideIP)
	w.silent(t, "limited after a restart", false, hostIP+":8082")
	shoal("stop", "-t", "0", "web")
	shoal("update", "--publish-rm", "8083:80", "--publish-add", "8084:80", "web")
	shoal("start", "web")
	w.reaches(t, "changed while stopped", false, hostIP+":8084", "web", outsideIP)
	w.silent(t, "taken back while stopped", false, hostIP+":8083")
}
