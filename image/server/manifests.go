package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// maxManifest is how large a manifest may be: what the specification asks registries to take at least.
const maxManifest = 4 << 20

func (s *Server) manifest(w http.ResponseWriter, r *http.Request, name, ref string) error {
	if !strings.Contains(ref, ":") && !tagOK.MatchString(ref) {
		return manifestUnknown(ref)
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return s.sendManifest(w, r, name, ref)
	case http.MethodPut:
		return s.putManifest(w, r, name, ref)
	case http.MethodDelete:
		return s.deleteManifest(w, name, ref)
	}
	return notAllowed()
}

// lookup finds a manifest by tag or digest.
func (s *Server) lookup(name, ref string) (d digest.Digest, m manifestRecord, err error) {
	err = s.book.db.View(func(tx *bolt.Tx) error {
		repo := find(tx, name)
		if repo == nil {
			return manifestUnknown(ref)
		}
		d = digest.Digest(ref)
		if !strings.Contains(ref, ":") {
			d = repo.tag(ref)
		}
		var ok bool
		if m, ok = repo.manifest(d); !ok {
			return manifestUnknown(ref)
		}
		return nil
	})
	return d, m, err
}

func (s *Server) sendManifest(w http.ResponseWriter, r *http.Request, name, ref string) error {
	if s.cfg.Upstream != nil {
		if err := s.bringManifest(r.Context(), name, ref); err != nil {
			return err
		}
	}
	d, m, err := s.lookup(name, ref)
	if err != nil {
		return err
	}
	ctx, blobs, err := s.content(r.Context())
	if err != nil {
		return err
	}
	data, err := content.ReadBlob(ctx, blobs, ocispec.Descriptor{Digest: d, Size: m.Size})
	if errdefs.IsNotFound(err) {
		return manifestUnknown(ref)
	}
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", m.MediaType)
	h.Set("Docker-Content-Digest", d.String())
	h.Set("ETag", `"`+d.String()+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	return nil
}

// document is any manifest that the specification knows.
type document struct {
	MediaType    string               `json:"mediaType"`
	ArtifactType string               `json:"artifactType"`
	Config       *ocispec.Descriptor  `json:"config"`
	Layers       []ocispec.Descriptor `json:"layers"`
	Manifests    []ocispec.Descriptor `json:"manifests"`
	Subject      *ocispec.Descriptor  `json:"subject"`
	Annotations  map[string]string    `json:"annotations"`
}

// readManifest makes the book's record of a manifest.
func readManifest(data []byte, mediaType string) (manifestRecord, error) {
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return manifestRecord{}, bad(http.StatusBadRequest, "MANIFEST_INVALID", "not a JSON document: "+err.Error())
	}
	if mediaType == "" {
		mediaType = doc.MediaType
	}
	if mediaType == "" {
		mediaType = ocispec.MediaTypeImageManifest
		if doc.Manifests != nil {
			mediaType = ocispec.MediaTypeImageIndex
		}
	}
	if doc.MediaType != "" && doc.MediaType != mediaType {
		return manifestRecord{}, bad(http.StatusBadRequest, "MANIFEST_INVALID", "the document says it is "+doc.MediaType+", the request says "+mediaType)
	}
	if !images.IsManifestType(mediaType) && !images.IsIndexType(mediaType) {
		return manifestRecord{}, bad(http.StatusBadRequest, "MANIFEST_INVALID", "media type "+mediaType+" is neither a manifest's nor an index's")
	}
	m := manifestRecord{MediaType: mediaType, Size: int64(len(data)), ArtifactType: doc.ArtifactType, Annotations: doc.Annotations}
	if m.ArtifactType == "" && doc.Config != nil {
		m.ArtifactType = doc.Config.MediaType
	}
	if doc.Config != nil {
		m.Blobs = append(m.Blobs, slim(*doc.Config))
	}
	for _, l := range doc.Layers {
		m.Blobs = append(m.Blobs, slim(l))
	}
	for _, l := range doc.Manifests {
		m.Manifests = append(m.Manifests, slim(l))
	}
	if doc.Subject != nil {
		m.Subject = doc.Subject.Digest
		if _, err := parseDigest(m.Subject.String()); err != nil {
			return m, err
		}
	}
	for _, d := range append(append([]ocispec.Descriptor(nil), m.Blobs...), m.Manifests...) {
		if d.Digest.Validate() != nil || d.Size < 0 {
			return m, bad(http.StatusBadRequest, "MANIFEST_INVALID", "the manifest names "+d.Digest.String()+", which is no sound descriptor")
		}
	}
	return m, nil
}

