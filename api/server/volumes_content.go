package server

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// VolumeContent is what Volumes may do in addition: it takes the whole content of volumes out and puts it in. With pause
// the containers that run with the volume stand still meanwhile. Progress is told how many bytes were copied since the
// last call. A volume that is made is whole when it is to be seen, or it is not made.
type VolumeContent interface {
	// Backup writes a tar archive.
	Backup(ctx context.Context, name string, pause bool, w io.Writer) error
	// BackupImage makes an image and returns its ID.
	BackupImage(ctx context.Context, name string, pause bool, ref string, progress func(bytes int64)) (string, error)
	// Restore makes the volume, or with replace changes the content of one that no container runs with.
	Restore(ctx context.Context, want model.Volume, replace bool, archive io.Reader) (model.Volume, error)
	RestoreImage(ctx context.Context, want model.Volume, replace bool, ref string, progress func(bytes int64)) (model.Volume, error)
	Clone(ctx context.Context, from string, want model.Volume, pause bool, progress func(bytes int64)) (model.Volume, error)
}

// volumeContentRoutes are additions to Docker's API:
//
//	GET  /shoal/volumes/{name}/backup?pause=           a tar archive
//	POST /shoal/volumes/{name}/backup?image=&pause=    to an image
//	POST /shoal/volumes/{name}/restore?replace=&label=&image=   from the body, or from the image
//	POST /shoal/volumes/{name}/clone?to=&label=&pause=
//
// Answers of POST are progress messages; the last has the name or ID of what was made in its field aux.
func (s *Server) volumeContentRoutes() {
	c, ok := s.b.Volumes.(VolumeContent)
	if !ok {
		return
	}
	s.handle("GET /shoal/volumes/{name}/backup", func(w http.ResponseWriter, r *http.Request, _ types.Version) error {
		q, err := parseQuery(r)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/x-tar")
		return s.streamed(w, c.Backup(r.Context(), r.PathValue("name"), q.bool("pause"), w))
	})
	s.volumeWork("backup", func(r *http.Request, q query, p *progress) (string, error) {
		if q.Get("image") == "" {
			return "", errs.New(errs.Invalid, "back up volume %s to an image: name the image with image=, or use GET for an archive", r.PathValue("name"))
		}
		return c.BackupImage(r.Context(), r.PathValue("name"), q.bool("pause"), q.Get("image"), copied(p))
	})
	s.volumeWork("restore", func(r *http.Request, q query, p *progress) (string, error) {
		want, err := wantedVolume(r.PathValue("name"), q)
		if err != nil {
			return "", err
		}
		var vol model.Volume
		if ref := q.Get("image"); ref != "" {
			vol, err = c.RestoreImage(r.Context(), want, q.bool("replace"), ref, copied(p))
		} else {
			vol, err = c.Restore(r.Context(), want, q.bool("replace"), r.Body)
		}
		return vol.Name, err
	})
	s.volumeWork("clone", func(r *http.Request, q query, p *progress) (string, error) {
		want, err := wantedVolume(q.Get("to"), q)
		if err != nil {
			return "", err
		}
		vol, err := c.Clone(r.Context(), r.PathValue("name"), want, q.bool("pause"), copied(p))
		return vol.Name, err
	})
}

// volumeWork registers work that takes long enough to tell how far it is.
func (s *Server) volumeWork(verb string, do func(r *http.Request, q query, p *progress) (string, error)) {
	s.handle("POST /shoal/volumes/{name}/"+verb, func(w http.ResponseWriter, r *http.Request, _ types.Version) error {
		q, err := parseQuery(r)
		if err != nil {
			return err
		}
		out := newProgress(w, false)
		made, err := do(r, q, out)
		if err == nil {
			out.message(map[string]any{"aux": map[string]string{"ID": made}})
		}
		return out.end(err)
	})
}

// copied shows how many bytes were copied so far.
func copied(p *progress) func(int64) {
	sum := int64(0)
	return func(n int64) {
		sum += n
		p.layer(model.ImageProgress{ID: "content", Action: "Copying", Current: sum})
	}
}

func wantedVolume(name string, q query) (model.Volume, error) {
	want := model.Volume{Name: name}
	if err := model.ValidateVolumeName(name); err != nil {
		return want, err
	}
	for _, l := range q.Values["label"] {
		key, value, _ := strings.Cut(l, "=")
		if key == "" {
			return want, errs.New(errs.Invalid, "label %q has no name; use NAME=VALUE", l)
		}
		if want.Labels == nil {
			want.Labels = map[string]string{}
		}
		want.Labels[key] = value
	}
	return want, nil
}
