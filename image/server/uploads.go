package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
)

const (
	maxUploads   = 1000            // at once
	idleUpload   = time.Hour       // an upload of which nothing is heard ends
	stallUpload  = 2 * time.Minute // a client that sends nothing for so long in the middle of a request is cut off
	keepFree     = 128 << 20       // bytes of disk that an upload leaves
	checkEvery   = 16 << 20        // bytes between two looks at the disk
	uploadPrefix = "registry-upload-"
)

// upload is one blob that is arriving. Its lock is held by the request that writes.
type upload struct {
	mu     sync.Mutex
	id     string
	repo   string
	ctx    context.Context
	w      content.Writer // nil: opened when next needed
	offset int64
	stop   func() bool // the timer of the idle upload
}

// ref names the ingest. The repository is part of it, so that an upload is found again after a restart, but only there.
func (u *upload) ref() string {
	return uploadPrefix + u.id + "-" + digest.FromString(u.repo).Encoded()[:16]
}

// pause closes the file; the ingest stays.
func (u *upload) pause() {
	u.stop()
	if u.mu.TryLock() {
		defer u.mu.Unlock()
		if u.w != nil {
			u.w.Close()
			u.w = nil
		}
	}
}

func (s *Server) upload(w http.ResponseWriter, r *http.Request, name, id string) error {
	if id == "" {
		if r.Method != http.MethodPost {
			return notAllowed()
		}
		return s.startUpload(w, r, name)
	}
	u, err := s.findUpload(r.Context(), name, id)
	if err != nil {
		return err
	}
	if !u.mu.TryLock() {
		return bad(http.StatusConflict, "BLOB_UPLOAD_INVALID", "another request writes to this upload")
	}
	defer u.mu.Unlock()
	switch r.Method {
	case http.MethodGet:
		s.located(w, u, http.StatusNoContent)
		return nil
	case http.MethodPatch:
		if err := s.receive(w, r, u); err != nil {
			return err
		}
		s.located(w, u, http.StatusAccepted)
		return nil
	case http.MethodPut:
		return s.finishUpload(w, r, u)
	case http.MethodDelete:
		s.dropUpload(u)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return notAllowed()
}

// located tells where the upload goes on and how far it is.
func (s *Server) located(w http.ResponseWriter, u *upload, status int) {
	h := w.Header()
	h.Set("Location", "/v2/"+u.repo+"/blobs/uploads/"+u.id)
	h.Set("Docker-Upload-UUID", u.id)
	h.Set("Range", fmt.Sprintf("0-%d", max(0, u.offset-1)))
	h.Set("Content-Length", "0")
	w.WriteHeader(status)
}

func created(w http.ResponseWriter, location string, d digest.Digest) {
	w.Header().Set("Location", location)
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
}

// startUpload begins an upload, or makes it needless by a mount, or takes the whole blob at once.
func (s *Server) startUpload(w http.ResponseWriter, r *http.Request, name string) error {
	q := r.URL.Query()
	if m := q.Get("mount"); m != "" {
		d, err := parseDigest(m)
		if err != nil {
			return err
		}
		if ok, err := s.mount(r.Context(), name, q.Get("from"), d); err != nil {
			return err
		} else if ok {
			created(w, "/v2/"+name+"/blobs/"+m, d)
			return nil
		}
	}
	if text := q.Get("digest"); text != "" {
		if _, err := parseDigest(text); err != nil { // before anything is written
			return err
		}
	}
	ctx, _, err := s.content(context.WithoutCancel(r.Context()))
	if err != nil {
		return err
	}
	u := &upload{id: ids.New(), repo: name, ctx: ctx}
	u.mu.Lock()
	defer u.mu.Unlock()
	s.mu.Lock()
	if len(s.uploads) >= maxUploads {
		s.mu.Unlock()
		return bad(http.StatusTooManyRequests, "TOOMANYREQUESTS", "too many uploads are under way; try again later")
	}
	s.uploads[u.id] = u
	u.stop = s.cfg.Clock.AfterFunc(idleUpload, func() { s.expire(u) })
	s.mu.Unlock()
	if q.Get("digest") != "" {
		err := s.finishUpload(w, r, u)
		if err != nil {
			s.dropUpload(u)
		}
		return err
	}
	s.located(w, u, http.StatusAccepted)
	return nil
}

// findUpload gives an upload that is under way, also one that an earlier process began, and lets it live on.
func (s *Server) findUpload(ctx context.Context, name, id string) (*upload, error) {
	s.mu.Lock()
	u := s.uploads[id]
	s.mu.Unlock()
	if u == nil {
		ctx, blobs, err := s.content(context.WithoutCancel(ctx))
		if err != nil {
			return nil, err
		}
		u = &upload{id: id, repo: name, ctx: ctx}
		st, err := blobs.Status(ctx, u.ref())
		if err != nil {
			return nil, uploadUnknown()
		}
		u.offset = st.Offset
	}
	if u.repo != name {
		return nil, uploadUnknown()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.uploads[id]; known != nil { // another request took it up meanwhile
		u = known
		u.stop()
	}
	s.uploads[id] = u
	u.stop = s.cfg.Clock.AfterFunc(idleUpload, func() { s.expire(u) })
	return u, nil
}

func (s *Server) expire(u *upload) {
	if u.mu.TryLock() {
		defer u.mu.Unlock()
		s.dropUpload(u)
	}
}

// dropUpload forgets an upload and what came of it. The caller holds its lock.
func (s *Server) dropUpload(u *upload) {
	s.mu.Lock()
	delete(s.uploads, u.id)
	u.stop()
	s.mu.Unlock()
	if u.w != nil {
		u.w.Close()
		u.w = nil
	}
	if _, blobs, err := s.content(u.ctx); err == nil {
		blobs.Abort(u.ctx, u.ref())
	}
}

// dropAbandoned takes away what uploads of earlier processes left and nobody took up.
func (s *Server) dropAbandoned(ctx context.Context) error {
	ctx, blobs, err := s.content(ctx)
	if err != nil {
		return err
	}
	list, err := blobs.ListStatuses(ctx)
	if err != nil {
		return err
	}
	for _, st := range list {
		if strings.HasPrefix(st.Ref, uploadPrefix) && s.cfg.Clock.Now().Sub(st.UpdatedAt) > idleUpload {
			if err := blobs.Abort(ctx, st.Ref); err != nil {
				return err
			}
		}
	}
	return nil
}

// receive appends the request's body.
func (s *Server) receive(w http.ResponseWriter, r *http.Request, u *upload) error {
	if err := checkRange(r, u.offset); err != nil {
		if f := (*fault)(nil); errors.As(err, &f) && f.status == http.StatusRequestedRangeNotSatisfiable {
			w.Header().Set("Location", "/v2/"+u.repo+"/blobs/uploads/"+u.id)
			w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, u.offset-1)))
		}
		return err
	}
	if u.w == nil {
		_, blobs, err := s.content(u.ctx)
		if err != nil {
			return err
		}
		if u.w, err = content.OpenWriter(u.ctx, blobs, content.WithRef(u.ref())); err != nil {
			return err
		}
		st, err := u.w.Status()
		if err != nil {
			return err
		}
		u.offset = st.Offset
	}
	control := http.NewResponseController(w)
	defer control.SetReadDeadline(time.Time{})
	buf := make([]byte, 128<<10)
	looked := int64(-checkEvery)
	for {
		if u.offset-looked >= checkEvery {
			looked = u.offset
			if err := room(s.cfg.Store.Root()); err != nil {
				return err
			}
		}
		control.SetReadDeadline(time.Now().Add(stallUpload))
		n, err := r.Body.Read(buf)
		if n > 0 {
			if _, werr := u.w.Write(buf[:n]); werr != nil {
				return werr
			}
			u.offset += int64(n)
		}
		if err == io.EOF {
			return nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err != nil {
			return bad(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "the request's body broke off: "+err.Error())
		}
	}
}

