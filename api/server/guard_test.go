package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalhq/shoal/api/access"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/observe/audit"
)

// TestEveryRouteHasARule: a route without one is closed to scoped sockets and unknown to the audit log, and whoever adds it
// shall decide that.
func TestEveryRouteHasARule(t *testing.T) {
	f := newFake()
	srv := New(Config{Backends: f.backends()})
	for _, p := range srv.patterns {
		parts := map[string][]string{"GET /images/{rest...}": {"json", "history", "get"}, "POST /images/{rest...}": {"tag", "push"},
			"GET /distribution/{rest...}": {"json"}}[p]
		if strings.HasSuffix(p, "{rest...}") && parts == nil {
			t.Errorf("%s: name here what it is told apart by", p)
		}
		if parts == nil {
			parts = []string{""}
		}
		for _, part := range parts {
			if _, ok := access.RuleFor(p, "/x/"+part); !ok {
				t.Errorf("%s %s has no line in api/access/routes.go: say there what right it needs", p, part)
			}
		}
	}
}

func guardedServer(t *testing.T, f *fake, g Guard) string {
	t.Helper()
	b := f.backends()
	if g.Scope != nil {
		b = Narrow(b, g.Scope)
	}
	srv := New(Config{Version: "0.0-test", Backends: b, Guard: g})
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		srv.Shutdown(ctx)
	})
	return path
}

