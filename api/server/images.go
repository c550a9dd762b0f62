package server

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/api/convert"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

func (s *Server) imageRoutes() {
	if s.b.Images == nil {
		s.handle("/images/", func(http.ResponseWriter, *http.Request, types.Version) error { return missing("images") })
		return
	}
	s.handle("GET /images/json", s.imageList)
	s.handle("POST /images/prune", s.imagePrune)
	s.handle("POST /images/create", s.imageCreate)
	s.handle("POST /images/load", s.imageLoad)
	s.handle("GET /images/get", s.imageSave)
	s.handle("GET /images/search", s.imageSearch)
	s.handle("DELETE /images/{name...}", s.imageRemove)
	// Names of images hold slashes, so the last part of the path says what is asked.
	s.handle("GET /images/{rest...}", byLastPart(map[string]nameHandler{
		"json": s.imageInspect, "history": s.imageHistory, "get": s.imageSaveOne, "attestations": noAttestations}))
	s.handle("POST /images/{rest...}", byLastPart(map[string]nameHandler{"tag": s.imageTag, "push": s.imagePush}))
}

// nameHandler answers a request about one image.
type nameHandler func(w http.ResponseWriter, r *http.Request, v types.Version, name string) error

func byLastPart(verbs map[string]nameHandler) handler {
	return func(w http.ResponseWriter, r *http.Request, v types.Version) error {
		rest := r.PathValue("rest")
		i := strings.LastIndexByte(rest, '/')
		if i > 0 {
			if h := verbs[rest[i+1:]]; h != nil {
				return h(w, r, v, rest[:i])
			}
		}
		return errs.New(errs.NotFound, "page not found: the API has no %s %s", r.Method, r.URL.Path)
	}
}

var imageFilters = []string{"before", "dangling", "label", "label!", "reference", "since", "until"}

func (s *Server) imageList(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	f, err := q.filters(imageFilters...)
	if err != nil {
		return err
	}
	if name := q.Get("filter"); name != "" && v < 41 {
		if f == nil {
			f = model.Filters{}
		}
		f["reference"] = append(f["reference"], name)
	}
	if v >= 54 && q.bool("identity") && !q.bool("manifests") {
		return errs.New(errs.Invalid, "identity requires manifests=1")
	}
	list, err := s.b.Images.List(r.Context(), f, v >= 42 && q.bool("shared-size"))
	if err != nil {
		return err
	}
	out := make([]any, 0, len(list))
	for i := range list {
		if v >= 47 && q.bool("manifests") {
			if list[i].Manifests, err = s.b.Images.Manifests(r.Context(), list[i].ID); err != nil {
				return err
			}
		}
		out = append(out, convert.ImageSummary(&list[i], v))
	}
	return writeJSON(w, http.StatusOK, out)
}

func (s *Server) imageInspect(w http.ResponseWriter, r *http.Request, v types.Version, name string) error {
	img, err := s.image(r, name, v >= 49)
	if err != nil {
		return err
	}
	var manifests []model.ImageManifest
	if q, err := parseQuery(r); err != nil {
		return err
	} else if v >= 48 && q.bool("manifests") {
		if q.Get("platform") != "" {
			return errs.New(errs.Invalid, "conflicting options: manifests and platform options cannot both be set")
		}
		if manifests, err = s.b.Images.Manifests(r.Context(), name); err != nil {
			return err
		}
	}
	onePlatform := v >= 49 && r.URL.Query().Has("platform")
	return writeJSON(w, http.StatusOK, convert.ImageInspect(&img, manifests, onePlatform, v))
}

func (s *Server) imageHistory(w http.ResponseWriter, r *http.Request, v types.Version, name string) error {
	img, err := s.image(r, name, v >= 48)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, convert.ImageHistory(&img))
}

// image finds an image, for the platform asked for where the version has that parameter.
func (s *Server) image(r *http.Request, name string, hasPlatform bool) (model.Image, error) {
	if !hasPlatform {
		return s.b.Images.Inspect(r.Context(), name, "")
	}
	want, err := platforms(r.URL.Query()["platform"])
	if err != nil {
		return model.Image{}, err
	}
	if len(want) == 0 {
		want = []string{""}
	}
	return s.b.Images.Inspect(r.Context(), name, want[0])
}

func (s *Server) imageTag(w http.ResponseWriter, r *http.Request, v types.Version, name string) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	target := joinTag(q.Get("repo"), q.Get("tag"))
	if target == "" {
		return errs.New(errs.Invalid, "tag image %s: the new name is missing; give ?repo= and ?tag=", name)
	}
	if err := s.b.Images.Tag(s.detached(), name, target); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// joinTag makes a reference of a repository and a tag or digest.
func joinTag(repo, tag string) string {
	switch {
	case repo == "" || tag == "":
		return repo
	case strings.Contains(tag, ":"):
		return repo + "@" + tag
	}
	return repo + ":" + tag
}

