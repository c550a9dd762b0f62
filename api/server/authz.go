package server

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"

	"github.com/shoalhq/shoal/lib/errs"
)

// maxChecked is how much of an answer is held back for the authorizer; a longer one is judged by its beginning.
const maxChecked = 64 << 10

// authorized asks the authorizer about the request, lets the handler answer behind a gate, and opens the gate when the
// authorizer has agreed to the answer.
func (s *Server) authorized(auth Authorizer, pattern string, w *response, r *http.Request, body []byte, h func(*response, *http.Request) error) error {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	q := &AuthRequest{Who: s.who(r), Method: r.Method, URI: r.RequestURI, Header: r.Header, Body: body}
	if pattern == "POST /auth" {
		q.Body = nil // a password
	}
	if r.TLS != nil {
		for _, c := range r.TLS.PeerCertificates {
			q.Certs = append(q.Certs, c.Raw)
		}
	}
	if err := auth.Request(ctx, q); err != nil {
		return err
	}
	g := &gate{outer: w, check: func(status int, begun []byte) error {
		return auth.Response(ctx, q, &AuthAnswer{Status: status, Header: w.Header(), Body: begun})
	}}
	g.refuse = func(err error) {
		cancel() // a stream would go on for nobody
		s.fail(w, r, err)
	}
	inner := &response{ResponseWriter: g}
	if err := h(inner, r.WithContext(ctx)); err != nil {
		s.fail(inner, r, err)
	}
	w.hijacked = w.hijacked || inner.hijacked
	if !inner.hijacked {
		g.release()
	}
	return nil
}

// gate holds an answer back until the authorizer has seen it. Unlike Docker's, it lets no byte of a stream pass before.
type gate struct {
	outer  *response
	check  func(status int, begun []byte) error
	refuse func(error)

	status int
	held   []byte
	open   bool
	denied error
}

func (g *gate) Header() http.Header { return g.outer.Header() }

func (g *gate) WriteHeader(status int) {
	if g.open && g.denied == nil {
		g.outer.WriteHeader(status)
	} else if g.status == 0 {
		g.status = status
	}
}

func (g *gate) Write(p []byte) (int, error) {
	if !g.open {
		if len(g.held)+len(p) <= maxChecked {
			g.held = append(g.held, p...)
			return len(p), nil
		}
		g.release()
	}
	if g.denied != nil {
		return 0, g.denied
	}
	return g.outer.Write(p)
}

// release asks and opens. After a refusal the answer is the refusal.
func (g *gate) release() {
	if g.open {
		return
	}
	g.open = true
	if g.status == 0 {
		g.status = http.StatusOK
	}
	held := g.held
	g.held = nil
	if g.denied = g.check(g.status, held); g.denied != nil {
		h := g.Header()
		for k := range h {
			switch k {
			case "Api-Version", "Docker-Experimental", "Ostype", "Server":
			default:
				h.Del(k)
			}
		}
		g.refuse(g.denied)
		return
	}
	g.outer.WriteHeader(g.status)
	if len(held) > 0 {
		g.outer.Write(held)
	}
}

// Flush sends what was held back.
func (g *gate) Flush() {
	g.release()
	if g.denied == nil {
		g.outer.Flush()
	}
}

// ReadFrom serves io.Copy.
func (g *gate) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{g}, r)
}

// Hijack hands the connection over, when the authorizer agrees to an upgrade.
func (g *gate) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if g.open {
		return nil, nil, errs.New(errs.Internal, "the answer has begun: the connection cannot be taken over")
	}
	g.open = true
	if g.denied = g.check(http.StatusSwitchingProtocols, nil); g.denied != nil {
		g.refuse(g.denied)
		return nil, nil, g.denied
	}
	return g.outer.Hijack()
}