func (f *fake) add(t *testing.T, name string, labels map[string]string) string {
	var r model.CreateRequest
	r.Name, r.Image, r.Spec.Labels = name, "busybox", labels
	r.Spec.Process.Env = []string{"PASSWORD=hunter2"}
	res, err := f.Create(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return res.ID
}

func TestScopedSocket(t *testing.T) {
	f := newFake()
	web := f.add(t, "web", map[string]string{"team": "web"})
	db := f.add(t, "db", map[string]string{"team": "db"})
	sock := guardedServer(t, f, Guard{Scope: &access.Scope{Name: "s", Verbs: []access.Verb{access.List, access.Inspect, access.Logs, access.Stop}, Labels: []string{"team=web"}}})
	for _, c := range []struct {
		method, path string
		status       int
		want, never  string
	}{
		{"GET", "/_ping", 200, "OK", ""},
		{"GET", "/v1.44/version", 200, "ApiVersion", ""},
		{"GET", "/containers/json?all=1", 200, web, db},
		{"GET", "/containers/web/json", 200, web, "hunter2"},
		{"GET", "/containers/db/json", 404, "shows only what has the label team=web", "hunter2"},
		{"GET", "/containers/" + db[:5] + "/json", 404, "No such container", "hunter2"},
		{"GET", "/containers/json?all=1&filters={\"before\":[\"db\"]}", 404, "No such container", ""},
		{"GET", "/containers/db/logs?stdout=1", 404, "", ""},
		{"POST", "/containers/db/stop", 404, "", ""},
		{"POST", "/containers/web/start", 403, `needs the verb \"start\"`, ""},
		{"POST", "/containers/create", 403, "needs the full API", ""},
		{"POST", "/containers/web/exec", 403, "needs the full API", ""},
		{"GET", "/containers/web/archive?path=/", 403, "", ""},
		{"GET", "/info", 403, "", ""},
		{"GET", "/events", 403, "", ""},
		{"GET", "/containers/web/top", 403, "", ""},
		{"GET", "/images/x/history", 403, "", ""},
		{"POST", "/containers/web/attach", 403, "", ""},
		{"GET", "/shoal/sockets", 404, "page not found", ""},
		{"GET", "/v1.44/../info", 400, "is a name or ID missing", ""},
	} {
		status, body, _ := do(t, sock, c.method, c.path, "application/json", "")
		if status != c.status || !strings.Contains(body, c.want) || c.never != "" && strings.Contains(body, c.never) {
			t.Errorf("%s %s: %d %s", c.method, c.path, status, body)
		}
	}
}

// Ways out of a scoped socket that were tried on other engines' proxies: none may be answered with success, nor tell of what is hidden.
func TestNoWayOutOfAScopedSocket(t *testing.T) {
	f := newFake()
	f.add(t, "web", map[string]string{"team": "web"})
	db := f.add(t, "db", map[string]string{"team": "db"})
	all := access.Scope{Name: "s", Labels: []string{"team=web"}, Verbs: []access.Verb{access.List, access.Inspect, access.Logs, access.Events, access.Stats, access.Top, access.Wait,
		access.Start, access.Stop, access.Restart, access.Kill, access.Pause, access.Unpause, access.Remove}}
	sock := guardedServer(t, f, Guard{Scope: &all})
	for _, line := range []string{
		"POST /containers/web/exec", "POST /v1.41/containers/web/exec", "POST //containers/web/exec", "POST /v1.41//containers/web/exec", "POST /v1.41/./containers/web/exec",
		"POST /containers/web/json/../exec", "POST /containers/web%2fexec", "POST /containers/web/%65xec", "POST /containers/db%2f..%2fweb/exec", "POST /v1.24/v1.41/containers/web/exec",
		"GET /containers/web/../db/json", "GET /containers/web%2f..%2fdb/json", "GET /containers/%2e%2e/containers/db/json", "GET /containers/" + db + "/json", "GET /containers/" + db[:3] + "/json",
		"GET /containers/%64b/json", "GET /containers/db%00/json", "GET /containers/db/logs?stdout=1", "GET /containers/db/stats?stream=0", "GET /containers/db/top",
		"POST /containers/db/wait", "POST /containers/db/kill", "DELETE /containers/db?force=1", "POST /containers/web/../db/kill",
		"GET /containers/json?filters=%7B%22since%22%3A%5B%22db%22%5D%7D", "POST /containers/web/attach?stream=1", "GET /containers/web/attach/ws?stream=1", "POST /containers/web/resize?h=1&w=1",
		"GET /containers/web/archive?path=/", "HEAD /containers/web/archive?path=/", "PUT /containers/web/archive?path=/", "GET /containers/web/export", "GET /containers/web/changes",
		"POST /containers/web/update", "POST /containers/web/rename?name=x", "POST /containers/create", "POST /containers/prune", "POST /images/prune", "POST /volumes/prune", "POST /networks/prune",
		"POST /build", "POST /build/prune", "POST /session", "POST /grpc", "POST /commit?container=web", "POST /images/create?fromImage=x", "POST /images/load", "GET /images/get?names=x",
		"GET /images/x/get", "POST /images/x/push", "POST /images/x/tag?repo=y", "DELETE /images/x", "GET /images/x/history", "GET /distribution/x/json", "GET /info", "GET /system/df", "POST /auth",
		"GET /exec/x/json", "POST /exec/x/start", "POST /exec/x/resize", "POST /networks/create", "POST /networks/x/connect", "DELETE /networks/x", "POST /volumes/create", "DELETE /volumes/x", "PUT /volumes/x",
		"GET /plugins", "POST /plugins/pull", "POST /plugins/x/enable", "GET /swarm", "POST /swarm/init", "GET /nodes", "GET /services", "GET /secrets", "GET /configs", "GET /tasks",
		"GET /shoal/sockets", "POST /shoal/sockets", "GET /shoal/audit", "POST /shoal/explain", "GET /shoal/doctor", "GET /debug/pprof/", "OPTIONS /containers/json", "CONNECT /containers/json", "TRACE /containers/json",
	} {
		method, path, _ := strings.Cut(line, " ")
		status, body, _ := do(t, sock, method, path, "application/json", `{"Cmd":["id"],"Image":"x","Name":"e","Verbs":["list"]}`)
		if status < 300 || strings.Contains(body, "hunter2") || strings.Contains(body, db) && !strings.Contains(path, db) {
			t.Errorf("%s: %d %s", line, status, body)
		}
	}
}

func TestScopedEvents(t *testing.T) {
	f := newFake()
	sock := guardedServer(t, f, Guard{Scope: &access.Scope{Name: "s", Verbs: []access.Verb{access.Events}, Labels: []string{"team=web"}}})
	f.event("container", "start", "1", map[string]string{"team": "db", "name": "a"})
	f.event("container", "exec_start: mysql -psecret", "2", map[string]string{"team": "web", "name": "b"})
	f.event("network", "create", "3", map[string]string{"team": "web"})
	until := time.Now()
	status, body, _ := do(t, sock, "GET", "/events?since=1&until="+strconv.FormatInt(until.Unix(), 10)+"."+fmt.Sprintf("%09d", until.Nanosecond()), "", "")
	if status != 200 || strings.Contains(body, "secret") || strings.Contains(body, `"db"`) || strings.Contains(body, "network") || !strings.Contains(body, `"exec_start"`) {
		t.Error(status, body)
	}
}

// records collects what a server tells.
type records struct {
	mu   sync.Mutex
	list []audit.Record
}

func (r *records) add(rec audit.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, rec)
}

