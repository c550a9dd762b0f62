package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/shoalhq/shoal/model"
)

// over makes an HTTP client for the socket.
func over(sock string) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", sock)
	}}}
}

func do(t *testing.T, sock, method, path, contentType, body string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequest(method, "http://x"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := over(sock).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(data), res.Header
}

func TestBadRequestsAreAnsweredInSentences(t *testing.T) {
	f := newFake()
	_, sock := serve(t, f)
	const js = "application/json"
	for _, c := range []struct {
		method, path, ct, body string
		status                 int
		want                   string
	}{
		{"GET", "/v1.99/info", "", "", 400, "client version 1.99 is too new. Maximum supported API version is 1.56"},
		{"GET", "/v2.0/info", "", "", 400, "client version 2.0 is too new"},
		{"GET", "/v1.23/info", "", "", 400, "client version 1.23 is too old. Minimum supported API version is 1.24"},
		{"GET", "/v1.24/_ping", "", "", 200, "OK"},
		{"GET", "/nothing", "", "", 404, "page not found: the API has no GET /nothing"},
		{"DELETE", "/images", "", "", 400, "is a name or ID missing"},
		{"DELETE", "/v1.44/images/", "", "", 400, "is a name or ID missing"},
		{"GET", "/containers/../images/json", "", "", 400, "empty or dots"},
		{"PATCH", "/containers/json", "", "", 404, "page not found"},
		{"POST", "/containers//start", "", "", 400, "is a name or ID missing?"},
		{"POST", "/containers/create", js, `{"Image":"i",}`, 400, "at line 1, column 14"},
		{"POST", "/containers/create", js, "{\n\"Image\":\n  5}", 400, `invalid JSON: field \"Image\" cannot be a number, want a string, at line 3, column 3`},
		{"POST", "/containers/create", js, `{"Image":"i"} x`, 400, "there is more behind the end of the document"},
		{"POST", "/containers/create", js, `{"Image":"i"`, 400, "ends too early"},
		{"POST", "/containers/create", js, `  `, 400, "body is empty"},
		{"POST", "/containers/create", js, ``, 400, "no body"},
		{"POST", "/containers/create", js, `{"Unknown":{},"Image":"i"}`, 201, `"Id":"`},
		{"POST", "/containers/create", js, `{"Image":"i","HostConfig":{"Dns":["nope"]}}`, 400, "nope"},
		{"POST", "/containers/create", js, `{"Image":"i","ExposedPorts":{"99999":{}}}`, 400, "value out of range"},
		{"POST", "/containers/create", "text/plain", `{}`, 400, "unsupported Content-Type header (text/plain): must be 'application/json'"},
		{"POST", "/containers/create", js, `{"Image":"` + strings.Repeat("x", maxBody) + `"}`, 413, "larger than"},
		{"GET", "/containers/json?filters={", "", "", 400, "the filters"},
		{"GET", "/containers/json?filters=" + url.QueryEscape(`{"nope":["x"]}`), "", "", 400, "invalid filter 'nope': use one of ancestor"},
		{"GET", "/containers/json?filters=" + url.QueryEscape(`{"status":{"running":true}}`), "", "", 200, "[]"},
		{"GET", "/containers/json?limit=x", "", "", 400, `limit=\"x\" is not a whole number`},
		{"GET", "/containers/json?a=%zz", "", "", 400, "cannot be read"},
		{"POST", "/containers/brave_heron/resize?h=1&w=-1", "", "", 400, "want 0 to 65535 characters"},
		{"POST", "/containers/brave_heron/wait?condition=maybe", "", "", 400, "invalid condition"},
		{"GET", "/containers/brave_heron/logs", "", "", 400, "you must choose at least one stream"},
		{"GET", "/containers/brave_heron/logs?stdout=1&since=yesterday", "", "", 400, `since: \"yesterday\" is not a time`},
		{"GET", "/containers/brave_heron/archive", "", "", 400, "give ?path="},
		{"POST", "/containers/brave_heron/rename", "", "", 400, "new name is missing"},
		{"POST", "/containers/brave_heron/exec", js, `{"Cmd":[]}`, 400, "no exec command specified"},
		{"POST", "/containers/brave_heron/start", js, `{"Binds":["/a:/b"]}`, 400, "non-empty request body"},
		{"POST", "/containers/brave_heron/start", js, `{}`, 204, ""},
		{"POST", "/containers/brave_heron/start", "", ``, 304, ""},
		{"GET", "/events?since=9&until=5", "", "", 400, "swap them"},
		{"GET", "/system/df?type=dust", "", "", 400, "unknown object type"},
		{"POST", "/build", "application/x-tar", "", 501, "builds are not available"},
		{"GET", "/swarm", "", "", 503, "not a swarm manager"},
		{"POST", "/images/create", "", "", 400, "neither fromImage"},
		{"POST", "/networks/own/connect", js, `{}`, 400, "the container is missing"},
		{"POST", "/volumes/create", js, `{"Name":"a/b"}`, 400, "invalid volume name"},
	} {
		status, body, h := do(t, sock, c.method, c.path, c.ct, c.body)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s %.60s: got %d %.300s, want %d %s", c.method, c.path, c.body, status, body, c.status, c.want)
		}
		if h.Get("Api-Version") != "1.56" || h.Get("Ostype") != "linux" || !strings.HasPrefix(h.Get("Server"), "Shoal/") {
			t.Errorf("%s %s: headers %v", c.method, c.path, h)
		}
		if status >= 400 {
			var e struct{ Message string }
			if json.Unmarshal([]byte(body), &e) != nil || e.Message == "" {
				t.Errorf("%s %s: not an error document: %s", c.method, c.path, body)
			}
		}
	}
}

