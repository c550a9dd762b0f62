package server

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/shoalhq/shoal/model"
)

// fullDisk has a builder that cannot open its records, and volumes that cannot be made.
type fullDisk struct{ Builds }

func (fullDisk) Cache(context.Context) ([]model.BuildCacheRecord, error) {
	return nil, &net.OpError{Op: "write", Err: syscall.ENOSPC}
}

// TestFullDisk: who has no space left asks what takes it, and must be told.
func TestFullDisk(t *testing.T) {
	b := newFake().backends()
	b.Making.Builds = fullDisk{}
	srv := New(Config{Version: "0.0-test", Backends: b})
	ask := func(path string) (int, string) {
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	if code, body := ask("/v1.50/system/df"); code != http.StatusOK || !strings.Contains(body, `"LayersSize":1000`) {
		t.Errorf("df on a full disk: %d %s", code, body)
	}
	code, body := ask("/v1.50/system/df?type=build-cache")
	if code != http.StatusInternalServerError || !strings.Contains(body, "no space left on device") || !strings.Contains(body, "system prune") {
		t.Errorf("df of the cache alone: %d %s", code, body)
	}
}
