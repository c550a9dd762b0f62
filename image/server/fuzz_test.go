package server

import (
	"strings"
	"testing"
)

func FuzzReadManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"layers":[]}`), "application/vnd.oci.image.manifest.v1+json")
	f.Add([]byte(`{"manifests":[{"digest":"sha256:short","size":-1}]}`), "")
	f.Add([]byte(`{"subject":{"digest":"x"}}`), "")
	f.Fuzz(func(t *testing.T, data []byte, mediaType string) {
		m, err := readManifest(data, mediaType)
		if err != nil {
			return
		}
		if m.MediaType == "" || m.Size != int64(len(data)) {
			t.Fatalf("%+v", m)
		}
		for _, d := range append(m.Blobs, m.Manifests...) {
			if d.Digest.Validate() != nil || d.Size < 0 {
				t.Fatalf("an unsound descriptor got through: %+v", d)
			}
		}
	})
}

func FuzzRoute(f *testing.F) {
	for _, path := range []string{"/v2/a/b/blobs/sha256:00", "/v2/a/tags/list", "/v2/tags/list/tags/list", "/v2/blobs/uploads/blobs/uploads/", "/v2/a/manifests/manifests/x", "/v2/a/referrers/x"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		name, kind, rest := route(path)
		if kind != "" && strings.Contains(rest, "/") {
			t.Fatalf("%q: %q %q %q", path, name, kind, rest)
		}
	})
}

func TestRoute(t *testing.T) {
	for path, want := range map[string][3]string{
		"/v2/a/b/blobs/sha256:00":           {"a/b", "blob", "sha256:00"},
		"/v2/a/tags/list":                   {"a", "tags", ""},
		"/v2/tags/list/tags/list":           {"tags/list", "tags", ""},
		"/v2/a/blobs/uploads/":              {"a", "upload", ""},
		"/v2/a/blobs/uploads":               {"a", "upload", ""},
		"/v2/a/blobs/uploads/id":            {"a", "upload", "id"},
		"/v2/blobs/uploads/blobs/uploads/x": {"blobs/uploads", "upload", "x"},
		"/v2/a/manifests/manifests/x":       {"a/manifests", "manifest", "x"},
		"/v2/a/manifests/x":                 {"a", "manifest", "x"},
		"/v2/a/referrers/sha256:00":         {"a", "referrers", "sha256:00"},
		"/v2/a":                             {"", "", ""},
	} {
		name, kind, rest := route(path)
		if got := [3]string{name, kind, rest}; got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
