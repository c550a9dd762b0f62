package server

import (
	"net/http"
	"runtime"

	"github.com/moby/moby/api/types/system"

	"github.com/shoalhq/shoal/api/types"
)

func (s *Server) systemRoutes() {
	s.handle("GET /_ping", s.ping)
	s.handle("GET /version", s.version)
}

// ping answers that the API is there; its headers tell clients what to negotiate.
func (s *Server) ping(w http.ResponseWriter, r *http.Request, v types.Version) error {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Builder-Version", "2")
	swarm := "inactive"
	if s.cfg.SwarmState != nil {
		swarm = s.cfg.SwarmState()
	}
	h.Set("Swarm", swarm)
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	_, err := w.Write([]byte("OK"))
	return err
}

func (s *Server) version(w http.ResponseWriter, r *http.Request, v types.Version) error {
	out := system.VersionResponse{Version: s.cfg.Version, GoVersion: runtime.Version()}
	if s.b.System != nil {
		var err error
		if out, err = s.b.System.Version(r.Context()); err != nil {
			return err
		}
	}
	out.APIVersion, out.MinAPIVersion = types.MaxVersion.String(), types.MinVersion.String()
	out.Os, out.Arch = "linux", runtime.GOARCH
	out.Experimental = s.cfg.Experimental
	if len(out.Components) == 0 {
		out.Components = []system.ComponentVersion{{Name: "Engine", Version: out.Version, Details: map[string]string{
			"ApiVersion": out.APIVersion, "MinAPIVersion": out.MinAPIVersion, "GitCommit": out.GitCommit, "GoVersion": out.GoVersion,
			"Os": out.Os, "Arch": out.Arch, "KernelVersion": out.KernelVersion, "BuildTime": out.BuildTime,
			"Experimental": boolText(out.Experimental)}}}
	}
	if v < 25 {
		out.MinAPIVersion = ""
	}
	if v < 35 {
		out.Platform, out.Components = system.PlatformInfo{}, nil
	}
	return writeJSON(w, http.StatusOK, out)
}