func (s *Server) imageRemove(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	o := model.ImageRemoveOptions{Force: q.bool("force"), NoPrune: q.bool("noprune")}
	if v >= 50 {
		if o.Platforms, err = platforms(q.Values["platforms"]); err != nil {
			return err
		}
	}
	list, err := s.b.Images.Remove(s.detached(), r.PathValue("name"), o)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, convert.ImageDeletions(list))
}

func (s *Server) imagePrune(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	f, err := q.filters("dangling", "label", "label!", "until")
	if err != nil {
		return err
	}
	rep, err := s.b.Images.Prune(r.Context(), f)
	if err != nil {
		return err
	}
	s.pruned("image", rep.Reclaimed)
	return writeJSON(w, http.StatusOK, image.PruneReport{ImagesDeleted: convert.ImageDeletions(rep.Deleted), SpaceReclaimed: uint64(max(rep.Reclaimed, 0))})
}

// platforms reads the platform parameters: JSON objects, or os/arch as older clients write it. The result is os/arch[/variant].
func platforms(values []string) ([]string, error) {
	var out []string
	for _, p := range values {
		if strings.HasPrefix(strings.TrimSpace(p), "{") {
			var oci ocispec.Platform
			if err := decodeJSON([]byte(p), &oci); err != nil {
				return nil, errs.Wrap(err, "platform")
			}
			p = model.Platform{OS: oci.OS, Architecture: oci.Architecture, Variant: oci.Variant}.String()
		}
		if p = strings.Trim(p, "/"); p != "" && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out, nil
}

// importPlatform reads os[/arch[/variant]].
func importPlatform(s string) model.Platform {
	var p model.Platform
	parts := strings.SplitN(s, "/", 3)
	for i, to := range []*string{&p.OS, &p.Architecture, &p.Variant} {
		if i < len(parts) {
			*to = parts[i]
		}
	}
	return p
}

func (s *Server) imageSaveOne(w http.ResponseWriter, r *http.Request, v types.Version, name string) error {
	return s.save(w, r, []string{name})
}

func (s *Server) imageSave(w http.ResponseWriter, r *http.Request, v types.Version) error {
	return s.save(w, r, r.URL.Query()["names"])
}

func (s *Server) save(w http.ResponseWriter, r *http.Request, names []string) error {
	if s.b.Transfer == nil {
		return missing("image archives")
	}
	want, err := platforms(r.URL.Query()["platform"])
	if err != nil {
		return err
	}
	for _, n := range names { // an error is better told before the archive begins
		if _, err := s.b.Images.Inspect(r.Context(), n, ""); err != nil && !errs.Is(err, errs.NotFound) { // it may be a repository without :latest
			return err
		}
	}
	w.Header().Set("Content-Type", "application/x-tar")
	return s.streamed(w, s.b.Transfer.Save(r.Context(), names, want, w))
}

func (s *Server) imageLoad(w http.ResponseWriter, r *http.Request, v types.Version) error {
	if s.b.Transfer == nil {
		return missing("image archives")
	}
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	want, err := platforms(q.Values["platform"])
	if err != nil {
		return err
	}
	out := newProgress(w, q.boolDefault("quiet", true))
	return out.end(s.b.Transfer.Load(r.Context(), r.Body, want, out.load))
}

// imageCreate imports an archive (fromSrc) or pulls (fromImage).
func (s *Server) imageCreate(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	if q.Get("fromImage") != "" {
		return s.pull(w, r, q)
	}
	src := q.Get("fromSrc")
	switch {
	case src == "":
		return errs.New(errs.Invalid, "neither fromImage (pull) nor fromSrc (import) is given; give one of them")
	case s.b.Transfer == nil || src != "-" && s.b.Registry == nil:
		return missing("image archives")
	}
	out := newProgress(w, false)
	from := io.Reader(r.Body)
	if src != "-" {
		content, size, err := s.b.Registry.Download(r.Context(), src)
		if err != nil {
			return err
		}
		defer content.Close()
		out.message(map[string]any{"status": "Downloading from " + src})
		from = &counted{Reader: content, tell: func(n int64) { out.layer(model.ImageProgress{Action: "Importing", Current: n, Total: max(size, 0)}) }}
	}
	i := model.ImageImport{Ref: joinTag(q.Get("repo"), q.Get("tag")), Message: q.Get("message"), Changes: q.Values["changes"],
		Platform: importPlatform(q.Get("platform"))}
	id, err := s.b.Transfer.Import(r.Context(), from, i)
	if err == nil {
		out.message(map[string]any{"status": id})
	}
	return out.end(err)
}

// counted tells how much was read.
type counted struct {
	io.Reader
	n    int64
	tell func(n int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	c.tell(c.n)
	return n, err
}

func noAttestations(w http.ResponseWriter, r *http.Request, v types.Version, name string) error {
	return writeJSON(w, http.StatusOK, []json.RawMessage{})
}

// imageRef joins the query's fromImage and tag.
func imageRef(q url.Values) string { return joinTag(q.Get("fromImage"), q.Get("tag")) }
