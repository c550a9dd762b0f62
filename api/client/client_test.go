package client

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	moby "github.com/moby/moby/client"

	"github.com/shoalhq/shoal/lib/errs"
)

func env(m map[string]string) func(string) string { return func(k string) string { return m[k] } }

func TestResolveOrder(t *testing.T) {
	dir := t.TempDir()
	if err := SaveContext(dir, Context{Name: "far", Host: "ssh://me@far", Description: "d"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := SaveContext(dir, Context{Name: "near", Host: "tcp://near:1", SkipTLSVerify: true}, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"HttpHeaders":{"A":"b"},"auths":{"x":{}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := UseContext(dir, "near"); err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(filepath.Join(dir, "config.json"))
	if !strings.Contains(string(data), `"auths"`) {
		t.Errorf("using a context lost other settings: %s", data)
	}
	empty := t.TempDir()
	for _, c := range []struct {
		o    Options
		want string // host, or with "!" in front part of the error
	}{
		{Options{ConfigDir: empty}, DefaultHost},
		{Options{ConfigDir: dir}, "tcp://near:1"},
		{Options{ConfigDir: dir, Context: "default"}, DefaultHost},
		{Options{ConfigDir: dir, Context: "default", Getenv: env(map[string]string{"DOCKER_HOST": "/x.sock", "DOCKER_CONTEXT": "far"})}, "unix:///x.sock"},
		{Options{ConfigDir: dir, Context: "default", Getenv: env(map[string]string{"DOCKER_CONTEXT": "far"})}, DefaultHost},
		{Options{ConfigDir: dir, Getenv: env(map[string]string{"DOCKER_CONTEXT": "far"})}, "ssh://me@far"},
		{Options{ConfigDir: dir, Getenv: env(map[string]string{"DOCKER_CONTEXT": "far", "DOCKER_HOST": "/x.sock"})}, "unix:///x.sock"},
		{Options{ConfigDir: dir, Getenv: env(map[string]string{"DOCKER_HOST": "/x.sock", "SHOAL_HOST": "unix:///y.sock"})}, "unix:///y.sock"},
		{Options{ConfigDir: dir, Context: "far", Getenv: env(map[string]string{"DOCKER_HOST": "/x.sock"})}, "ssh://me@far"},
		{Options{ConfigDir: dir, Host: "somewhere"}, "tcp://somewhere:2375"},
		{Options{ConfigDir: dir, Host: "tcp://[::1]"}, "tcp://[::1]:2375"},
		{Options{ConfigDir: dir, Host: "a", Context: "b"}, "!twice"},
		{Options{ConfigDir: dir, Context: "b"}, `!no context "b"`},
		{Options{ConfigDir: dir, Host: "npipe://x"}, "!unknown scheme"},
		{Options{ConfigDir: dir, Host: "unix://x"}, "!must be absolute"},
	} {
		if c.o.Getenv == nil {
			c.o.Getenv = env(nil)
		}
		ep, err := Resolve(c.o)
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want %q", c.o, err, want)
			}
		} else if err != nil || ep.Host != c.want {
			t.Errorf("%+v: %q %v, want %q", c.o, ep.Host, err, c.want)
		}
	}
	list, err := ListContexts(dir)
	if err != nil || len(list) != 2 || list[0].Name != "far" || list[0].Description != "d" {
		t.Error(list, err)
	}
	if err := RemoveContext(dir, "far"); err != nil {
		t.Error(err)
	}
	if _, err := LoadContext(dir, "far"); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
	if SaveContext(dir, Context{Name: "../x"}, nil) == nil {
		t.Error("a context named ../x was saved")
	}
}

func TestSSHHostsAreChecked(t *testing.T) {
	for _, host := range []string{"ssh://", "ssh://-oProxyCommand=x", "ssh://-l@h", "ssh://u:secret@h", "ssh://h?x"} {
		_, err := New(context.Background(), Options{Host: host, ConfigDir: t.TempDir()})
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestExplainSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ host, want string }{
		{"unix://" + dir + "/none.sock", "there is no socket"},
		{"unix://" + dir + "/dead.sock", "nobody answers"},
		{"tcp://127.0.0.1:1", "check that the daemon there runs"},
	} {
		if strings.HasSuffix(c.host, "dead.sock") {
			l, err := net.Listen("unix", dir+"/dead.sock")
			if err != nil {
				t.Fatal(err)
			}
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			l.Close()
		}
		cl, err := New(context.Background(), Options{Host: c.host, ConfigDir: dir, APIVersion: "1.56", Getenv: env(nil)})
		if err != nil {
			t.Fatal(err)
		}
		_, err = cl.Info(context.Background(), moby.InfoOptions{})
		if got := cl.Explain(err); !IsConnection(err) || got == nil || !strings.Contains(got.Error(), c.want) || !strings.Contains(got.Error(), "--host") {
			t.Errorf("%s: %v", c.host, got)
		}
	}
}

// Additions of ours that are not there: the engine is Docker, or an older or scoped Shoal, and what it says of its pages helps nobody.
func TestAdditionsThatAreNotThere(t *testing.T) {
	for server, want := range map[string]string{"Docker/28.0.1 (linux)": "it is no Shoal", "Shoal/0.1.0 (linux)": "a scoped socket"} {
		path := filepath.Join(t.TempDir(), "sock")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Server", server)
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"message":"page not found: the API has no POST /shoal/explain"}`)
		})}
		go srv.Serve(l)
		defer srv.Close()
		cl, err := New(context.Background(), Options{Host: "unix://" + path, ConfigDir: t.TempDir(), APIVersion: "1.56", Getenv: env(nil)})
		if err != nil {
			t.Fatal(err)
		}
		if err := cl.Call(context.Background(), "POST", "/shoal/explain", nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", server, err)
		}
	}
}
