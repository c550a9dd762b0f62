package server

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Builds makes images. Session and GRPC serve a connection until it is closed; Build returns when the build is over, and
// what it emits comes in order, one at a time.
type Builds interface {
	Build(ctx context.Context, r model.BuildRequest, archive io.Reader, emit func(model.BuildMessage) error) (imageID string, err error)
	Cancel(ctx context.Context, id string) error
	Session(ctx context.Context, conn net.Conn, header map[string][]string) error
	GRPC(ctx context.Context, conn net.Conn) error
	Cache(ctx context.Context) ([]model.BuildCacheRecord, error)
	Prune(ctx context.Context, o model.BuildPruneOptions) (model.BuildPruneReport, error)
}

func (s *Server) buildRoutes() {
	if s.b.Builds == nil {
		answer := func(http.ResponseWriter, *http.Request, types.Version) error { return missing("builds") }
		for _, p := range []string{"/build", "/build/", "/session", "/grpc"} {
			s.handle(p, answer)
		}
		s.handle("POST /build/prune", func(w http.ResponseWriter, _ *http.Request, _ types.Version) error { // "system prune" asks for it
			return writeJSON(w, http.StatusOK, build.CachePruneReport{CachesDeleted: []string{}})
		})
		return
	}
	s.handle("POST /build", s.build)
	s.handle("POST /build/prune", s.buildPrune)
	s.handle("POST /build/cancel", s.buildCancel)
	s.handle("POST /session", s.buildSession)
	s.handle("POST /grpc", s.buildGRPC)
}

func (s *Server) build(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	req, err := buildRequest(q, v)
	if err != nil {
		return err
	}
	if req.Auth, err = buildAuth(r); err != nil {
		return err
	}
	// The archive is read while the answer is written: without this, the first write would end the reading.
	http.NewResponseController(w).EnableFullDuplex()
	var archive io.Reader
	if r.ContentLength != 0 && req.Session == "" {
		archive = r.Body
	}
	ctx, cancel := s.untilClosing(r.Context())
	defer cancel()
	out := buildProgress{newProgress(w, false), req.Options.Quiet}
	_, err = s.b.Builds.Build(ctx, req, archive, out.emit)
	return out.end(err)
}

// buildProgress writes what a build says.
type buildProgress struct {
	*progress
	quiet bool
}

// traceID marks messages that hold BuildKit's own.
const traceID = "moby.buildkit.trace"

func (p buildProgress) emit(m model.BuildMessage) error {
	switch {
	case m.Trace != nil:
		data, err := json.Marshal(m.Trace)
		if err != nil {
			return err
		}
		p.message(oldMessage{Message: jsonstream.Message{ID: traceID, Aux: (*json.RawMessage)(&data)}})
	case m.ID != "":
		data, err := json.Marshal(build.Result{ID: m.ID})
		if err != nil {
			return err
		}
		p.message(oldMessage{Message: jsonstream.Message{Aux: (*json.RawMessage)(&data)}})
		if p.quiet {
			p.message(oldMessage{Message: jsonstream.Message{Stream: m.ID + "\n"}})
		}
	case m.Stream != "" && !p.quiet:
		p.message(oldMessage{Message: jsonstream.Message{Stream: m.Stream}})
	}
	return nil
}

