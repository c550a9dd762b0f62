package server

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/container"

	"github.com/shoalhq/shoal/api/convert"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

func (s *Server) containerRoutes() {
	if s.b.Containers == nil || s.b.Life == nil {
		s.handle("/containers/", func(http.ResponseWriter, *http.Request, types.Version) error { return missing("containers") })
		return
	}
	s.handle("GET /containers/json", s.containerList)
	s.handle("POST /containers/create", s.containerCreate)
	s.handle("POST /containers/prune", s.containerPrune)
	s.handle("GET /containers/{name}/json", s.containerInspect)
	s.handle("POST /containers/{name}/start", s.containerStart)
	s.handle("POST /containers/{name}/stop", s.stopLike(s.b.Life.Stop))
	s.handle("POST /containers/{name}/restart", s.stopLike(s.b.Life.Restart))
	s.handle("POST /containers/{name}/kill", s.containerKill)
	s.handle("POST /containers/{name}/pause", s.byName(s.b.Life.Pause))
	s.handle("POST /containers/{name}/unpause", s.byName(s.b.Life.Unpause))
	s.handle("POST /containers/{name}/rename", s.containerRename)
	s.handle("POST /containers/{name}/update", s.containerUpdate)
	s.handle("POST /containers/{name}/wait", s.containerWait)
	s.handle("DELETE /containers/{name}", s.containerRemove)
}

// containerFilters are the keys that lists know.
var containerFilters = []string{"ancestor", "annotation", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label",
	"name", "network", "publish", "since", "status", "volume"}

func (s *Server) containerList(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	o := model.ListOptions{All: q.bool("all"), Size: q.bool("size")}
	if o.Filters, err = q.filters(containerFilters...); err != nil {
		return err
	}
	if o.Limit, err = q.int("limit", 0); err != nil {
		return err
	}
	o.Limit = max(o.Limit, 0)
	for _, old := range []string{"before", "since"} { // parameters of their own before they were filters
		if ref := q.Get(old); ref != "" && len(o.Filters[old]) == 0 {
			if o.Filters == nil {
				o.Filters = model.Filters{}
			}
			o.Filters[old] = []string{ref}
		}
	}
	list, err := s.b.Containers.List(r.Context(), o)
	if err != nil {
		return err
	}
	now := s.clock.Now()
	out := make([]container.Summary, 0, len(list))
	for i := range list {
		out = append(out, convert.Summary(&list[i], v, now))
	}
	return writeJSON(w, http.StatusOK, out)
}

func (s *Server) containerCreate(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	var body convert.CreateBody
	if err := decode(w, r, &body, false); err != nil {
		return err
	}
	platform := q.Get("platform")
	if v < 41 {
		platform = ""
	}
	req, warnings, err := convert.FromCreate(&body, q.Get("name"), platform, v)
	if err != nil {
		return err
	}
	res, err := s.b.Containers.Create(r.Context(), req)
	if err != nil {
		return err
	}
	warnings = append(warnings, res.Warnings...)
	if warnings == nil {
		warnings = []string{}
	}
	return writeJSON(w, http.StatusCreated, container.CreateResponse{ID: res.ID, Warnings: warnings})
}

