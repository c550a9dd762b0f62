package server

import (
	"context"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"

	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/lib/clock"
	"github.com/shoalhq/shoal/lib/errs"
)

// owner is the name of the registry's lease in the store.
const owner = "registry"

// Config says what a registry is made of.
type Config struct {
	Dir      string       // for the registry's own book; made when missing
	Store    *store.Store // where the content is
	Users    *Users       // nil: everybody may do everything
	ReadOnly bool         // pushes and deletes are refused
	Upstream *Upstream    // pull-through: what is not here is fetched from there; makes the registry read-only
	Clock    clock.Clock  // nil: the machine's
	Log      *slog.Logger // nil: nowhere
}

// Server is a registry. It is an http.Handler, safe for concurrent use.
type Server struct {
	cfg  Config
	book *book

	// gate keeps the book and the store in step: held for reading from the moment content is written or found until the
	// book has it, for writing while content that is not in the book is given back.
	gate sync.RWMutex

	mu       sync.Mutex
	uploads  map[string]*upload
	recent   map[string]time.Time // repository and digest: asked about lately, so a push may rely on it
	sweeping bool
	work     sync.WaitGroup
}

// New opens a registry and takes away what an earlier process left half done.
func New(cfg Config) (*Server, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b, err := openBook(cfg.Dir)
	if err != nil {
		return nil, errs.Wrap(err, "open registry %s", cfg.Dir)
	}
	s := &Server{cfg: cfg, book: b, uploads: map[string]*upload{}, recent: map[string]time.Time{}}
	if !cfg.Store.Empty() {
		err = s.dropAbandoned(context.Background())
	}
	if err == nil {
		err = s.tidy(context.Background())
	}
	if err != nil {
		b.db.Close()
		return nil, errs.Wrap(err, "open registry %s", cfg.Dir)
	}
	return s, nil
}

// Close ends the uploads, which can be taken up again after the next start, and closes the book.
func (s *Server) Close() error {
	s.mu.Lock()
	for _, u := range s.uploads {
		u.pause()
	}
	s.mu.Unlock()
	s.work.Wait()
	return s.book.db.Close()
}

// content is the store with the registry's lease.
func (s *Server) content(ctx context.Context) (context.Context, content.Store, error) {
	return s.cfg.Store.Keep(ctx, owner)
}

// Names and references, as the specification has them.
var (
	nameOK   = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagOK    = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	maxName  = 255
	routesOf = []struct{ mark, kind string }{
		{"/blobs/uploads/", "upload"}, {"/blobs/", "blob"}, {"/manifests/", "manifest"}, {"/referrers/", "referrers"},
	}
)

// route splits "/v2/NAME/blobs/sha256:..." by the last mark in it, as names may hold any word.
func route(path string) (name, kind, rest string) {
	path = strings.TrimPrefix(path, "/v2/")
	if n, ok := strings.CutSuffix(path, "/tags/list"); ok {
		return n, "tags", ""
	}
	if n, ok := strings.CutSuffix(path, "/blobs/uploads"); ok {
		return n, "upload", ""
	}
	best := -1
	for _, r := range routesOf {
		i := strings.LastIndex(path, r.mark)
		if i <= best || strings.Contains(path[i+len(r.mark):], "/") {
			continue
		}
		if r.kind == "blob" && strings.HasPrefix(path[i:], "/blobs/uploads/") {
			continue
		}
		best, name, kind, rest = i, path[:i], r.kind, path[i+len(r.mark):]
	}
	return name, kind, rest
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Docker-Distribution-Api-Version", "registry/2.0")
	h.Set("X-Content-Type-Options", "nosniff")
	if err := s.serve(w, r); err != nil {
		s.answer(w, r, err)
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	if !strings.HasPrefix(r.URL.Path, "/v2/") && r.URL.Path != "/v2" {
		return bad(http.StatusNotFound, "UNSUPPORTED", "this is a container registry; its interface begins at /v2/")
	}
	if s.cfg.Users != nil && !s.cfg.Users.check(r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="Shoal registry"`)
		return bad(http.StatusUnauthorized, "UNAUTHORIZED", "a name and password are needed: log in with `shoal login`")
	}
	reading := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch path := r.URL.Path; {
	case path == "/v2" || path == "/v2/":
		return only(reading, func() error { return writeJSON(w, r, "application/json", struct{}{}) })
	case path == "/v2/_catalog":
		return only(reading, func() error { return s.catalog(w, r) })
	}
	if !reading && (s.cfg.ReadOnly || s.cfg.Upstream != nil) {
		return bad(http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry is for reading only")
	}
	name, kind, rest := route(r.URL.Path)
	if kind == "" {
		return bad(http.StatusNotFound, "UNSUPPORTED", "no such address in the distribution specification")
	}
	if !nameOK.MatchString(name) || len(name) > maxName {
		return bad(http.StatusBadRequest, "NAME_INVALID", "repository names are lower-case letters and digits, separated by '/', '.', '_', '__' or dashes")
	}
	switch kind {
	case "tags":
		return only(reading, func() error { return s.tags(w, r, name) })
	case "referrers":
		return only(reading, func() error { return s.referrers(w, r, name, rest) })
	case "blob":
		return s.blob(w, r, name, rest)
	case "manifest":
		return s.manifest(w, r, name, rest)
	}
	return s.upload(w, r, name, rest)
}

func only(ok bool, f func() error) error {
	if !ok {
		return notAllowed()
	}
	return f()
}

func notAllowed() error {
	return bad(http.StatusMethodNotAllowed, "UNSUPPORTED", "the method is not allowed here")
}

// parseDigest accepts the registered algorithms: sha256, sha384, sha512.
func parseDigest(text string) (digest.Digest, error) {
	d, err := digest.Parse(text)
	if err != nil {
		return "", digestInvalid("not a digest: " + err.Error())
	}
	return d, nil
}

// touch remembers that a client was told that the blob is here.
func (s *Server) touch(name string, d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Clock.Now()
	if len(s.recent) > 10000 {
		for k, t := range s.recent {
			if now.Sub(t) > grace {
				delete(s.recent, k)
			}
		}
	}
	s.recent[name+"@"+d.String()] = now
}
