package server

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"

	"github.com/containerd/errdefs"

	"github.com/shoalhq/shoal/lib/errs"
)

// fault is an error as the distribution specification has it: a status, a code and a sentence.
type fault struct {
	status  int
	code    string
	message string
}

func (f *fault) Error() string { return f.message }

func bad(status int, code, message string) error { return &fault{status, code, message} }

// The codes of the specification, with the statuses that clients know.
func blobUnknown(d string) error {
	return bad(http.StatusNotFound, "BLOB_UNKNOWN", "blob "+d+" is not in this repository")
}
func manifestUnknown(ref string) error {
	return bad(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest "+ref+" is not in this repository")
}
func nameUnknown(name string) error {
	return bad(http.StatusNotFound, "NAME_UNKNOWN", "there is no repository "+name)
}
func uploadUnknown() error {
	return bad(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "this upload is not known, or it ended")
}
func digestInvalid(why string) error { return bad(http.StatusBadRequest, "DIGEST_INVALID", why) }

// answer writes an error.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, err error) {
	var f *fault
	if !errors.As(err, &f) {
		f = &fault{http.StatusInternalServerError, "UNKNOWN", err.Error()}
		switch k := errs.KindOf(err); {
		case errdefs.IsUnavailable(err):
			f.status, f.code = http.StatusConflict, "BLOB_UPLOAD_INVALID"
		case k == errs.Exhausted:
			f.status = http.StatusInsufficientStorage
		case errors.Is(err, os.ErrDeadlineExceeded):
			f.status, f.code, f.message = http.StatusRequestTimeout, "BLOB_UPLOAD_INVALID", "the client stopped sending"
		case k != errs.Internal:
			f.status = errs.HTTPStatus(err)
		}
		if f.status >= 500 && r.Context().Err() == nil {
			s.cfg.Log.Warn("registry request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		}
	}
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	data, _ := json.Marshal(map[string][]one{"errors": {{f.code, f.message}}})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	if r.Method != http.MethodHead {
		w.Write(data)
	}
}
