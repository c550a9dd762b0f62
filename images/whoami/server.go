package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const paths = `Paths:
  /                     who answers, who asked, with which headers; add ?env=PREFIX to see environment variables
  /json                 the same as JSON
  /health               200, or 503 when told to fail
  POST /health/fail     make the health check fail;  POST /health/ok  make it pass again
  /slow?ms=N            answer after N milliseconds
  /cpu?ms=N&n=M         burn M processors for N milliseconds (default 1000, 1)
  /mem?mb=N             hold N megabytes (0 lets go)
  /log?lines=N          write N lines to the log (default 1);  &size=B  bytes each;  &to=stderr
  /exit?code=N          end the program with the code (default 1)
`

const (
	maxSlow  = time.Hour
	maxLines = 10_000_000
	maxMB    = 1 << 20
)

type server struct {
	name    string
	host    string
	started time.Time
	healthy atomic.Bool
	asked   atomic.Int64

	mu   sync.Mutex
	held []byte
	exit func(int)
}

func newServer(name string, healthy bool) *server {
	host, _ := os.Hostname()
	s := &server{name: name, host: host, started: time.Now(), exit: os.Exit}
	s.healthy.Store(healthy)
	return s
}

func (s *server) handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/", s.root)
	m.HandleFunc("/json", s.json)
	m.HandleFunc("/health", s.health)
	m.HandleFunc("POST /health/fail", s.setHealth(false))
	m.HandleFunc("POST /health/ok", s.setHealth(true))
	m.HandleFunc("/slow", s.slow)
	m.HandleFunc("/cpu", s.cpu)
	m.HandleFunc("/mem", s.mem)
	m.HandleFunc("/log", s.log)
	m.HandleFunc("/exit", s.end)
	return m
}

func (s *server) answer(r *http.Request) answer {
	a := answer{Hostname: s.host, Name: s.name, IPs: addresses(), Client: r.RemoteAddr, Method: r.Method, URL: r.URL.RequestURI(),
		Proto: r.Proto, Host: r.Host, Headers: r.Header, Uptime: time.Since(s.started).Round(time.Millisecond).String(),
		Requests: s.asked.Add(1), UID: os.Getuid()}
	if r.URL.Query().Has("env") {
		prefix := r.URL.Query().Get("env")
		for _, e := range os.Environ() {
			if strings.HasPrefix(e, prefix) {
				a.Env = append(a.Env, e)
			}
		}
	}
	return a
}

func addresses() []string {
	var out []string
	list, _ := net.InterfaceAddrs()
	for _, a := range list {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLinkLocalUnicast() {
			out = append(out, ip.IP.String())
		}
	}
	return out
}

func (s *server) root(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" && strings.HasPrefix(r.URL.Path, "/health/") {
		http.Error(w, "use POST", http.StatusMethodNotAllowed)
		return
	}
	a := s.answer(r)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "Hostname: %s\n", a.Hostname)
	if a.Name != "" {
		fmt.Fprintf(w, "Name: %s\n", a.Name)
	}
	for _, ip := range a.IPs {
		fmt.Fprintf(w, "IP: %s\n", ip)
	}
	fmt.Fprintf(w, "Client: %s\nUptime: %s\nRequests: %d\nUID: %d\n%s %s %s\nHost: %s\n", a.Client, a.Uptime, a.Requests, a.UID, a.Method, a.URL, a.Proto, a.Host)
	var names []string
	for name := range a.Headers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, v := range a.Headers[name] {
			fmt.Fprintf(w, "%s: %s\n", name, v)
		}
	}
	for _, e := range a.Env {
		fmt.Fprintf(w, "Env: %s\n", e)
	}
}

func (s *server) json(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(s.answer(r))
}

func (s *server) health(w http.ResponseWriter, _ *http.Request) {
	if !s.healthy.Load() {
		http.Error(w, "unhealthy, as it was told to be", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "healthy")
}

func (s *server) setHealth(healthy bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		s.healthy.Store(healthy)
		fmt.Fprintln(w, "healthy:", healthy)
	}
}

// number reads a query parameter in [0, most]; it answers the client itself when that cannot be.
func number(w http.ResponseWriter, r *http.Request, name string, otherwise, most int) (int, bool) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, true
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		http.Error(w, fmt.Sprintf("%s=%s: want a number from 0 to %d", name, text, most), http.StatusBadRequest)
		return 0, false
	}
	return n, true
}

func (s *server) slow(w http.ResponseWriter, r *http.Request) {
	ms, ok := number(w, r, "ms", 1000, int(maxSlow/time.Millisecond))
	if !ok {
		return
	}
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
		fmt.Fprintf(w, "slept %d ms\n", ms)
	case <-r.Context().Done():
	}
}

func (s *server) cpu(w http.ResponseWriter, r *http.Request) {
	ms, ok := number(w, r, "ms", 1000, int(maxSlow/time.Millisecond))
	if !ok {
		return
	}
	n, ok := number(w, r, "n", 1, 1024)
	if !ok {
		return
	}
	end := time.Now().Add(time.Duration(ms) * time.Millisecond)
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for x := uint64(1); r.Context().Err() == nil && time.Now().Before(end); {
				for range 100_000 {
					x ^= x << 13
					x ^= x >> 7
					x ^= x << 17
				}
				runtime.KeepAlive(x)
			}
		})
	}
	all.Wait()
	fmt.Fprintf(w, "burned %d processors for %d ms\n", n, ms)
}

func (s *server) mem(w http.ResponseWriter, r *http.Request) {
	mb, ok := number(w, r, "mb", 0, maxMB)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = nil
	runtime.GC()
	s.held = make([]byte, mb<<20)
	for i := 0; i < len(s.held); i += os.Getpagesize() {
		s.held[i] = 1
	}
	fmt.Fprintf(w, "holding %d MB\n", mb)
}

func (s *server) log(w http.ResponseWriter, r *http.Request) {
	lines, ok := number(w, r, "lines", 1, maxLines)
	if !ok {
		return
	}
	size, ok := number(w, r, "size", 0, 1<<20)
	if !ok {
		return
	}
	to := os.Stdout
	if r.URL.Query().Get("to") == "stderr" {
		to = os.Stderr
	}
	pad := strings.Repeat(".", size)
	for i := range lines {
		line := fmt.Sprintf("line %d of %d ", i+1, lines)
		if len(line) < size {
			line += pad[len(line):]
		}
		fmt.Fprintln(to, line)
	}
	fmt.Fprintf(w, "wrote %d lines\n", lines)
}

func (s *server) end(w http.ResponseWriter, r *http.Request) {
	code, ok := number(w, r, "code", 1, 255)
	if !ok {
		return
	}
	fmt.Fprintf(w, "exiting with %d\n", code)
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	time.AfterFunc(50*time.Millisecond, func() { s.exit(code) })
}
