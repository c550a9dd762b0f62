package server

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/api/access"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/observe/audit"
)

// Guard says what stands between requests and handlers. The zero Guard lets everything through and records nothing.
type Guard struct {
	// Scope, when not nil, is all that the server's clients may do and see. The backends must be narrowed by Narrow as well.
	Scope *access.Scope
	// Audit, when not nil, is told of each request when its answer begins, so that what is still under way when the daemon
	// dies is known. It is called by many goroutines.
	Audit func(audit.Record)
	// AuditLooks says that requests that change nothing are told as well. Refused ones always are.
	AuditLooks bool
	// Authorizer gives who is asked about every request and every answer at the moment, nil for nobody. A nil func is that, too.
	Authorizer func() Authorizer
}

// Authorizer decides about requests and answers from outside of this program. An error refuses: Forbidden when it said no,
// another kind when it could not be asked.
type Authorizer interface {
	Request(ctx context.Context, q *AuthRequest) error
	Response(ctx context.Context, q *AuthRequest, a *AuthAnswer) error
}

// AuthRequest is a request as authorizers see it.
type AuthRequest struct {
	Who    audit.Who
	Method string
	URI    string // as the client sent it
	Header http.Header
	Body   []byte   // JSON only; whole
	Certs  [][]byte // of the client, DER
}

// AuthAnswer is an answer as authorizers see it.
type AuthAnswer struct {
	Status int
	Header http.Header
	Body   []byte // what there is of it before the first byte is sent: all of a small JSON document, nothing of a stream
}

type connKey struct{}

// connContext keeps the connection at hand, to ask the kernel who is at its other end when somebody wants to know.
func connContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// who finds out who sent the request.
func (s *Server) who(r *http.Request) (w audit.Who) {
	if s.cfg.Guard.Scope != nil {
		w.Socket = s.cfg.Guard.Scope.Name
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		w.CN = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	conn, _ := r.Context().Value(connKey{}).(net.Conn)
	u, ok := conn.(*net.UnixConn)
	if !ok {
		w.Address = r.RemoteAddr
		return w
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return w
	}
	raw.Control(func(fd uintptr) {
		if c, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			w.UID, w.GID, w.PID = &c.Uid, &c.Gid, c.Pid
		}
	})
	return w
}

// guarded calls h when everybody whom the guard asks permits it, and has it recorded.
func (s *Server) guarded(pattern string, w *response, r *http.Request, h func(*response, *http.Request) error) error {
	g := &s.cfg.Guard
	rule, _ := access.RuleFor(pattern, r.URL.Path)
	var body []byte
	if g.Audit != nil {
		started := s.clock.Now()
		w.begin = func(status int, failure string) { s.record(pattern, rule, r, body, started, status, failure) }
	}
	if g.Scope != nil {
		if err := g.Scope.Permits(rule, r.Method, r.URL.Path); err != nil {
			return err
		}
	}
	var auth Authorizer
	if g.Authorizer != nil {
		auth = g.Authorizer()
	}
	if (g.Audit != nil || auth != nil) && !rule.Stream {
		var err error
		if body, err = wholeBody(r); err != nil {
			return err
		}
	}
	if auth == nil {
		return h(w, r)
	}
	return s.authorized(auth, pattern, w, r, body, h)
}

// wholeBody reads the body once: what is checked and recorded is what the handler then decodes. One that is too large to be
// looked at is refused.
func wholeBody(r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, errs.New(errs.Invalid, "read the request's body: %w", err)
	}
	if len(b) > maxBody {
		return nil, &http.MaxBytesError{Limit: maxBody}
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	return b, nil
}

const maxAuditPath = 4096

func (s *Server) record(pattern string, rule access.Rule, r *http.Request, body []byte, started time.Time, status int, failure string) {
	if rule.Looks && !s.cfg.Guard.AuditLooks && status != http.StatusForbidden {
		return
	}
	rec := audit.Record{Time: started.UTC(), Who: s.who(r), Method: r.Method, Path: r.URL.Path, Status: status, Error: failure,
		Query: tellingQuery(r.URL.RawQuery), Detail: access.Detail(pattern, body), Duration: float64(s.clock.Now().Sub(started).Microseconds()) / 1000}
	for _, name := range []string{"name", "id", "rest"} {
		if v := r.PathValue(name); v != "" {
			rec.Object = v
		}
	}
	if len(rec.Path) > maxAuditPath {
		rec.Path, rec.Object = rec.Path[:maxAuditPath], ""
	}
	s.cfg.Guard.Audit(rec)
}

func tellingQuery(raw string) string {
	if raw == "" {
		return ""
	}
	q, _ := url.ParseQuery(raw)
	kept := url.Values{}
	for _, k := range access.TellingQuery {
		if v := q[k]; len(v) > 0 && len(strings.Join(v, "")) <= maxAuditPath {
			kept[k] = v
		}
	}
	return kept.Encode()
}
