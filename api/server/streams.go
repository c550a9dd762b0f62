package server

import (
	"context"
	"net/http"

	"github.com/coder/websocket"
	"github.com/moby/moby/api/types/container"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

func (s *Server) streamRoutes() {
	if s.b.Streams == nil || s.b.Containers == nil {
		return
	}
	s.handle("POST /containers/{name}/attach", s.attach)
	s.handle("GET /containers/{name}/attach/ws", s.attachWS)
	s.handle("GET /containers/{name}/logs", s.logs)
	s.handle("GET /containers/{name}/stats", s.stats)
	s.handle("GET /containers/{name}/top", s.top)
	s.handle("POST /containers/{name}/resize", s.resize)
}

func attachOptions(q query) model.AttachOptions {
	return model.AttachOptions{Stdin: q.bool("stdin"), Stdout: q.bool("stdout"), Stderr: q.bool("stderr"), Stream: q.bool("stream"),
		Logs: q.bool("logs"), DetachKeys: q.Get("detachKeys")}
}

// attach turns the connection into the container's streams.
func (s *Server) attach(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	o := attachOptions(q)
	ref := r.PathValue("name")
	view, err := s.b.Containers.Inspect(r.Context(), ref, false)
	if err != nil {
		return err
	}
	// Taken over, the request's context no longer follows the connection.
	ctx, cancel := s.untilClosing(context.WithoutCancel(r.Context()))
	defer cancel()
	t := &takeover{s: s, w: w, r: r, v: v, tty: view.Spec.Process.Tty, stdin: o.Stdin && o.Stream, gone: cancel}
	o.Ready = t.ready
	return t.finish(s.b.Streams.Attach(ctx, view.ID, o))
}

// attachWS is attach over a WebSocket: messages hold plain bytes of both outputs, without frames.
func (s *Server) attachWS(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	o := attachOptions(q)
	if v < 42 { // the choice was documented but not made
		o.Stdin, o.Stdout, o.Stderr = true, true, true
	}
	o.Stream = o.Stream || !o.Logs
	view, err := s.b.Containers.Inspect(r.Context(), r.PathValue("name"), false)
	if err != nil {
		return err
	}
	kind := websocket.MessageBinary
	if v < 28 {
		kind = websocket.MessageText
	}
	ctx, cancel := s.untilClosing(context.WithoutCancel(r.Context()))
	defer cancel()
	var conn *websocket.Conn
	o.Ready = func() (model.Streams, error) {
		// The origin was checked with that of every request (refuseWebPages).
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return model.Streams{}, errs.New(errs.Invalid, "attach over a WebSocket: %w", err)
		}
		conn = c
		c.SetReadLimit(16 << 20)
		stream := websocket.NetConn(ctx, c, kind)
		out := model.Streams{Stdout: stream, Stderr: stream}
		if o.Stdin {
			out.Stdin = stream
		} else {
			go func() {
				<-c.CloseRead(ctx).Done()
				cancel()
			}()
		}
		return out, nil
	}
	err = s.b.Streams.Attach(ctx, view.ID, o)
	if conn == nil {
		return err
	}
	status, reason := websocket.StatusNormalClosure, ""
	if err != nil && !errs.Is(err, errs.Canceled) {
		status, reason = websocket.StatusInternalError, err.Error()
		if len(reason) > 120 { // a close frame holds no more
			conn.Write(ctx, kind, []byte(reason+"\r\n"))
			reason = "see the message before"
		}
	}
	conn.Close(status, reason)
	return nil
}

func (s *Server) resize(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	height, width, err := q.size()
	if err != nil {
		return err
	}
	return s.b.Streams.Resize(r.Context(), r.PathValue("name"), height, width)
}

func (s *Server) top(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	res, err := s.b.Streams.Top(r.Context(), r.PathValue("name"), q.Get("ps_args"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, container.TopResponse{Titles: res.Titles, Processes: res.Processes})
}
