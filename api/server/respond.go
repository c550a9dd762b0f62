package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/common"

	"github.com/shoalhq/shoal/lib/errs"
)

// fail is the one place where an error becomes an answer.
func (s *Server) fail(w *response, r *http.Request, err error) {
	if w.begun() {
		if !errors.Is(err, context.Canceled) {
			s.log.Warn("a request failed after its answer had begun", "method", r.Method, "path", r.URL.Path, "error", err)
		}
		return
	}
	w.failure = err.Error()
	status := errs.HTTPStatus(err)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		status = http.StatusRequestEntityTooLarge
	}
	if status >= 500 && status != http.StatusNotImplemented && status != http.StatusServiceUnavailable && r.Context().Err() == nil {
		s.log.Error("a request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	h := w.Header()
	h.Del("Content-Length")
	if status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	sending := r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0 && r.Header.Get("Expect") == ""
	if sending {
		_ = http.NewResponseController(w).EnableFullDuplex() // the answer does not wait for the rest
	}
	writeJSON(w, status, common.ErrorResponse{Message: err.Error() + remedy(err)})
	if sending {
		flush(w)
		readRest(w, r)
	}
}

// remedy adds what to do about a full disk, which any request may meet.
func remedy(err error) string {
	if strings.Contains(err.Error(), "system prune") {
		return "" // the message says it itself
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return `; if that is the engine's disk, "system df" shows what takes its space, and "system prune" removes what is not used`
	}
	return ""
}

// A client that is still sending an archive when it is refused has the reason by now, but sees a broken pipe in its place if
// the connection is closed before it looks. So what it sends is read for a while.
const restLimit = 256 << 20

var restTime = 2 * time.Second // a test needs another

func readRest(w *response, r *http.Request) {
	if http.NewResponseController(w).SetReadDeadline(time.Now().Add(restTime)) == nil {
		io.CopyN(io.Discard, r.Body, restLimit)
	}
}

// writeJSON answers with a JSON document.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return errs.Wrap(err, "encode the answer")
	}
	data = append(data, '\n')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	_, err = w.Write(data)
	return err
}

// flush sends what was written so far, headers included.
func flush(w http.ResponseWriter) {
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}

// missing says that a room is not there.
func missing(what string) error {
	return errs.New(errs.Unsupported, "%s are not available in this build of the daemon", what)
}
