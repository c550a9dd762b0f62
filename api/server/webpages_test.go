package server

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"testing"
)

func TestWebPagesCannotUseTheAPI(t *testing.T) {
	s := New(Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	defer s.Shutdown(t.Context())
	const ok, no = http.StatusNotFound, http.StatusForbidden // the server of this test has no rooms
	for _, c := range []struct {
		host, origin string
		want         int
	}{
		{"localhost:2375", "", ok}, {"127.0.0.1:2375", "", ok}, {"[::1]:2375", "", ok}, {"docker", "", ok}, {"api.moby.localhost", "", ok},
		{"localhost:2375", "http://localhost:2375", ok},
		{"localhost:2375", "http://evil.example", no}, {"localhost:2375", "null", no}, {"localhost:2375", "http://localhost:8080", no},
		{"evil.example:2375", "", no}, {"evil.example", "http://evil.example", no},
	} {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /nothing HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n", c.host)
		if c.origin != "" {
			fmt.Fprintf(conn, "Origin: %s\r\n", c.origin)
		}
		fmt.Fprint(conn, "\r\n")
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		conn.Close()
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != c.want {
			t.Errorf("host %q, origin %q: %s, want %d", c.host, c.origin, res.Status, c.want)
		}
	}
}
