package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/clock"
	"github.com/shoalhq/shoal/lib/errs"
)

// Config is what a server needs.
type Config struct {
	Backends     Backends
	Version      string // of the product, for the Server header
	Experimental bool
	SwarmState   func() string // "inactive", "active/manager", ...; nil is inactive
	Clock        clock.Clock   // nil is the machine's
	Guard        Guard
	Log          *slog.Logger // nil discards
}

// Server answers API requests. Make it with New.
type Server struct {
	b     Backends
	cfg   Config
	clock clock.Clock
	log   *slog.Logger
	mux   *http.ServeMux
	// patterns are the routes as they were registered.
	patterns []string
	http     *http.Server
	closing  chan struct{} // closed when shutting down: ends streams
	base     context.Context
	cancel   context.CancelFunc
	taken    takenOver
}

// takenOver are the connections that attach and exec took from net/http, which no longer looks after them.
type takenOver struct {
	mu      sync.Mutex
	conns   map[net.Conn]struct{}
	streams sync.WaitGroup // handlers of those
	closed  bool
}

// New makes a server with all routes.
func New(c Config) *Server {
	s := &Server{b: c.Backends, cfg: c, clock: c.Clock, log: c.Log, mux: http.NewServeMux(),
		closing: make(chan struct{}), taken: takenOver{conns: map[net.Conn]struct{}{}}}
	if s.clock == nil {
		s.clock = clock.Real{}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.base, s.cancel = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 30 * time.Second,
		MaxHeaderBytes:    1 << 20,
		BaseContext:       func(net.Listener) context.Context { return s.base },
		ConnContext:       connContext,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.routes()
	return s
}

// Handle registers an addition under /shoal/, in the patterns of http.ServeMux ("GET /shoal/doctor"). Errors that the
// handler returns are written as the API writes them. Call it before Serve.
func (s *Server) Handle(pattern string, h func(http.ResponseWriter, *http.Request) error) {
	s.handle(pattern, func(w http.ResponseWriter, r *http.Request, _ types.Version) error { return h(w, r) })
}

// Serve answers requests on the listener until Shutdown; it returns nil then.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown stops accepting, ends event, log, attach and exec streams, and waits for the other requests until ctx ends;
// then it cuts them off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.taken.mu.Lock()
	if !s.taken.closed {
		s.taken.closed = true
		close(s.closing)
	}
	for conn := range s.taken.conns {
		conn.Close()
	}
	s.taken.mu.Unlock()
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
	}
	s.cancel()
	done := make(chan struct{})
	go func() {
		s.taken.streams.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	return err
}

// track registers a connection that left net/http's care, until release is called.
func (s *Server) track(conn net.Conn) (release func(), err error) {
	s.taken.mu.Lock()
	defer s.taken.mu.Unlock()
	if s.taken.closed {
		return nil, errs.New(errs.Unavailable, "the daemon is stopping")
	}
	s.taken.conns[conn] = struct{}{}
	s.taken.streams.Add(1)
	return func() {
		s.taken.mu.Lock()
		delete(s.taken.conns, conn)
		s.taken.mu.Unlock()
		s.taken.streams.Done()
	}, nil
}

// detached is the context of operations that must not stop half way because the client left, such as stop and remove. It
// ends when the server has been shut down.
func (s *Server) detached() context.Context { return s.base }

// untilClosing is a context that also ends when the server shuts down, for streams without an end of their own.
func (s *Server) untilClosing(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-s.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
