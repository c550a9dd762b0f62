package server

import (
	"net/http"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
)

// notManager is Docker's own sentence, which tools look for.
func notManager() error {
	return errs.New(errs.Unavailable, "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.")
}

// unsupportedRoutes answer for what other parts of the product will serve.
func (s *Server) unsupportedRoutes() {
	answer := func(err error) handler {
		return func(http.ResponseWriter, *http.Request, types.Version) error { return err }
	}
	for _, p := range []string{"/swarm", "/swarm/", "/services", "/services/", "/nodes", "/nodes/", "/tasks", "/tasks/", "/secrets", "/secrets/",
		"/configs", "/configs/"} {
		s.handle(p, answer(notManager()))
	}
	s.handle("POST /swarm/init", answer(errs.New(errs.Unsupported, "swarm init: clusters are not supported yet")))
	s.handle("POST /swarm/join", answer(errs.New(errs.Unsupported, "swarm join: clusters are not supported yet")))
	s.handle("GET /plugins", func(w http.ResponseWriter, _ *http.Request, _ types.Version) error {
		return writeJSON(w, http.StatusOK, []string{})
	})
	s.handle("GET /plugins/{name}/json", func(_ http.ResponseWriter, r *http.Request, _ types.Version) error {
		return errs.New(errs.NotFound, "plugin %q not found", r.PathValue("name"))
	})
	s.handle("/plugins/", answer(errs.New(errs.Unsupported, "plug-ins are not supported yet")))
	for _, p := range []string{"/containers/{name}/checkpoints", "/containers/{name}/checkpoints/"} {
		s.handle(p, answer(errs.New(errs.Unsupported, "checkpoints are not supported yet")))
	}
	s.handle("POST /containers/{name}/copy", answer(errs.New(errs.Invalid, "POST /containers/{id}/copy was removed in API version 1.24; use GET /containers/{id}/archive")))
}
