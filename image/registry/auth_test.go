package registry_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	mobyregistry "github.com/moby/moby/api/types/registry"

	"github.com/shoalhq/shoal/image/registry"
	"github.com/shoalhq/shoal/lib/errs"
)

// tokens makes the fake registry want bearer tokens, which a server of its own gives to ann and, for pulls, to anybody.
func (f *fake) tokens(t *testing.T) *sync.Map {
	asked := &sync.Map{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		user, password, basic := r.BasicAuth()
		if r.Method == http.MethodPost {
			user, password = r.Form.Get("username"), r.Form.Get("password")
			if r.Form.Get("grant_type") == "refresh_token" {
				user, password = "token", r.Form.Get("refresh_token")
			}
			basic = true
		}
		asked.Store(r.Form.Get("scope"), user)
		if basic && (user != "ann" || password != "s3cret") && (user != "token" || password != "identity") {
			w.WriteHeader(401)
			w.Write([]byte(`{"details":"incorrect username or password"}`))
			return
		}
		json.NewEncoder(w).Encode(map[string]string{"token": "t-" + user, "access_token": "t-" + user, "refresh_token": "identity"})
	}))
	t.Cleanup(s.Close)
	f.hook = func(w http.ResponseWriter, r *http.Request) bool {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer t-")
		if r.URL.Path == "/v2/" && (token == "ann" || token == "token") || r.URL.Path != "/v2/" && r.Header.Get("Authorization") != "" {
			if r.URL.Path == "/v2/" {
				w.WriteHeader(200)
				return true
			}
			return false
		}
		scope := ""
		if r.URL.Path != "/v2/" {
			scope = `,scope="repository:app:pull"`
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token",service="test"`+scope)
		w.WriteHeader(401)
		return true
	}
	return asked
}

func TestTokens(t *testing.T) {
	f, addr := newFake(t)
	asked := f.tokens(t)
	r := newRig(t, registry.Settings{Attempts: 1})
	if err := r.pull(addr+"/app:1", nil); err != nil {
		t.Fatal("anonymous:", err)
	}
	if _, ok := asked.Load("repository:app:pull"); !ok {
		t.Fatal("no token for the repository was asked for")
	}
	res, err := r.client.Login(t.Context(), mobyregistry.AuthConfig{ServerAddress: addr, Username: "ann", Password: "s3cret"})
	if err != nil || res.IdentityToken != "identity" {
		t.Fatal(res, err)
	}
	if _, err := r.client.Login(t.Context(), mobyregistry.AuthConfig{ServerAddress: addr, IdentityToken: "identity"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.Login(t.Context(), mobyregistry.AuthConfig{ServerAddress: addr, Username: "ann", Password: "wrong"}); !errs.Is(err, errs.Unauthorized) || !strings.Contains(err.Error(), "incorrect username or password") {
		t.Fatal(err)
	}
	for _, auth := range []*mobyregistry.AuthConfig{{Auth: "YW5uOnMzY3JldA=="}, {IdentityToken: "identity"}, {RegistryToken: "t-given"}} {
		if err := newRig(t, registry.Settings{Attempts: 1}).pull(addr+"/app:1", auth); err != nil {
			t.Fatalf("%+v: %v", auth, err)
		}
	}
}