// Handlers that crash answer 500 and leave the server alive.
func TestPanicIsAnswered(t *testing.T) {
	srv := New(Config{Version: "t"})
	srv.Handle("GET /shoal/crash", func(http.ResponseWriter, *http.Request) error { panic("boom") })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Shutdown(context.Background())
	for range 2 {
		res, err := http.Get("http://" + l.Addr().String() + "/v1.40/shoal/crash")
		if err != nil {
			t.Fatal(err)
		}
		data, _ := io.ReadAll(res.Body)
		if res.Body.Close(); res.StatusCode != 500 || !strings.Contains(string(data), "boom") {
			t.Errorf("%d %s", res.StatusCode, data)
		}
	}
}

// rawAttach sends an attach by hand and gives the answer's head and a reader for the rest.
func rawAttach(t *testing.T, sock, version, name, headers, early string) (string, net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, "POST /v"+version+"/containers/"+name+"/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\n"+headers+"\r\n"+early)
	r := bufio.NewReader(conn)
	head := ""
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(head, err)
		}
		if head += line; line == "\r\n" {
			return head, conn, r
		}
	}
}

func TestAttachOnTheWire(t *testing.T) {
	f := newFake()
	c, sock := serve(t, f)
	const upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
	for _, x := range []struct {
		version, headers, status, kind string
		tty                            bool
	}{
		{"1.44", upgrade, "HTTP/1.1 101 UPGRADED", multiplexedStream, false},
		{"1.44", upgrade, "HTTP/1.1 101 UPGRADED", rawStream, true},
		{"1.41", upgrade, "HTTP/1.1 101 UPGRADED", rawStream, false},
		{"1.44", "", "HTTP/1.1 200 OK", rawStream, false},
	} {
		id := mustCreate(t, c, "wire", x.tty)
		// Input that arrives in one packet with the request must not get lost.
		head, conn, r := rawAttach(t, sock, x.version, id, x.headers, "early ")
		if !strings.HasPrefix(head, x.status+"\r\n") || !strings.Contains(head, "\r\nContent-Type: "+x.kind+"\r\n") || !strings.Contains(head, "\r\nApi-Version: 1.56\r\n") {
			t.Errorf("%+v: %q", x, head)
		}
		do(t, sock, "POST", "/containers/"+id+"/start", "", "")
		io.WriteString(conn, "late\n")
		conn.(*net.UnixConn).CloseWrite()
		all, err := io.ReadAll(r)
		if err != nil {
			t.Error(err)
		}
		for _, want := range []string{"say hello\n", "to stderr\n", "early ", "late\n"} {
			if !bytes.Contains(all, []byte(want)) {
				t.Errorf("%+v: %q lacks %q", x, all, want)
			}
		}
		do(t, sock, "DELETE", "/containers/"+id+"?force=1", "", "")
	}
}

// A client that leaves a silent container is noticed; one that only ends its input is not taken for one that left.
func TestAttachNoticesThatTheClientLeft(t *testing.T) {
	for _, stdin := range []string{"", "&stdin=1"} {
		f := newFake()
		left := make(chan struct{})
		f.silent = func(ctx context.Context, st model.Streams) {
			if st.Stdin != nil {
				io.Copy(io.Discard, st.Stdin)
			}
			st.Raw.Write([]byte("x"))
			<-ctx.Done()
			close(left)
		}
		c, sock := serve(t, f)
		mustCreate(t, c, "quiet", false)
		conn, err := net.Dial("unix", sock)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "POST /v1.44/containers/quiet/attach?stream=1&stdout=1"+stdin+" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		conn.(*net.UnixConn).CloseWrite()
		r := bufio.NewReader(conn)
		if _, err := r.ReadString('x'); err != nil {
			t.Fatal(err)
		}
		select {
		case <-left:
			t.Error("a client that reads on was taken for gone")
		default:
		}
		conn.Close()
		select {
		case <-left:
		case <-time.After(10 * time.Second):
			t.Error("a client that left was not noticed")
		}
	}
}

func TestAttachWebSocket(t *testing.T) {
	f := newFake()
	c, sock := serve(t, f)
	id := mustCreate(t, c, "ws", false)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://x/v1.44/containers/ws/attach/ws?stream=1&stdin=1&stdout=1&stderr=1", &websocket.DialOptions{HTTPClient: over(sock)})
	if err != nil {
		t.Fatal(err)
	}
	do(t, sock, "POST", "/containers/"+id+"/start", "", "")
	kind, data, err := conn.Read(ctx)
	if err != nil || kind != websocket.MessageBinary || string(data) != "say hello\n" {
		t.Error(kind, string(data), err)
	}
	conn.Read(ctx)
	conn.Write(ctx, websocket.MessageBinary, []byte("typed"))
	if _, data, err = conn.Read(ctx); err != nil || string(data) != "typed" {
		t.Error(string(data), err)
	}
	conn.Close(websocket.StatusNormalClosure, "")
}

// Shutdown ends streams: attach, events, logs, wait.
func TestShutdownEndsStreams(t *testing.T) {
	f := newFake()
	srv := New(Config{Backends: Backends{Containers: f, Life: f, Streams: f, Execs: f, Files: f, Events: f.bus}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	base := "http://" + l.Addr().String()
	res, err := http.Post(base+"/containers/create?name=w", "application/json", strings.NewReader(`{"Image":"i"}`))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	var open []io.ReadCloser
	for _, path := range []string{"/events", "/containers/w/logs?stdout=1&follow=1"} {
		res, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, res.Body)
	}
	res, err = http.Post(base+"/containers/w/wait", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	open = append(open, res.Body)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "POST /containers/w/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	bufio.NewReader(conn).ReadString('\n')
	open = append(open, conn)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	for _, o := range open {
		io.Copy(io.Discard, o)
		o.Close()
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
