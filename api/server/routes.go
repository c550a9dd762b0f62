package server

import (
	"context"
	"net/http"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
)

type ctx = context.Context

// routes registers everything.
func (s *Server) routes() {
	s.handle("/", func(_ http.ResponseWriter, r *http.Request, _ types.Version) error {
		return errs.New(errs.NotFound, "page not found: the API has no %s %s", r.Method, r.URL.Path)
	})
	s.systemRoutes()
	s.containerRoutes()
	s.streamRoutes()
	s.execRoutes()
	s.fileRoutes()
	s.imageRoutes()
	s.registryRoutes()
	s.networkRoutes()
	s.volumeRoutes()
	s.buildRoutes()
	s.unsupportedRoutes()
}