func slim(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

func (s *Server) putManifest(w http.ResponseWriter, r *http.Request, name, ref string) error {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxManifest))
	if err != nil {
		return bad(http.StatusRequestEntityTooLarge, "SIZE_INVALID", "a manifest may have 4 MiB at most")
	}
	mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	m, err := readManifest(data, mediaType)
	if err != nil {
		return err
	}
	d, tag := digest.FromBytes(data), ref
	text := r.URL.Query().Get("digest") // of a manifest with a tag, by which algorithm it is to be known
	if strings.Contains(ref, ":") {
		text, tag = ref, ""
	}
	if text != "" {
		want, err := parseDigest(text)
		if err != nil {
			return err
		}
		if d = want.Algorithm().FromBytes(data); want != d {
			return digestInvalid("the manifest has the digest " + d.String())
		}
	}
	s.gate.RLock()
	defer s.gate.RUnlock()
	if err := s.complete(name, m); err != nil {
		return err
	}
	if err := s.enter(r.Context(), name, d, m, data, tag); err != nil {
		return err
	}
	if m.Subject != "" {
		w.Header().Set("OCI-Subject", m.Subject.String())
	}
	created(w, "/v2/"+name+"/manifests/"+ref, d)
	return nil
}

// complete wants everything that a manifest names to be in the repository, except what may not be passed on.
func (s *Server) complete(name string, m manifestRecord) error {
	return s.book.db.View(func(tx *bolt.Tx) error {
		repo := find(tx, name)
		for _, b := range m.Blobs {
			if (repo == nil || !repo.hasBlob(b.Digest)) && !images.IsNonDistributable(b.MediaType) {
				return bad(http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", "the manifest names blob "+b.Digest.String()+", which is not in this repository; push it first")
			}
		}
		for _, c := range m.Manifests {
			if repo == nil || !repo.has(c.Digest) {
				return bad(http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", "the index names manifest "+c.Digest.String()+", which is not in this repository; push it first")
			}
		}
		return nil
	})
}

// enter writes the manifest and then the book.
func (s *Server) enter(ctx context.Context, name string, d digest.Digest, m manifestRecord, data []byte, tag string) error {
	ctx, blobs, err := s.content(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	desc := ocispec.Descriptor{MediaType: m.MediaType, Digest: d, Size: m.Size}
	if data != nil {
		if err := content.WriteBlob(ctx, blobs, "registry-manifest-"+d.Encoded(), bytes.NewReader(data), desc); err != nil {
			return err
		}
	}
	if err := s.cfg.Store.KeepToo(ctx, owner, d); err != nil { // it may have been there without our lease
		return err
	}
	return s.book.db.Update(func(tx *bolt.Tx) error {
		repo, err := findOrMake(tx, name)
		if err != nil {
			return err
		}
		return repo.putManifest(d, m, tag)
	})
}

// deleteManifest takes a tag away, or by digest the manifest with all its tags.
func (s *Server) deleteManifest(w http.ResponseWriter, name, ref string) error {
	err := s.book.db.Update(func(tx *bolt.Tx) error {
		repo := find(tx, name)
		if repo == nil {
			return nameUnknown(name)
		}
		if !strings.Contains(ref, ":") {
			if repo.tag(ref) == "" {
				return manifestUnknown(ref)
			}
			return repo.Bucket.Bucket(bucketTags).Delete([]byte(ref))
		}
		d, err := parseDigest(ref)
		if err != nil {
			return err
		}
		m, ok := repo.manifest(d)
		if !ok {
			return manifestUnknown(ref)
		}
		return repo.dropManifest(d, m)
	})
	if err != nil {
		return err
	}
	s.sweepSoon()
	w.WriteHeader(http.StatusAccepted)
	return nil
}
