package server

import (
	"net/http"
	"os"
	"runtime"
	"time"

	"github.com/moby/moby/api/types/system"

	"github.com/shoalhq/shoal/api/convert"
	"github.com/shoalhq/shoal/api/types"
)

func (s *Server) systemRoutes() {
	s.handle("GET /_ping", s.ping)
	s.handle("GET /version", s.version)
	s.handle("GET /events", s.events)
	s.handle("GET /info", s.info)
	s.handle("GET /system/df", s.diskUsage)
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

// info is the room's report with what the server itself knows.
func (s *Server) info(w http.ResponseWriter, r *http.Request, v types.Version) error {
	var out system.Info
	if s.b.System != nil {
		var err error
		if out, err = s.b.System.Info(r.Context()); err != nil {
			return err
		}
	}
	if s.b.Containers != nil {
		running, paused, stopped := s.b.Containers.Counts()
		out.ContainersRunning, out.ContainersPaused, out.ContainersStopped = running, paused, stopped
		out.Containers = running + paused + stopped
	}
	out.SystemTime = s.clock.Now().UTC().Format(time.RFC3339Nano)
	out.NGoroutines, out.NFd = runtime.NumGoroutine(), openFiles()
	out.OSType, out.ServerVersion, out.ExperimentalBuild = "linux", s.cfg.Version, s.cfg.Experimental
	if out.Swarm.LocalNodeState == "" {
		out.Swarm.LocalNodeState = "inactive"
	}
	if out.Warnings == nil {
		out.Warnings = []string{}
	}
	return writeJSON(w, http.StatusOK, convert.Info(out, v))
}

func openFiles() int {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return -1
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return -1
	}
	return len(names) - 1 // without d
}
