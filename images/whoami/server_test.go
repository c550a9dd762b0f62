package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func ask(t *testing.T, s *server, method, url string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	s.handler().ServeHTTP(w, httptest.NewRequest(method, url, nil))
	return w
}

func TestAnswers(t *testing.T) {
	t.Setenv("WHOAMI_TEST", "x")
	s := newServer("blue", true)
	body := ask(t, s, "GET", "/?env=WHOAMI_").Body.String()
	for _, want := range []string{"Hostname: " + s.host, "Name: blue", "Client: 192.0.2.1:1234", "GET /?env=WHOAMI_ HTTP/1.1", "Env: WHOAMI_TEST=x"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in:\n%s", want, body)
		}
	}
	if w := ask(t, s, "GET", "/json"); !strings.Contains(w.Body.String(), `"Name":"blue"`) {
		t.Error(w.Body)
	}
}

func TestHealth(t *testing.T) {
	s := newServer("", true)
	for _, step := range []struct {
		method, url string
		code        int
	}{{"GET", "/health", 200}, {"POST", "/health/fail", 200}, {"GET", "/health", 503}, {"POST", "/health/ok", 200}, {"GET", "/health", 200},
		{"GET", "/health/fail", 405}, {"GET", "/health", 200}} {
		if w := ask(t, s, step.method, step.url); w.Code != step.code {
			t.Fatalf("%s %s: %d", step.method, step.url, w.Code)
		}
	}
}

func TestMisbehaves(t *testing.T) {
	s := newServer("", true)
	for url, want := range map[string]int{"/slow?ms=1": 200, "/cpu?ms=1&n=2": 200, "/mem?mb=1": 200, "/mem?mb=x": http.StatusBadRequest,
		"/cpu?ms=-1": 400, "/log?lines=0": 200, "/slow?ms=999999999": 400} {
		if w := ask(t, s, "GET", url); w.Code != want {
			t.Errorf("%s: %d %s", url, w.Code, w.Body)
		}
	}
	if len(s.held) != 1<<20 {
		t.Errorf("holds %d", len(s.held))
	}
	ended := make(chan int, 1)
	s.exit = func(code int) { ended <- code }
	ask(t, s, "GET", "/exit?code=7")
	if code := <-ended; code != 7 {
		t.Error(code)
	}
}
