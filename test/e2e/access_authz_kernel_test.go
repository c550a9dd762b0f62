//go:build kernel

package e2e

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// TestAuthorizationPlugin speaks Docker's protocol with a plug-in that forbids privileged containers, hides answers about
// images, and then dies.
func TestAuthorizationPlugin(t *testing.T) {
	dir := t.TempDir()
	var bad atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("/Plugin.Activate", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"Implements":["authz"]}`)) })
	decide := func(f func(m map[string]any, body string) (bool, string)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			var m map[string]any
			var q struct{ RequestBody, ResponseBody []byte }
			d := json.NewDecoder(r.Body)
			var raw json.RawMessage
			d.Decode(&raw)
			json.Unmarshal(raw, &m)
			json.Unmarshal(raw, &q)
			if bad.Load() {
				w.Write([]byte("what?"))
				return
			}
			allow, msg := f(m, string(q.RequestBody))
			json.NewEncoder(w).Encode(map[string]any{"Allow": allow, "Msg": msg})
		}
	}
	mux.HandleFunc("/AuthZPlugin.AuthZReq", decide(func(_ map[string]any, body string) (bool, string) {
		return !strings.Contains(body, `"Privileged":true`), "no privileged containers"
	}))
	mux.HandleFunc("/AuthZPlugin.AuthZRes", decide(func(m map[string]any, _ string) (bool, string) {
		uri, _ := m["RequestUri"].(string)
		return !strings.Contains(uri, "/images/json"), "images are nobody's business"
	}))
	l, err := net.Listen("unix", filepath.Join(dir, "judge.sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: mux}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() }) // after the world, which asks it to the end
	w := world.New(t, "--plugin-dir", dir, "--authorization-plugin", "judge")
	if out := w.Must(w.Docker("run", "--rm", "toolbox", "echo", "fine")); out != "fine" {
		t.Error(out)
	}
	w.Must(w.Docker("run", "-d", "--name", "judged", "toolbox", "sh", "-c", "echo logged; sleep 1000"))
	if out := w.Must(w.Docker("exec", "judged", "echo", "inside")); out != "inside" {
		t.Error(out)
	}
	if out := w.Must(w.Docker("logs", "judged")); out != "logged" {
		t.Error(out)
	}
	if r := w.Docker("run", "--rm", "--privileged", "toolbox", "true"); r.Code == 0 || !strings.Contains(r.Err, "authorization denied by plugin judge: no privileged containers") {
		t.Errorf("%+v", r)
	}
	if r := w.Docker("images"); r.Code == 0 || !strings.Contains(r.Err, "nobody's business") || strings.Contains(r.Out, "toolbox") {
		t.Errorf("%+v", r)
	}
	// Plug-ins are taken out and put back while the daemon runs.
	config := filepath.Join(w.Dir, "authz.json")
	reload := func(text string) {
		os.WriteFile(config, []byte(text), 0o600)
		syscall.Kill(w.DaemonPid(), syscall.SIGHUP)
	}
	os.WriteFile(config, []byte(`{"authorization-plugins":["judge"]}`), 0o600)
	w.StopDaemon()
	w.Without("--authorization-plugin")
	w.Flag("--config-file", config)
	w.StartDaemon()
	if r := w.Docker("images"); r.Code == 0 {
		t.Errorf("%+v", r)
	}
	reload(`{}`)
	eventually(t, "nobody is asked", func() bool { return w.Docker("images").Code == 0 })
	reload(`{"authorization-plugins":["judge"]}`)
	eventually(t, "the plug-in is asked again", func() bool { return w.Docker("images").Code != 0 })
	bad.Store(true)
	if r := w.Docker("ps"); r.Code == 0 || !strings.Contains(r.Err, "nothing is permitted") {
		t.Errorf("an answer that is no JSON: %+v", r)
	}
	bad.Store(false)
	srv.Close()
	if r := w.Docker("ps"); r.Code == 0 || !strings.Contains(r.Err, "does not run") && !strings.Contains(r.Err, "not found") {
		t.Errorf("a dead plug-in: %+v", r)
	}
	if l, err = net.Listen("unix", filepath.Join(dir, "judge.sock")); err != nil { // it comes back
		t.Fatal(err)
	}
	srv = &http.Server{Handler: mux}
	go srv.Serve(l)
	w.Must(w.Docker("ps"))
}
