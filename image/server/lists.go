package server

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// maxPage is how many names one answer lists at most.
const maxPage = 1000

func writeJSON(w http.ResponseWriter, r *http.Request, mediaType string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	if r.Method != http.MethodHead {
		w.Write(data)
	}
	return nil
}

// paging reads n and last.
func paging(r *http.Request) (n int, last string, err error) {
	n = maxPage
	if text := r.URL.Query().Get("n"); text != "" {
		if n, err = strconv.Atoi(text); err != nil || n < 0 {
			return 0, "", bad(http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "n must be a number from 0")
		}
	}
	return min(n, maxPage), r.URL.Query().Get("last"), nil
}

// linkNext points to the rest of a list.
func linkNext(w http.ResponseWriter, r *http.Request, names []string, more bool, n int) {
	if !more || len(names) == 0 {
		return
	}
	q := url.Values{"n": {strconv.Itoa(n)}, "last": {names[len(names)-1]}}
	w.Header().Set("Link", "<"+r.URL.EscapedPath()+"?"+q.Encode()+`>; rel="next"`)
}

func (s *Server) tags(w http.ResponseWriter, r *http.Request, name string) error {
	n, last, err := paging(r)
	if err != nil {
		return err
	}
	var list []string
	var more bool
	err = s.book.db.View(func(tx *bolt.Tx) error {
		repo := find(tx, name)
		if repo == nil {
			return nameUnknown(name)
		}
		list, more = page(repo.Bucket.Bucket(bucketTags), last, n)
		return nil
	})
	if err != nil {
		return err
	}
	linkNext(w, r, list, more, n)
	return writeJSON(w, r, "application/json", struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{name, list})
}

func (s *Server) catalog(w http.ResponseWriter, r *http.Request) error {
	n, last, err := paging(r)
	if err != nil {
		return err
	}
	var list []string
	var more bool
	err = s.book.db.View(func(tx *bolt.Tx) error {
		list, more = page(tx.Bucket(bucketRepos), last, n)
		return nil
	})
	if err != nil {
		return err
	}
	linkNext(w, r, list, more, n)
	return writeJSON(w, r, "application/json", map[string][]string{"repositories": list})
}

// referrers lists what names the digest as its subject: signatures, bills of materials. A digest that is not here has none.
func (s *Server) referrers(w http.ResponseWriter, r *http.Request, name, ref string) error {
	subject, err := parseDigest(ref)
	if err != nil {
		return err
	}
	list := []ocispec.Descriptor{}
	err = s.book.db.View(func(tx *bolt.Tx) error {
		if repo := find(tx, name); repo != nil {
			list = repo.referrers(subject)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if want := r.URL.Query().Get("artifactType"); want != "" {
		kept := []ocispec.Descriptor{}
		for _, d := range list {
			if d.ArtifactType == want {
				kept = append(kept, d)
			}
		}
		list = kept
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: list}
	index.SchemaVersion = 2
	return writeJSON(w, r, ocispec.MediaTypeImageIndex, index)
}
