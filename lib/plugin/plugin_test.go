package plugin

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
)

// serve runs a plug-in at a socket until the test ends.
func serve(t *testing.T, path string, h http.Handler) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
}

func handler(implements string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /Plugin.Activate", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"Implements":[%q]}`, implements)
	})
	mux.HandleFunc("POST /D.Echo", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	mux.HandleFunc("POST /D.Err", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"Err":"no space left"}`) })
	mux.HandleFunc("POST /D.Status", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(500)
		fmt.Fprint(w, `{"Err":"broken"}`)
	})
	mux.HandleFunc("POST /D.Plain", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "plain words", 500) })
	mux.HandleFunc("POST /D.Text", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	mux.HandleFunc("POST /D.Away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/D.Echo", 307) })
	mux.HandleFunc("POST /D.Hang", func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // the server sees the client go only when the body is read
		<-r.Context().Done()
	})
	mux.HandleFunc("POST /D.Die", func(w http.ResponseWriter, _ *http.Request) {
		c, _, _ := w.(http.Hijacker).Hijack()
		c.Close()
	})
	mux.HandleFunc("POST /D.Long", func(w http.ResponseWriter, r *http.Request) {
		for b := make([]byte, 1<<20); r.Context().Err() == nil; {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	})
	return mux
}

func TestCalls(t *testing.T) {
	dir := t.TempDir()
	serve(t, filepath.Join(dir, "one.sock"), handler("D"))
	get := func(c Config) *Plugin {
		c.Dirs = []string{dir}
		pl, err := New(c).Get(t.Context(), "one", "D")
		if err != nil {
			t.Fatal(err)
		}
		return pl
	}
	pl, hasty := get(Config{}), get(Config{Call: 300 * time.Millisecond}) // for what does not come at all
	var out struct{ A string }
	if err := pl.Call(t.Context(), "D.Echo", map[string]string{"A": "b"}, &out); err != nil || out.A != "b" {
		t.Fatal(out, err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		method string
		ctx    context.Context
		kind   errs.Kind
		want   string
	}{
		{"D.Err", t.Context(), errs.Internal, "plug-in one: D.Err: no space left"},
		{"D.Status", t.Context(), errs.Internal, "plug-in one: D.Status: broken"},
		{"D.Plain", t.Context(), errs.Internal, "HTTP status 500: plain words"},
		{"D.None", t.Context(), errs.Internal, "HTTP status 404"},
		{"D.Away", t.Context(), errs.Internal, "HTTP status 307"},
		{"D.Text", t.Context(), errs.Unavailable, "not the JSON"},
		{"D.Hang", t.Context(), errs.Unavailable, "has not answered D.Hang within 3"},
		{"D.Hang", canceled, errs.Canceled, "canceled"},
		{"D.Die", t.Context(), errs.Unavailable, "D.Die: "},
		{"D.Long", t.Context(), errs.Unavailable, "D.Long"},
	} {
		who := pl
		if c.method == "D.Hang" {
			who = hasty
		}
		err := who.Call(c.ctx, c.method, struct{}{}, &out)
		if !errs.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v (%v), want %q (%v)", c.method, err, errs.KindOf(err), c.want, c.kind)
		}
		if Unimplemented(err) != (c.method == "D.None") {
			t.Errorf("%s: unimplemented %v", c.method, Unimplemented(err))
		}
		if r := new(Refusal); c.kind == errs.Internal && !errors.As(err, &r) {
			t.Errorf("%s: %T is no refusal", c.method, err)
		}
	}
}

func TestGet(t *testing.T) {
	dir := t.TempDir()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Join(dir, "deep"), 0o755))
	serve(t, filepath.Join(dir, "deep", "deep.sock"), handler("D"))
	tcp := httptest.NewServer(handler("D"))
	defer tcp.Close()
	must(os.WriteFile(filepath.Join(dir, "spec.spec"), []byte("tcp://"+tcp.Listener.Addr().String()+"\n"), 0o644))
	secure := httptest.NewTLSServer(handler("D"))
	defer secure.Close()
	secure.Config.ErrorLog = nil
	ca := filepath.Join(dir, "ca.pem")
	must(os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o644))
	js, _ := json.Marshal(map[string]any{"Name": "tls", "Addr": "https://" + secure.Listener.Addr().String(), "TLSConfig": map[string]any{"CAFile": ca}})
	must(os.WriteFile(filepath.Join(dir, "tls.json"), js, 0o644))
	must(os.WriteFile(filepath.Join(dir, "bad.json"), []byte("{"), 0o644))
	must(os.WriteFile(filepath.Join(dir, "odd.spec"), []byte("ftp://x"), 0o644))
	dead, err := net.Listen("unix", filepath.Join(dir, "dead.sock"))
	must(err)
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	mute, err := net.Listen("unix", filepath.Join(dir, "mute.sock"))
	must(err)
	defer mute.Close()

	p, hasty := New(Config{Dirs: []string{dir}}), New(Config{Dirs: []string{dir}, Activate: 200 * time.Millisecond})
	if got := strings.Join(p.Names(), " "); got != "bad dead deep mute odd spec tls" {
		t.Errorf("names: %s", got)
	}
	for _, c := range []struct {
		name, kind string
		fail       errs.Kind
		want       string
	}{
		{"deep", "D", 0, ""},
		{"spec", "D", 0, ""},
		{"tls", "D", 0, ""},
		{"deep", "Other", errs.Invalid, "plug-in deep is no Other; it says it implements D"},
		{"none", "D", errs.NotFound, `plugin "none" not found: there is no none.sock, none.spec or none.json in ` + dir},
		{"../deep", "D", errs.NotFound, `plugin "../deep" not found`},
		{"", "D", errs.NotFound, "not found"},
		{"dead", "D", errs.Unavailable, "plug-in dead does not run: nobody listens at "},
		{"mute", "D", errs.Unavailable, "has not answered Plugin.Activate within 2"},
		{"bad", "D", errs.Damaged, "bad.json: not JSON"},
		{"odd", "D", errs.Invalid, `address "ftp://x"`},
	} {
		who := p
		if c.name == "mute" {
			who = hasty
		}
		_, err := who.Get(t.Context(), c.name, c.kind)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		} else if !errs.Is(err, c.fail) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v (%v), want %q (%v)", c.name, err, errs.KindOf(err), c.want, c.fail)
		}
	}
	// One that comes up later is found.
	must(os.Remove(filepath.Join(dir, "dead.sock")))
	serve(t, filepath.Join(dir, "dead.sock"), handler("D"))
	if _, err := p.Get(t.Context(), "dead", "D"); err != nil {
		t.Error(err)
	}
}
