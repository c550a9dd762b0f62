package server

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"

	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
)

// errNoRegistry is what pull, push, search and login answer while the daemon has no registry client.
func errNoRegistry(what string) error {
	return errs.New(errs.Unsupported, "%s is not supported yet: images arrive by \"load\", \"import\", \"commit\", and the built-in ones (hello, whoami, toolbox) are there from the start", what)
}

// registryAuth reads the X-Registry-Auth header: base64url of a JSON object; nil when there is none.
func registryAuth(r *http.Request) (*registry.AuthConfig, error) {
	header := r.Header.Get(registry.AuthHeader)
	if header == "" {
		return nil, nil
	}
	data, err := base64.URLEncoding.DecodeString(header)
	if err != nil {
		if data, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(header, "=")); err != nil {
			if data, err = base64.StdEncoding.DecodeString(header); err != nil {
				return nil, errs.New(errs.Invalid, "the header %s is not base64 of a JSON object", registry.AuthHeader)
			}
		}
	}
	var auth registry.AuthConfig
	if err := json.Unmarshal(data, &auth); err != nil {
		return nil, errs.New(errs.Invalid, "the header %s does not hold credentials as a JSON object", registry.AuthHeader) // the content is secret
	}
	if auth == (registry.AuthConfig{}) {
		return nil, nil
	}
	return &auth, nil
}

func (s *Server) registryRoutes() {
	s.handle("POST /auth", s.login)
	s.handle("GET /distribution/{rest...}", byLastPart(map[string]nameHandler{"json": s.distribution}))
}

func (s *Server) login(w http.ResponseWriter, r *http.Request, v types.Version) error {
	var auth registry.AuthConfig
	if err := decode(w, r, &auth, false); err != nil {
		return err
	}
	if s.b.Registry == nil {
		return errNoRegistry("login")
	}
	res, err := s.b.Registry.Login(r.Context(), auth)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, res)
}

func (s *Server) pull(w http.ResponseWriter, r *http.Request, q query) error {
	auth, err := registryAuth(r)
	if err != nil {
		return err
	}
	ref := imageRef(q.Values)
	if s.b.Registry == nil {
		if _, err := s.b.Images.Inspect(r.Context(), ref, ""); err != nil { // built-in images appear when they are asked for
			return errNoRegistry("pull of " + ref)
		}
		out := newProgress(w, false)
		out.message(oldMessage{Message: jsonstream.Message{Status: "Status: Image is here already: " + ref}})
		return out.end(nil)
	}
	want, err := platforms(q.Values["platform"])
	if err != nil {
		return err
	}
	out := newProgress(w, false)
	return out.end(s.b.Registry.Pull(r.Context(), ref, first(want), auth, out.layer))
}

func (s *Server) imagePush(w http.ResponseWriter, r *http.Request, v types.Version, name string) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	auth, err := registryAuth(r)
	if err != nil {
		return err
	}
	ref := joinTag(name, q.Get("tag"))
	if s.b.Registry == nil {
		return errNoRegistry("push of " + ref)
	}
	var platform []string
	if v >= 46 {
		if platform, err = platforms(q.Values["platform"]); err != nil {
			return err
		}
	}
	out := newProgress(w, false)
	return out.end(s.b.Registry.Push(r.Context(), ref, first(platform), auth, out.layer))
}

// distribution tells what a registry says of an image, without pulling it.
func (s *Server) distribution(w http.ResponseWriter, r *http.Request, _ types.Version, name string) error {
	auth, err := registryAuth(r)
	if err != nil {
		return err
	}
	if s.b.Registry == nil {
		return errNoRegistry("asking a registry about " + name)
	}
	res, err := s.b.Registry.Distribution(r.Context(), name, auth)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, res)
}

func (s *Server) imageSearch(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	if s.b.Registry == nil {
		return errNoRegistry("search")
	}
	f, err := q.filters("is-automated", "is-official", "stars")
	if err != nil {
		return err
	}
	limit, err := q.int("limit", 25)
	if err != nil {
		return err
	}
	auth, err := registryAuth(r)
	if err != nil {
		return err
	}
	list, err := s.b.Registry.Search(r.Context(), q.Get("term"), limit, f, auth)
	if err != nil {
		return err
	}
	if list == nil {
		list = []registry.SearchResult{}
	}
	return writeJSON(w, http.StatusOK, list)
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
