package registry_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	mobyregistry "github.com/moby/moby/api/types/registry"

	"github.com/shoalhq/shoal/image/registry"
	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// FuzzAnswers lets a registry give any answer, with any headers, to everything but its blobs. A pull that succeeds has brought an
// image that is whole.
func FuzzAnswers(f *testing.F) {
	honest, _ := newFake(f)
	f.Add(200, honest.types["1"], "", "", "", string(honest.manifests["1"]))
	f.Add(200, "application/vnd.oci.image.index.v1+json", "", "", "", `{"manifests":[{"digest":"sha256:00","size":3,"platform":{"os":"linux"}}]}`)
	f.Add(401, "application/json", "", `Bearer realm="http://127.0.0.1:1/token",service="x",scope="repository:app:pull"`, "", `{"errors":[{"code":"UNAUTHORIZED","message":"no","detail":[1]}]}`)
	f.Add(401, "text/html", "", `Basic realm="x", Digest nonce="`, "", "<html>")
	f.Add(307, "", "", "", "//127.0.0.1:1/elsewhere", "")
	f.Add(429, "", "sha256:"+strings.Repeat("0", 64), "", "", "wait")
	var now fuzzed
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { now.answer(honest, w, r) }))
	f.Cleanup(s.Close)
	addr := strings.TrimPrefix(s.URL, "http://")
	st := store.New(store.Config{Root: filepath.Join(f.TempDir(), "images"), Driver: store.DriverNative})
	f.Cleanup(func() { st.Close() })
	client := registry.New(registry.Config{Store: st, Clock: hurry{time.Second}, Settings: func() registry.Settings {
		return registry.Settings{Attempts: 1, Stall: time.Second}
	}})
	f.Fuzz(func(t *testing.T, status int, mediaType, digest, challenge, location, body string) {
		if status < 200 || status > 599 {
			return
		}
		now = fuzzed{status, mediaType, digest, challenge, location, body}
		err := client.Pull(t.Context(), addr+"/app:1", "linux/amd64", &mobyregistry.AuthConfig{Username: "ann", Password: "s3cret"}, func(model.ImageProgress) {})
		img, rerr := st.Resolve(t.Context(), addr+"/app:1", "")
		switch {
		case err == nil && rerr != nil:
			t.Fatal("pulled, but not there:", rerr)
		case err == nil:
			if _, err := st.Lowers(t.Context(), img.ID); err != nil {
				t.Fatal("pulled, but not whole:", err)
			}
			if _, err := st.Remove(t.Context(), addr+"/app:1", model.ImageRemoveOptions{}); err != nil {
				t.Fatal(err)
			}
		case rerr == nil:
			t.Fatal("failed, but recorded:", err)
		case errs.Is(err, errs.Internal) || strings.Contains(err.Error(), "s3cret"):
			t.Fatal(err)
		}
	})
}

// fuzzed is what the registry answers.
type fuzzed struct {
	status                                       int
	mediaType, digest, challenge, location, body string
}

func (z fuzzed) answer(honest *fake, w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.URL.Path, "/blobs/") {
		honest.answer(w, r)
		return
	}
	for name, value := range map[string]string{"Content-Type": z.mediaType, "Docker-Content-Digest": z.digest, "WWW-Authenticate": z.challenge, "Location": z.location} {
		if value != "" {
			w.Header().Set(name, value)
		}
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(z.body)))
	w.WriteHeader(z.status)
	w.Write([]byte(z.body))
}
