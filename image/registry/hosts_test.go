package registry

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

func TestInsecure(t *testing.T) {
	s := Settings{Insecure: []string{"plain.example", "port.example:5000", "10.1.0.0/16", "http://scheme.example", "part.example/team"}}
	for where, want := range map[[2]string]bool{
		{"localhost:5000", "a"}: true, {"127.0.0.9", "a"}: true, {"[::1]:5000", "a"}: true,
		{"plain.example", "a"}: true, {"plain.example:80", "a"}: true, {"port.example:5000", "a"}: true, {"scheme.example", "a"}: true,
		{"10.1.2.3:5000", "a"}: true, {"part.example", "team/app"}: true,
		{"port.example", "a"}: false, {"port.example:5001", "a"}: false, {"10.2.0.1", "a"}: false, {"part.example", "teams/app"}: false,
		{"registry-1.docker.io", "library/a"}: false, {"not-plain.example", "a"}: false,
	} {
		if got := s.insecure(where[0], where[1]); got != want {
			t.Errorf("%v: %v", where, got)
		}
	}
}

func TestMirrors(t *testing.T) {
	for _, c := range []struct{ mirror, ref, want string }{
		{"https://mirror.example", "app", "https://mirror.example"},
		{"https://mirror.example/path/", "app", "https://mirror.example/path/"},
		{"https://mirror.example", "ghcr.example/app", ""},
		{"ghcr.example=http://mirror.example", "ghcr.example/app", "http://mirror.example"},
		{"ghcr.example/team=http://mirror.example", "ghcr.example/team/app", "http://mirror.example"},
		{"ghcr.example/team=http://mirror.example", "ghcr.example/teams/app", ""},
	} {
		ref, err := model.ParseReference(c.ref)
		if err != nil {
			t.Fatal(err)
		}
		u, ok, err := mirrorFor(c.mirror, ref)
		if err != nil || ok != (c.want != "") || ok && u.String() != c.want {
			t.Errorf("%+v: %v %v %v", c, u, ok, err)
		}
	}
	for _, bad := range []string{"mirror.example", "ftp://x", "https://", "https://user:password@x"} {
		if _, _, err := mirrorFor(bad, model.Reference{}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q was taken: %v", bad, err)
		}
	}
}

// A certificate that nobody knows is refused with what to do, and taken when its authority is in certs.d.
func TestCertificates(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "https://")
	certs := t.TempDir()
	o := New(Config{}).begin(model.Reference{Domain: host}, nil, nil)
	o.settings.CertsDirs = []string{certs}
	ask := func() error {
		config, err := o.tls(host)
		if err != nil {
			return err
		}
		res, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: config}}).Get(s.URL)
		if err == nil {
			res.Body.Close()
		}
		return err
	}
	err := explain(t.Context(), "pull", o.ref, ask())
	if !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "certs.d") {
		t.Fatal(err)
	}
	dir := filepath.Join(certs, host)
	os.Mkdir(dir, 0o700)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(dir, "broken.crt"), []byte("x"), 0o600)
	if err := ask(); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "broken.crt") {
		t.Fatal(err)
	}
}
