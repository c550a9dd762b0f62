package server

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	gopath "path"
	"runtime/debug"
	"strings"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
)

// handler answers one request in the shape of the version. An error returned before anything was written becomes the
// answer; one returned after that can only be logged.
type handler func(w http.ResponseWriter, r *http.Request, v types.Version) error

type versionKey struct{}

// handle registers a route by a ServeMux pattern without version prefix.
func (s *Server) handle(pattern string, h handler) {
	s.patterns = append(s.patterns, pattern)
	s.mux.HandleFunc(pattern, func(rw http.ResponseWriter, r *http.Request) {
		v, _ := r.Context().Value(versionKey{}).(types.Version)
		w := rw.(*response)
		err := s.guarded(pattern, w, r, func(w *response, r *http.Request) error { return h(w, r, v) })
		if err != nil {
			s.fail(w, r, err)
		}
	})
}

// ServeHTTP answers a request: version, headers, route.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := &response{ResponseWriter: rw}
	start := s.clock.Now()
	path := r.URL.Path
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			s.log.Error("a request crashed its handler", "method", r.Method, "path", path, "panic", p, "stack", string(debug.Stack()))
			s.fail(w, r, errs.New(errs.Internal, "the daemon made a mistake while it answered %s %s: %v; its log has the details, please report them", r.Method, path, p))
		}
		s.log.Debug("request", "method", r.Method, "path", path, "status", w.status, "bytes", w.bytes, "duration", s.clock.Now().Sub(start))
	}()
	h := w.Header()
	h.Set("Api-Version", types.MaxVersion.String())
	h.Set("Docker-Experimental", boolText(s.cfg.Experimental))
	h.Set("Ostype", "linux")
	h.Set("Server", "Shoal/"+s.cfg.Version+" (linux)")
	if err := refuseWebPages(r); err != nil {
		s.fail(w, r, err)
		return
	}
	v := types.MaxVersion
	if asked, rest, has := cutVersion(path); has {
		var err error
		if v, err = checkVersion(asked); err != nil {
			s.fail(w, r, err)
			return
		}
		r2 := new(http.Request)
		*r2 = *r
		r2.URL = new(url.URL)
		*r2.URL = *r.URL
		r2.URL.Path = rest
		if raw := r.URL.RawPath; raw != "" {
			_, r2.URL.RawPath, _ = cutVersion(raw)
		}
		r = r2
	}
	// What is left of a path from which the name is missing, such as DELETE /images/, or what has dots for a name: the mux would
	// answer such with a redirect, which clients take for a broken connection.
	if p := r.URL.Path; p != gopath.Clean("/"+p) || p == "/images" || p == "/distribution" {
		s.fail(w, r, errs.New(errs.Invalid, "the path %q has a part that is empty or dots; is a name or ID missing?", path))
		return
	}
	s.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), versionKey{}, v)))
}

// cutVersion splits "/v1.44/containers/json".
func cutVersion(path string) (version, rest string, ok bool) {
	tail, ok := strings.CutPrefix(path, "/v")
	if !ok || tail == "" || tail[0] < '0' || tail[0] > '9' {
		return "", path, false
	}
	version, rest, has := strings.Cut(tail, "/")
	if !has || strings.Trim(version, "0123456789.") != "" {
		return "", path, false
	}
	return version, "/" + rest, true
}

func checkVersion(asked string) (types.Version, error) {
	v, ok := types.ParseVersion(asked)
	switch {
	case !ok:
		return 0, errs.New(errs.Invalid, "client version %q is not a version; write it as 1.%d", asked, types.MaxVersion)
	case v > types.MaxVersion:
		return 0, errs.New(errs.Invalid, "client version %s is too new. Maximum supported API version is %s", asked, types.MaxVersion)
	case v < types.MinVersion:
		return 0, errs.New(errs.Invalid, "client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", asked, types.MinVersion)
	}
	return v, nil
}

func boolText(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

// response remembers whether an answer was begun.
type response struct {
	http.ResponseWriter
	status   int
	bytes    int64
	hijacked bool
	begin    func(status int, failure string) // told when the answer begins; may be nil
	failure  string                           // what the answer says went wrong
}

// start notes that the answer begins.
func (w *response) start(status int) {
	if w.begun() {
		return
	}
	w.status = status
	if w.begin != nil {
		w.begin(status, w.failure)
	}
}

func (w *response) begun() bool { return w.status != 0 || w.hijacked }

// WriteHeader begins the answer.
func (w *response) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.start(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	w.start(http.StatusOK)
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom lets the kernel copy where net/http can.
func (w *response) ReadFrom(r io.Reader) (int64, error) {
	w.start(http.StatusOK)
	n, err := io.Copy(w.ResponseWriter, r)
	w.bytes += n
	return n, err
}

// Flush sends what is buffered.
func (w *response) Flush() {
	w.start(http.StatusOK)
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Hijack hands the connection over.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.start(http.StatusSwitchingProtocols)
		w.hijacked = true
	}
	return conn, buf, err
}

// Unwrap serves http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