func (s *Server) containerInspect(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	view, err := s.b.Containers.Inspect(r.Context(), r.PathValue("name"), q.bool("size"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, convert.Inspect(&view, v))
}

func (s *Server) containerStart(w http.ResponseWriter, r *http.Request, v types.Version) error {
	if r.ContentLength > 7 || r.ContentLength == -1 { // "{}" and "null" were sent by old clients
		return errs.New(errs.Invalid, "starting a container with a non-empty request body is not supported since API version 1.24; give the configuration when you create it")
	}
	if id := r.URL.Query().Get("checkpoint"); id != "" {
		return errs.New(errs.Unsupported, "starting from checkpoint %q: checkpoints are not supported yet", id)
	}
	if err := s.b.Life.Start(s.detached(), r.PathValue("name")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// stopLike serves stop and restart.
func (s *Server) stopLike(do func(ctx ctx, ref string, o model.StopOptions) error) handler {
	return func(w http.ResponseWriter, r *http.Request, v types.Version) error {
		q, err := parseQuery(r)
		if err != nil {
			return err
		}
		var o model.StopOptions
		if v >= 42 {
			o.Signal = q.Get("signal")
		}
		if q.Get("t") != "" {
			t, err := q.int("t", 0)
			if err != nil {
				return err
			}
			o.Timeout = &t
		}
		if err := do(s.detached(), r.PathValue("name"), o); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

// byName serves what needs nothing but the container.
func (s *Server) byName(do func(ctx ctx, ref string) error) handler {
	return func(w http.ResponseWriter, r *http.Request, v types.Version) error {
		if err := do(s.detached(), r.PathValue("name")); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

func (s *Server) containerKill(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	if err := s.b.Life.Kill(s.detached(), r.PathValue("name"), q.Get("signal")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) containerRename(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	name := strings.TrimPrefix(q.Get("name"), "/")
	if name == "" {
		return errs.New(errs.Invalid, "rename container %s: the new name is missing; give ?name=", r.PathValue("name"))
	}
	if err := s.b.Containers.Rename(s.detached(), r.PathValue("name"), name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) containerUpdate(w http.ResponseWriter, r *http.Request, v types.Version) error {
	var u container.UpdateConfig
	if err := decode(w, r, &u, false); err != nil {
		return err
	}
	req, warnings := convert.FromUpdate(&u, v)
	more, err := s.b.Containers.Update(s.detached(), r.PathValue("name"), req)
	if err != nil {
		return err
	}
	warnings = append(warnings, more...)
	if warnings == nil {
		warnings = []string{}
	}
	return writeJSON(w, http.StatusOK, container.UpdateResponse{Warnings: warnings})
}

func (s *Server) containerRemove(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	o := model.RemoveOptions{Force: q.bool("force"), Volumes: q.bool("v"), Link: q.bool("link")}
	if err := s.b.Containers.Remove(s.detached(), r.PathValue("name"), o); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) containerPrune(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	f, err := q.filters("label", "label!", "until")
	if err != nil {
		return err
	}
	res, err := s.b.Containers.Prune(r.Context(), f)
	if err != nil {
		return err
	}
	if res.Deleted == nil {
		res.Deleted = []string{}
	}
	return writeJSON(w, http.StatusOK, container.PruneReport{ContainersDeleted: res.Deleted, SpaceReclaimed: res.Reclaimed})
}

// containerWait acknowledges at once that the wait is registered (clients start the container then), and answers when the
// condition came true.
func (s *Server) containerWait(w http.ResponseWriter, r *http.Request, v types.Version) error {
	cond := model.WaitNotRunning
	if v >= 30 {
		switch c := model.WaitCondition(r.URL.Query().Get("condition")); c {
		case "", model.WaitNotRunning:
		case model.WaitNextExit, model.WaitRemoved:
			cond = c
		default:
			if v >= 42 {
				return errs.New(errs.Invalid, "invalid condition: %q; use not-running, next-exit or removed", c)
			}
		}
	}
	results, err := s.b.Life.Wait(r.Context(), r.PathValue("name"), cond)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	if v >= 30 {
		w.WriteHeader(http.StatusOK)
		flush(w)
	}
	var res model.WaitResult
	select {
	case res = <-results:
	case <-r.Context().Done():
		return r.Context().Err()
	case <-s.closing:
		res.ExitCode, res.Err = -1, errs.New(errs.Unavailable, "the daemon is stopping; the container is left as it is")
	}
	out := container.WaitResponse{StatusCode: int64(res.ExitCode)}
	if res.Err != nil {
		if v < 30 {
			return res.Err
		}
		out.Error = &container.WaitExitError{Message: res.Err.Error()}
	}
	return json.NewEncoder(w).Encode(out)
}