func room(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	if int64(st.Bavail)*st.Bsize < keepFree {
		return errs.New(errs.Exhausted, "the disk of the registry is full")
	}
	return nil
}

// checkRange wants chunks in order: "Content-Range: FIRST-LAST" must begin where the last one ended.
func checkRange(r *http.Request, offset int64) error {
	text := r.Header.Get("Content-Range")
	if text == "" {
		return nil
	}
	text, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimPrefix(text, "bytes "), "bytes="), "/")
	a, b, ok := strings.Cut(text, "-")
	first, err1 := strconv.ParseInt(a, 10, 64)
	last, err2 := strconv.ParseInt(b, 10, 64)
	switch {
	case !ok || err1 != nil || err2 != nil || last < first-1:
		return bad(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "Content-Range must be FIRST-LAST")
	case first != offset:
		return bad(http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", fmt.Sprintf("the chunk begins at %d, but %d bytes have come so far", first, offset))
	case r.ContentLength >= 0 && r.ContentLength != last-first+1:
		return bad(http.StatusBadRequest, "SIZE_INVALID", "Content-Range and Content-Length do not agree")
	}
	return nil
}

// finishUpload takes the last bytes, verifies the whole and enters it into the repository.
func (s *Server) finishUpload(w http.ResponseWriter, r *http.Request, u *upload) error {
	d, err := parseDigest(r.URL.Query().Get("digest"))
	if err != nil {
		return err
	}
	if err := s.receive(w, r, u); err != nil {
		return err
	}
	s.gate.RLock()
	defer s.gate.RUnlock()
	if err := failpoint.Hit("image/server/commit"); err != nil {
		return err
	}
	err = u.w.Commit(u.ctx, u.offset, d)
	switch {
	case errdefs.IsFailedPrecondition(err):
		s.dropUpload(u)
		return digestInvalid("what was sent does not have the digest " + d.String())
	case errdefs.IsAlreadyExists(err):
		err = s.cfg.Store.KeepToo(u.ctx, owner, d)
	}
	if err != nil {
		return err
	}
	if err := s.addBlob(u.repo, d); err != nil {
		return err
	}
	s.dropUpload(u)
	created(w, "/v2/"+u.repo+"/blobs/"+d.String(), d)
	return nil
}
