package server

import (
	"net/http"

	"github.com/moby/moby/api/types/volume"

	"github.com/shoalhq/shoal/api/convert"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

func (s *Server) volumeRoutes() {
	if s.b.Volumes == nil {
		s.handle("/volumes", func(http.ResponseWriter, *http.Request, types.Version) error { return missing("volumes") })
		s.handle("/volumes/", func(http.ResponseWriter, *http.Request, types.Version) error { return missing("volumes") })
		return
	}
	s.handle("GET /volumes", s.volumeList)
	s.handle("POST /volumes/create", s.volumeCreate)
	s.handle("POST /volumes/prune", s.volumePrune)
	s.handle("GET /volumes/{name}", s.volumeInspect)
	s.handle("DELETE /volumes/{name}", s.volumeRemove)
	s.volumeContentRoutes()
	s.handle("PUT /volumes/{name}", func(http.ResponseWriter, *http.Request, types.Version) error { return notManager() })
}

func (s *Server) volumeList(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	f, err := q.filters("dangling", "driver", "label", "name")
	if err != nil {
		return err
	}
	list, warnings, err := s.b.Volumes.List(r.Context(), f, false)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, volume.ListResponse{Volumes: volumes(list), Warnings: warnings})
}

func volumes(list []model.Volume) []volume.Volume {
	out := make([]volume.Volume, 0, len(list))
	for i := range list {
		out = append(out, convert.Volume(&list[i]))
	}
	return out
}

func (s *Server) volumeInspect(w http.ResponseWriter, r *http.Request, v types.Version) error {
	vol, err := s.b.Volumes.Inspect(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, convert.Volume(&vol))
}

func (s *Server) volumeCreate(w http.ResponseWriter, r *http.Request, v types.Version) error {
	var body volume.CreateRequest
	if err := decode(w, r, &body, false); err != nil {
		return err
	}
	want, err := convert.FromVolumeCreate(&body)
	if err != nil {
		return err
	}
	if want.Name != "" {
		if err := model.ValidateVolumeName(want.Name); err != nil {
			return err
		}
	}
	got, err := s.b.Volumes.Create(s.detached(), want)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, convert.Volume(&got))
}

func (s *Server) volumeRemove(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	err = s.b.Volumes.Remove(s.detached(), r.PathValue("name"), q.bool("force"))
	if err != nil && !(q.bool("force") && errs.Is(err, errs.NotFound)) {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// volumePrune removes unused anonymous volumes; named ones only with the filter all, or for clients before 1.42.
func (s *Server) volumePrune(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	f, err := q.filters("all", "label", "label!")
	if err != nil {
		return err
	}
	if v < 42 {
		if f == nil {
			f = model.Filters{}
		}
		f["all"] = []string{"true"}
	}
	rep, err := s.b.Volumes.Prune(r.Context(), f)
	if err != nil {
		return err
	}
	if rep.Deleted == nil {
		rep.Deleted = []string{}
	}
	s.pruned("volume", rep.Reclaimed)
	return writeJSON(w, http.StatusOK, volume.PruneReport{VolumesDeleted: rep.Deleted, SpaceReclaimed: uint64(max(rep.Reclaimed, 0))})
}