func (r *records) take() []audit.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.list
	r.list = nil
	return out
}

func TestAudit(t *testing.T) {
	f := newFake()
	var got records
	sock := guardedServer(t, f, Guard{Audit: got.add})
	do(t, sock, "GET", "/containers/json", "", "")
	if l := got.take(); len(l) != 0 {
		t.Error("looks are told:", l)
	}
	do(t, sock, "POST", "/v1.44/containers/create?name=a&secret=x", "application/json", `{"Image":"busybox","Env":["A=hunter2"],"HostConfig":{"Privileged":true,"Binds":["/:/h"]}}`)
	l := got.take()
	if len(l) != 1 || l[0].Status != 201 || l[0].Path != "/containers/create" || l[0].Query != "name=a" || l[0].Detail["privileged"] != true {
		t.Fatalf("%+v", l)
	}
	if w := l[0].Who; w.UID == nil || int(*w.UID) != os.Getuid() || int(w.PID) != os.Getpid() {
		t.Errorf("%+v", w)
	}
	do(t, sock, "DELETE", "/containers/none", "", "")
	if l := got.take(); len(l) != 1 || l[0].Status != 404 || l[0].Object != "none" || !strings.Contains(l[0].Error, "No such container") {
		t.Errorf("%+v", l)
	}
	sock = guardedServer(t, f, Guard{Audit: got.add, Scope: &access.Scope{Name: "s", Verbs: []access.Verb{access.List}}})
	do(t, sock, "GET", "/info", "", "")
	if l := got.take(); len(l) != 1 || l[0].Status != 403 || l[0].Who.Socket != "s" {
		t.Errorf("%+v", l)
	}
}

// judge is an authorizer.
type judge struct {
	mu       sync.Mutex
	request  func(*AuthRequest) error
	response func(*AuthRequest, *AuthAnswer) error
	bodies   []string
	answers  []string
}

func (j *judge) Request(_ context.Context, q *AuthRequest) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.bodies = append(j.bodies, q.Method+" "+q.URI+" "+string(q.Body))
	if j.request != nil {
		return j.request(q)
	}
	return nil
}

func (j *judge) Response(_ context.Context, q *AuthRequest, a *AuthAnswer) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.answers = append(j.answers, http.StatusText(a.Status)+" "+string(a.Body))
	if j.response != nil {
		return j.response(q, a)
	}
	return nil
}

func TestAuthorizer(t *testing.T) {
	f := newFake()
	j := &judge{}
	sock := guardedServer(t, f, Guard{Authorizer: func() Authorizer { return j }})
	status, _, _ := do(t, sock, "POST", "/containers/create?name=a", "text/plain", `{"Image":"busybox"}`)
	if status != 201 && status != 400 || !strings.Contains(j.bodies[0], `{"Image":"busybox"}`) {
		t.Fatal(status, j.bodies)
	}
	status, _, _ = do(t, sock, "POST", "/containers/create?name=b", "application/json", `{"Image":"busybox"}`)
	if status != 201 || !strings.Contains(j.answers[len(j.answers)-1], `"Id"`) {
		t.Fatal(status, j.answers)
	}
	// A body that is too large to be looked at never reaches the handler.
	big := `{"Image":"busybox"}` + strings.Repeat(" ", maxBody)
	if status, body, _ := do(t, sock, "POST", "/containers/create?name=c", "application/json", big); status != 413 {
		t.Error(status, body)
	}
	j.request = func(q *AuthRequest) error {
		if q.Method != "GET" {
			return errs.New(errs.Forbidden, "authorization denied by plugin p: no changes today")
		}
		return nil
	}
	if status, body, _ := do(t, sock, "DELETE", "/containers/b", "", ""); status != 403 || !strings.Contains(body, "no changes today") {
		t.Error(status, body)
	}
	// An answer that was refused does not leak, nor does the beginning of a stream.
	j.response = func(*AuthRequest, *AuthAnswer) error { return errs.New(errs.Forbidden, "secret answer") }
	for _, path := range []string{"/containers/json?all=1", "/events?since=1"} {
		status, body, _ := do(t, sock, "GET", path, "", "")
		if status != 403 || !strings.Contains(body, "secret answer") || strings.Contains(body, "busybox") {
			t.Error(path, status, body)
		}
	}
}
