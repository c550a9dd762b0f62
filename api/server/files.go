package server

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"

	"github.com/moby/moby/api/types/common"
	"github.com/moby/moby/api/types/container"

	"github.com/shoalhq/shoal/api/convert"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

func (s *Server) fileRoutes() {
	if s.b.Files == nil {
		return
	}
	s.handle("GET /containers/{name}/changes", s.changes)
	s.handle("GET /containers/{name}/export", s.export)
	s.handle("HEAD /containers/{name}/archive", s.archiveHead)
	s.handle("GET /containers/{name}/archive", s.archiveGet)
	s.handle("PUT /containers/{name}/archive", s.archivePut)
	s.handle("POST /commit", s.commit)
}

func (s *Server) changes(w http.ResponseWriter, r *http.Request, v types.Version) error {
	list, err := s.b.Files.Changes(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	out := make([]container.FilesystemChange, 0, len(list))
	for _, c := range list {
		out = append(out, container.FilesystemChange{Path: c.Path, Kind: container.ChangeType(c.Kind)})
	}
	return writeJSON(w, http.StatusOK, out)
}

func (s *Server) export(w http.ResponseWriter, r *http.Request, v types.Version) error {
	w.Header().Set("Content-Type", "application/octet-stream")
	return s.streamed(w, s.b.Files.Export(r.Context(), r.PathValue("name"), w))
}

// archivePath reads the path parameter.
func archivePath(r *http.Request) (string, error) {
	q, err := parseQuery(r)
	if err != nil {
		return "", err
	}
	if q.Get("path") == "" {
		return "", errs.New(errs.Invalid, "the path within the container is missing; give ?path=")
	}
	return q.Get("path"), nil
}

// statHeader is the value of X-Docker-Container-Path-Stat: base64 of a JSON object.
func statHeader(st *model.PathStat) (string, error) {
	data, err := json.Marshal(container.PathStat{Name: st.Name, Size: st.Size, Mode: st.Mode, Mtime: st.Mtime, LinkTarget: st.LinkTarget})
	return base64.StdEncoding.EncodeToString(data), err
}

func setStat(w http.ResponseWriter, st *model.PathStat) error {
	value, err := statHeader(st)
	if err == nil {
		w.Header().Set("X-Docker-Container-Path-Stat", value)
	}
	return err
}

func (s *Server) archiveHead(w http.ResponseWriter, r *http.Request, v types.Version) error {
	path, err := archivePath(r)
	if err != nil {
		return err
	}
	st, err := s.b.Files.StatPath(r.Context(), r.PathValue("name"), path)
	if err != nil {
		return err
	}
	if err := setStat(w, &st); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) archiveGet(w http.ResponseWriter, r *http.Request, v types.Version) error {
	path, err := archivePath(r)
	if err != nil {
		return err
	}
	tar, st, err := s.b.Files.CopyFrom(r.Context(), r.PathValue("name"), path)
	if err != nil {
		return err
	}
	defer tar.Close()
	if err := setStat(w, &st); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	_, err = io.Copy(w, tar)
	return s.streamed(w, err)
}

// streamed ends an answer that was written while it was made. When that failed midway the connection is cut, because the
// client could not tell a truncated archive from a whole one otherwise.
func (s *Server) streamed(w http.ResponseWriter, err error) error {
	if err != nil && w.(*response).begun() {
		s.log.Warn("an archive ended early", "error", err)
		panic(http.ErrAbortHandler)
	}
	return err
}

func (s *Server) archivePut(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	path, err := archivePath(r)
	if err != nil {
		return err
	}
	err = s.b.Files.CopyTo(r.Context(), r.PathValue("name"), path, r.Body, q.bool("noOverwriteDirNonDir"), v >= 30 && q.bool("copyUIDGID"))
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) commit(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	c := model.CommitRequest{Container: q.Get("container"), Repo: q.Get("repo"), Tag: q.Get("tag"), Author: q.Get("author"),
		Comment: q.Get("comment"), Changes: q.Values["changes"], Pause: q.boolDefault("pause", true)}
	var body *container.Config
	if err := decode(w, r, &body, true); err != nil {
		return err
	}
	if c.Container == "" {
		return errs.New(errs.Invalid, "the container to commit is missing; give ?container=")
	}
	if body != nil {
		spec, err := convert.Spec(body, nil, nil)
		if err != nil {
			return err
		}
		c.Config = &spec
	}
	id, err := s.b.Files.Commit(r.Context(), c)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, common.IDResponse{ID: id})
}