// buildAuth reads the header with the credentials for all registries.
func buildAuth(r *http.Request) (map[string]model.BuildAuth, error) {
	header := r.Header.Get("X-Registry-Config")
	if header == "" {
		return nil, nil
	}
	data, err := base64.URLEncoding.DecodeString(header)
	if err != nil {
		if data, err = base64.StdEncoding.DecodeString(header); err != nil {
			return nil, errs.New(errs.Invalid, "the header X-Registry-Config is not base64 of a JSON object")
		}
	}
	var all map[string]registry.AuthConfig
	if json.Unmarshal(data, &all) != nil {
		return nil, errs.New(errs.Invalid, "the header X-Registry-Config does not hold credentials as a JSON object") // the content is secret
	}
	out := map[string]model.BuildAuth{}
	for host, a := range all {
		b := model.BuildAuth{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
		if b.Username == "" && a.Auth != "" {
			if pair, err := base64.StdEncoding.DecodeString(a.Auth); err == nil {
				b.Username, b.Password, _ = strings.Cut(strings.TrimRight(string(pair), "\x00"), ":")
			}
		}
		out[host] = b
	}
	return out, nil
}

func (s *Server) buildCancel(w http.ResponseWriter, r *http.Request, _ types.Version) error {
	id := r.URL.Query().Get("id")
	if id == "" {
		return errs.New(errs.Invalid, "cancel a build: the build's ID is missing; give ?id=")
	}
	if err := s.b.Builds.Cancel(r.Context(), id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) buildPrune(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	f, err := parseFilters(q.Get("filters"))
	if err != nil {
		return err
	}
	o := model.BuildPruneOptions{All: q.bool("all"), Filters: f}
	for name, to := range map[string]*int64{"keep-storage": &o.ReservedSize, "reserved-space": &o.ReservedSize, "max-used-space": &o.MaxUsed, "min-free-space": &o.MinFree} {
		if !q.Has(name) {
			continue
		}
		n, err := q.int(name, 0)
		if err != nil {
			return err
		}
		if n < 0 {
			return errs.New(errs.Invalid, "%s=%d is not a size in bytes", name, n)
		}
		*to = int64(n)
	}
	report, err := s.b.Builds.Prune(r.Context(), o)
	if err != nil {
		return err
	}
	if report.Deleted == nil {
		report.Deleted = []string{}
	}
	s.pruned("builder", report.Reclaimed)
	return writeJSON(w, http.StatusOK, build.CachePruneReport{CachesDeleted: report.Deleted, SpaceReclaimed: uint64(max(report.Reclaimed, 0))})
}

func (s *Server) buildSession(w http.ResponseWriter, r *http.Request, _ types.Version) error {
	if r.Header.Get("X-Docker-Expose-Session-Uuid") == "" {
		return errs.New(errs.Invalid, "a session needs an ID: the header X-Docker-Expose-Session-Uuid is missing")
	}
	conn, release, err := s.upgradeH2C(w, r, "")
	if err != nil {
		return err
	}
	defer release()
	return s.b.Builds.Session(s.base, conn, r.Header)
}

func (s *Server) buildGRPC(w http.ResponseWriter, r *http.Request, _ types.Version) error {
	conn, release, err := s.upgradeH2C(w, r, "application/vnd.docker.raw-stream")
	if err != nil {
		return err
	}
	defer release()
	return s.b.Builds.GRPC(s.base, conn)
}

// upgradeH2C takes the connection over for HTTP/2.
func (s *Server) upgradeH2C(w http.ResponseWriter, r *http.Request, contentType string) (net.Conn, func(), error) {
	if proto := r.Header.Get("Upgrade"); proto != "h2c" {
		return nil, nil, errs.New(errs.Invalid, "upgrade to %q: this endpoint speaks h2c only; send \"Connection: Upgrade\" and \"Upgrade: h2c\"", proto)
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, errs.New(errs.Invalid, "this connection cannot become a stream: %w; use HTTP/1.1", err)
	}
	untrack, err := s.track(conn)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	release := func() {
		conn.Close()
		untrack()
	}
	answer := "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
	if contentType != "" {
		answer += "Content-Type: " + contentType + "\r\n"
	}
	if _, err := io.WriteString(conn, answer+"\r\n"); err != nil {
		release()
		return nil, nil, errs.New(errs.Canceled, "answer the client: %w", err)
	}
	if n := buf.Reader.Buffered(); n > 0 { // what came together with the request
		return earlyConn{conn, io.MultiReader(io.LimitReader(buf.Reader, int64(n)), conn)}, release, nil
	}
	return conn, release, nil
}

// earlyConn gives first what was read already.
type earlyConn struct {
	net.Conn
	r io.Reader
}

func (c earlyConn) Read(p []byte) (int, error) { return c.r.Read(p) }
