package server

import (
	"context"
	"net/http"

	"github.com/moby/moby/api/types/common"
	"github.com/moby/moby/api/types/container"

	"github.com/shoalhq/shoal/api/convert"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

func (s *Server) execRoutes() {
	if s.b.Execs == nil {
		return
	}
	s.handle("POST /containers/{name}/exec", s.execCreate)
	s.handle("POST /exec/{id}/start", s.execStart)
	s.handle("POST /exec/{id}/resize", s.execResize)
	s.handle("GET /exec/{id}/json", s.execInspect)
}

func (s *Server) execCreate(w http.ResponseWriter, r *http.Request, v types.Version) error {
	var body struct {
		container.ExecCreateRequest
		Cmd convert.StrSlice
	}
	if err := decode(w, r, &body, false); err != nil {
		return err
	}
	body.ExecCreateRequest.Cmd = body.Cmd
	if len(body.Cmd) == 0 || body.Cmd[0] == "" {
		return errs.New(errs.Invalid, "no exec command specified for container %s; give Cmd with the program and its arguments", r.PathValue("name"))
	}
	id, err := s.b.Execs.ExecCreate(r.Context(), r.PathValue("name"), convert.FromExecCreate(&body.ExecCreateRequest, v))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, common.IDResponse{ID: id})
}

func (s *Server) execStart(w http.ResponseWriter, r *http.Request, v types.Version) error {
	var body container.ExecStartRequest
	if err := decode(w, r, &body, true); err != nil {
		return err
	}
	id := r.PathValue("id")
	e, err := s.b.Execs.ExecInspect(r.Context(), id)
	if err != nil {
		return err
	}
	o := model.ExecStartOptions{Detach: body.Detach, ConsoleSize: e.Spec.ConsoleSize}
	if body.ConsoleSize != nil && v >= 42 {
		if o.ConsoleSize = *body.ConsoleSize; !body.Tty && !e.Spec.Tty {
			return errs.New(errs.Invalid, "exec %s: ConsoleSize is for execs with a terminal; set Tty or leave it out", id)
		}
	}
	if body.Detach {
		if err := s.b.Execs.ExecStart(r.Context(), id, o); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	ctx, cancel := s.untilClosing(context.WithoutCancel(r.Context()))
	defer cancel()
	t := &takeover{s: s, w: w, r: r, v: v, tty: body.Tty, stdin: e.Spec.AttachStdin, gone: cancel}
	// The start's own Tty says what the client reads: frames, also of an exec with a terminal, where it does not ask for one.
	if o.Ready = t.ready; e.Spec.Tty && !body.Tty {
		o.Ready = t.readyFramed
	}
	err = s.b.Execs.ExecStart(ctx, e.ID, o)
	if err != nil && t.conn == nil && s.programFailed(ctx, e.ID) {
		// Clients expect the stream, read the reason there and ask for the exit code afterwards.
		if _, rerr := t.ready(); rerr != nil {
			return rerr
		}
	}
	return t.finish(err)
}

// programFailed says whether an exec ended because its program could not be run, which has an exit code (126, 127).
func (s *Server) programFailed(ctx context.Context, id string) bool {
	e, err := s.b.Execs.ExecInspect(ctx, id)
	return err == nil && e.ExitCode != nil && *e.ExitCode >= errs.ExitNotExecutable
}

func (s *Server) execResize(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	height, width, err := q.size()
	if err != nil {
		return err
	}
	return s.b.Execs.ExecResize(r.Context(), r.PathValue("id"), height, width)
}

func (s *Server) execInspect(w http.ResponseWriter, r *http.Request, v types.Version) error {
	e, err := s.b.Execs.ExecInspect(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, convert.Exec(&e))
}
