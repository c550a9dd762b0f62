//go:build kernel

package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/shoalhq/shoal/test/world"
)

// A container is spoken with over a websocket: what is typed arrives, what is printed comes back.
func TestAttachByWebsocket(t *testing.T) {
	w := world.New(t)
	w.Must(w.Docker("run", "-d", "-i", "--name", "talk", "--network", "none", "toolbox", "sh", "-c", "while read line; do echo got $line; done"))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://x/containers/talk/attach/ws?stream=1&stdin=1&stdout=1", &websocket.DialOptions{HTTPClient: w.Client()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if err := conn.Write(ctx, websocket.MessageBinary, []byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	var got string
	for !strings.HasSuffix(got, "\n") {
		_, data, err := conn.Read(ctx)
		if err != nil {
			t.Fatal(err, got)
		}
		got += string(data)
	}
	want(t, "answer", got, "got hello\n")
	conn.Close(websocket.StatusNormalClosure, "")
	want(t, "after the client left", w.Must(w.Docker("inspect", "-f", "{{.State.Running}}", "talk")), "true")
}

// The conditions of wait, asked for before and after what they wait for.
func TestWaitConditions(t *testing.T) {
	w := world.New(t)
	wait := func(name, condition string) <-chan string {
		resp, err := w.Client().Post("http://shoal/containers/"+name+"/wait?condition="+condition, "", nil)
		if err != nil { // the header comes once the wait is registered
			t.Fatal(err)
		}
		out := make(chan string, 1)
		go func() {
			defer resp.Body.Close()
			var a struct{ StatusCode int }
			if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
				out <- err.Error()
				return
			}
			out <- fmt.Sprint(a.StatusCode)
		}()
		return out
	}
	ends := func(what string, c <-chan string, code string) {
		t.Helper()
		select {
		case got := <-c:
			want(t, what, got, code)
		case <-time.After(20 * time.Second):
			t.Errorf("%s: the wait does not end", what)
		}
	}
	w.Must(w.Docker("create", "--name", "once", "--network", "none", "toolbox", "sh", "-c", "exit 4"))
	ends("not-running of one that never ran", wait("once", "not-running"), "0")
	next := wait("once", "next-exit")
	gone := wait("once", "removed")
	w.Must(w.Docker("start", "once"))
	ends("next-exit", next, "4")
	ends("not-running", wait("once", ""), "4")
	w.Must(w.Docker("rm", "once"))
	ends("removed", gone, "4")
	if r := w.API("POST", "/containers/once/wait", nil); r.Code != 404 {
		t.Errorf("wait for what is gone: %d %s", r.Code, r.Body)
	}
}

// HEAD, GET and PUT of archives: links, volumes, read-only roots, owners, and what may not replace what.
func TestArchives(t *testing.T) {
	w := world.New(t)
	w.Must(w.Docker("run", "-d", "--name", "box", "--network", "none", "-u", "1000:1001", "-v", "/vol", "toolbox", "sleep", "1000"))
	w.Must(w.Docker("exec", "-u", "0", "box", "sh", "-c", "mkdir /a /a/dir; echo file >/a/file; ln -s /a /link; ln -s ../../../../etc /up; ln -s loop /loop; ln -s /nowhere /open"))
	url := func(box, path, more string) string { return "/containers/" + box + "/archive?path=" + path + more }
	stat := func(path string) (s struct {
		Name, LinkTarget string
		Size             int64
		Mode             uint32
	}, code int) {
		req, err := http.NewRequest("HEAD", "http://shoal"+url("box", path, ""), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := w.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		data, _ := base64.StdEncoding.DecodeString(resp.Header.Get("X-Docker-Container-Path-Stat"))
		json.Unmarshal(data, &s)
		return s, resp.StatusCode
	}
	for path, target := range map[string]string{"/link": "/a", "/up": "/etc", "/a/file": "", "/link/file": ""} {
		if s, code := stat(path); code != 200 || s.LinkTarget != target || target == "" && s.Size != 5 {
			t.Errorf("HEAD %s: %d %+v", path, code, s)
		}
	}
	for _, path := range []string{"/nothing", "/a/file/x", "/loop/x"} {
		if _, code := stat(path); code != 404 && code != 400 {
			t.Errorf("HEAD %s: %d", path, code)
		}
	}
	archive := func(entries ...*tar.Header) []byte {
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		for _, h := range entries {
			h.Size = map[bool]int64{true: 3}[h.Typeflag == tar.TypeReg]
			tw.WriteHeader(h)
			if h.Size > 0 {
				tw.Write([]byte("new"))
			}
		}
		tw.Close()
		return b.Bytes()
	}
	file := func(name string) []byte {
		return archive(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o640, Uid: 5, Gid: 6})
	}
	dir := func(name string) []byte { return archive(&tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}) }
	put := func(box, path, more string, body []byte) world.Answer {
		return w.API("PUT", url(box, path, more), body)
	}
	for _, c := range []struct {
		what, path, more string
		body             []byte
		code             int
	}{
		{"into a directory", "/a", "", file("one"), 200},
		{"through a link", "/link", "", file("two"), 200},
		{"into a volume", "/vol", "", file("three"), 200},
		{"with the container's user", "/a", "&copyUIDGID=1", file("own"), 200},
		{"out of the root", "/up/../../..", "", file("top"), 200},
		{"onto a file", "/a/file", "", file("x"), 400},
		{"into what is not there", "/nothing", "", file("x"), 404},
		{"a file onto a directory", "/a", "&noOverwriteDirNonDir=1", file("dir"), 400},
		{"a directory onto a file", "/a", "&noOverwriteDirNonDir=1", dir("file"), 400},
		{"garbage", "/a", "", []byte("no archive at all, and long enough not to be taken for an empty one" + strings.Repeat(".", 600)), 400},
		{"a name that leads out", "/a", "", file("../../../../escape"), 200},
		{"without a path", "", "", file("x"), 400},
	} {
		if r := put("box", c.path, c.more, c.body); r.Code != c.code {
			t.Errorf("PUT %s: %d %s, want %d", c.what, r.Code, r.Body, c.code)
		}
	}
	want(t, "files", w.Must(w.Docker("exec", "-u", "0", "box", "sh", "-c", "stat -c '%n %u:%g %a' /a/one /a/two /vol/three /a/own /top; test -e /a/escape && echo inside; test -e /escape || echo not outside; cat /a/file; test -d /a/dir && echo dir")),
		"/a/one 5:6 640\n/a/two 5:6 640\n/vol/three 5:6 640\n/a/own 1000:1001 640\n/top 5:6 640\ninside\nnot outside\nfile\ndir")
	w.Must(w.Docker("run", "-d", "--name", "fixed", "--network", "none", "--read-only", "-v", "/vol", "-v", "box:/ro:ro", "toolbox", "sleep", "1000"))
	for path, code := range map[string]int{"/": 403, "/vol": 200, "/ro": 403} {
		if r := put("fixed", path, "", file("x")); r.Code != code {
			t.Errorf("PUT into %s of a read-only container: %d %s, want %d", path, r.Code, r.Body, code)
		}
	}
	r := w.API("GET", url("fixed", "/vol", ""), nil)
	names := ""
	for tr := tar.NewReader(bytes.NewReader(r.Body)); ; {
		h, err := tr.Next()
		if err != nil {
			break
		}
		names += h.Name + " "
	}
	want(t, "GET of a volume", names, "vol/ vol/x ")
}
