package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/image/server"
	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/lib/clock"
)

// The tests of this file go through the distribution specification (1.1), in its own order: pull, push, content
// discovery, content management.

type world struct {
	t     *testing.T
	url   string
	clock *clock.Fake
	store *store.Store
	reg   *server.Server
	cfg   server.Config
	http  *httptest.Server
}

func newWorld(t *testing.T, change func(*server.Config)) *world {
	dir := t.TempDir()
	w := &world{t: t, clock: clock.NewFake(time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC))}
	w.store = store.New(store.Config{Root: filepath.Join(dir, "images"), Driver: store.DriverNative, Clock: w.clock})
	w.cfg = server.Config{Dir: filepath.Join(dir, "registry"), Store: w.store, Clock: w.clock}
	if change != nil {
		change(&w.cfg)
	}
	w.open()
	t.Cleanup(func() { w.http.Close(); w.reg.Close(); w.store.Close() })
	return w
}

func (w *world) open() {
	reg, err := server.New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.reg, w.http = reg, httptest.NewServer(reg)
	w.url = w.http.URL
}

// restart ends the registry and opens it again.
func (w *world) restart() {
	w.http.Close()
	if err := w.reg.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

type reply struct {
	*http.Response
	body []byte
}

func (w *world) do(method, path string, body []byte, header ...string) reply {
	w.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = w.url + path
	}
	req, err := http.NewRequest(method, path, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	data, _ := io.ReadAll(res.Body)
	return reply{res, data}
}

// want checks the status and, of errors, the code.
func (w *world) want(status int, code string, r reply) reply {
	w.t.Helper()
	if r.StatusCode != status || code != "" && !strings.Contains(string(r.body), `"`+code+`"`) {
		w.t.Fatalf("%s %s: %s %s; want %d %s", r.Request.Method, r.Request.URL, r.Status, r.body, status, code)
	}
	return r
}

func (w *world) push(repo string, data []byte) ocispec.Descriptor {
	w.t.Helper()
	d := digest.FromBytes(data)
	r := w.want(201, "", w.do("POST", "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), data, "Content-Type", "application/octet-stream"))
	if r.Header.Get("Location") != "/v2/"+repo+"/blobs/"+d.String() || r.Header.Get("Docker-Content-Digest") != d.String() {
		w.t.Fatal(r.Header)
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(len(data))}
}

func (w *world) manifest(repo, ref string, m ocispec.Manifest) ocispec.Descriptor {
	w.t.Helper()
	m.SchemaVersion, m.MediaType = 2, ocispec.MediaTypeImageManifest
	data, _ := json.Marshal(m)
	d := digest.FromBytes(data)
	if ref == "" {
		ref = d.String()
	}
	r := w.want(201, "", w.do("PUT", "/v2/"+repo+"/manifests/"+ref, data, "Content-Type", m.MediaType))
	if m.Subject != nil && r.Header.Get("OCI-Subject") != m.Subject.Digest.String() {
		w.t.Fatal("no OCI-Subject:", r.Header)
	}
	return ocispec.Descriptor{MediaType: m.MediaType, Digest: d, Size: int64(len(data))}
}

// image pushes a config, a layer and a manifest.
func (w *world) image(repo, tag string) (m, config, layer ocispec.Descriptor) {
	config, layer = w.push(repo, []byte(`{"tag":"`+tag+`"}`)), w.push(repo, []byte("layer of "+repo))
	config.MediaType = ocispec.MediaTypeImageConfig
	return w.manifest(repo, tag, ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{layer}}), config, layer
}

func TestSpecPull(t *testing.T) {
	w := newWorld(t, nil)
	w.want(200, "", w.do("GET", "/v2/", nil))
	m, _, layer := w.image("a/b", "v1")
	for _, ref := range []string{"v1", m.Digest.String()} {
		head := w.want(200, "", w.do("HEAD", "/v2/a/b/manifests/"+ref, nil))
		get := w.want(200, "", w.do("GET", "/v2/a/b/manifests/"+ref, nil))
		for _, r := range []reply{head, get} {
			if r.Header.Get("Docker-Content-Digest") != m.Digest.String() || r.ContentLength != m.Size || r.Header.Get("Content-Type") != m.MediaType {
				t.Fatal(r.Header, r.ContentLength)
			}
		}
		if digest.FromBytes(get.body) != m.Digest {
			t.Fatal("another manifest")
		}
	}
	blob := "/v2/a/b/blobs/" + layer.Digest.String()
	if r := w.want(200, "", w.do("GET", blob, nil)); string(r.body) != "layer of a/b" {
		t.Fatalf("%q", r.body)
	}
	if r := w.want(200, "", w.do("HEAD", blob, nil)); r.ContentLength != layer.Size {
		t.Fatal(r.ContentLength)
	}
	if r := w.want(206, "", w.do("GET", blob, nil, "Range", "bytes=6-7")); string(r.body) != "of" {
		t.Fatalf("%q", r.body)
	}
	w.want(416, "", w.do("GET", blob, nil, "Range", "bytes=100-"))
	none := digest.FromString("none").String()
	w.want(404, "BLOB_UNKNOWN", w.do("GET", "/v2/a/b/blobs/"+none, nil))
	w.want(404, "BLOB_UNKNOWN", w.do("GET", "/v2/other/blobs/"+layer.Digest.String(), nil))
	w.want(404, "", w.do("HEAD", "/v2/a/b/blobs/"+none, nil))
	w.want(404, "MANIFEST_UNKNOWN", w.do("GET", "/v2/a/b/manifests/none", nil))
	w.want(404, "MANIFEST_UNKNOWN", w.do("GET", "/v2/a/b/manifests/"+none, nil))
	w.want(404, "", w.do("GET", "/v2/a/b/manifests/.INVALID_MANIFEST_NAME", nil))
	w.want(400, "DIGEST_INVALID", w.do("GET", "/v2/a/b/blobs/sha256:short", nil))
	w.want(400, "NAME_INVALID", w.do("GET", "/v2/A/manifests/v1", nil))
}

func TestSpecPush(t *testing.T) {
	w := newWorld(t, nil)
	data := []byte("0123456789")
	d := digest.FromBytes(data).String()
	start := func() string {
		t.Helper()
		r := w.want(202, "", w.do("POST", "/v2/r/blobs/uploads/", nil))
		if r.Header.Get("Location") == "" {
			t.Fatal("no Location")
		}
		return r.Header.Get("Location")
	}
	t.Run("POST then PUT", func(t *testing.T) {
		w.want(201, "", w.do("PUT", start()+"?digest="+d, data, "Content-Type", "application/octet-stream"))
		w.want(200, "", w.do("GET", "/v2/r/blobs/"+d, nil))
	})
	t.Run("a wrong digest", func(t *testing.T) {
		at := start()
		w.want(400, "DIGEST_INVALID", w.do("PUT", at+"?digest="+digest.FromString("other").String(), data))
		w.want(404, "BLOB_UPLOAD_UNKNOWN", w.do("GET", at, nil))
		w.want(400, "DIGEST_INVALID", w.do("PUT", start()+"?digest=nonsense", data))
		w.want(400, "DIGEST_INVALID", w.do("PUT", start(), data))
		w.want(400, "DIGEST_INVALID", w.do("POST", "/v2/r/blobs/uploads/?digest="+digest.FromString("other").String(), data))
	})
	t.Run("chunks, over a restart", func(t *testing.T) {
		at := start()
		w.want(416, "", w.do("PATCH", at, data[5:], "Content-Range", "5-9"))
		if r := w.want(202, "", w.do("PATCH", at, data[:3], "Content-Range", "0-2")); r.Header.Get("Range") != "0-2" {
			t.Fatal(r.Header)
		}
		w.want(416, "", w.do("PATCH", at, data[:3], "Content-Range", "0-2"))
		w.want(400, "SIZE_INVALID", w.do("PATCH", at, data[3:5], "Content-Range", "3-9"))
		if r := w.want(204, "", w.do("GET", at, nil)); r.Header.Get("Range") != "0-2" || r.Header.Get("Location") == "" {
			t.Fatal(r.Header)
		}
		w.want(404, "BLOB_UPLOAD_UNKNOWN", w.do("GET", strings.Replace(at, "/r/", "/other/", 1), nil))
		w.restart()
		if r := w.want(204, "", w.do("GET", at, nil)); r.Header.Get("Range") != "0-2" {
			t.Fatal(r.Header)
		}
		w.want(202, "", w.do("PATCH", at, data[3:7]))
		w.want(201, "", w.do("PUT", at+"?digest="+d, data[7:], "Content-Range", "7-9"))
		if r := w.want(200, "", w.do("GET", "/v2/r/blobs/"+d, nil)); !bytes.Equal(r.body, data) {
			t.Fatalf("%q", r.body)
		}
	})
	t.Run("cancelled and forgotten uploads", func(t *testing.T) {
		at := start()
		w.want(202, "", w.do("PATCH", at, data))
		w.want(204, "", w.do("DELETE", at, nil))
		w.want(404, "BLOB_UPLOAD_UNKNOWN", w.do("PATCH", at, data))
		at = start()
		w.want(202, "", w.do("PATCH", at, data))
		w.clock.Advance(2 * time.Hour)
		w.want(404, "BLOB_UPLOAD_UNKNOWN", w.do("PATCH", at, data))
	})
	t.Run("mounts", func(t *testing.T) {
		w.push("from/here", []byte("mounted"))
		m := digest.FromString("mounted").String()
		w.want(201, "", w.do("POST", "/v2/to/there/blobs/uploads/?mount="+m+"&from=from/here", nil))
		w.want(200, "", w.do("GET", "/v2/to/there/blobs/"+m, nil))
		w.want(201, "", w.do("POST", "/v2/to/third/blobs/uploads/?mount="+m, nil))
		r := w.want(202, "", w.do("POST", "/v2/to/there/blobs/uploads/?mount="+digest.FromString("none").String()+"&from=from/here", nil))
		w.want(201, "", w.do("PUT", r.Header.Get("Location")+"?digest="+d, data))
	})
	t.Run("manifests", func(t *testing.T) {
		config := w.push("m", []byte("{}"))
		config.MediaType = ocispec.MediaTypeImageConfig
		lacking := ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("none"), Size: 4}}}
		text, _ := json.Marshal(lacking)
		w.want(404, "MANIFEST_BLOB_UNKNOWN", w.do("PUT", "/v2/m/manifests/x", text, "Content-Type", ocispec.MediaTypeImageManifest))
		w.want(400, "MANIFEST_INVALID", w.do("PUT", "/v2/m/manifests/x", []byte("{"), "Content-Type", ocispec.MediaTypeImageManifest))
		w.want(400, "MANIFEST_INVALID", w.do("PUT", "/v2/m/manifests/x", []byte(`{"mediaType":"`+ocispec.MediaTypeImageIndex+`"}`), "Content-Type", ocispec.MediaTypeImageManifest))
		w.want(413, "SIZE_INVALID", w.do("PUT", "/v2/m/manifests/x", bytes.Repeat([]byte(" "), 5<<20), "Content-Type", ocispec.MediaTypeImageManifest))
		w.want(400, "DIGEST_INVALID", w.do("PUT", "/v2/m/manifests/"+digest.FromString("x").String(), []byte("{}"), "Content-Type", ocispec.MediaTypeImageManifest))
		m := w.manifest("m", "", ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{}})
		index, _ := json.Marshal(ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{m}})
		w.want(201, "", w.do("PUT", "/v2/m/manifests/multi", index, "Content-Type", ocispec.MediaTypeImageIndex))
		w.want(404, "MANIFEST_BLOB_UNKNOWN", w.do("PUT", "/v2/n/manifests/multi", index, "Content-Type", ocispec.MediaTypeImageIndex))
	})
}

func TestSpecDiscovery(t *testing.T) {
	w := newWorld(t, nil)
	w.want(404, "NAME_UNKNOWN", w.do("GET", "/v2/d/tags/list", nil))
	m, config, _ := w.image("d", "t0")
	for i := 1; i < 5; i++ {
		w.image("d", fmt.Sprintf("t%d", i))
	}
	tags := func(query string) (string, string) {
		r := w.want(200, "", w.do("GET", "/v2/d/tags/list"+query, nil))
		var got struct {
			Name string
			Tags []string
		}
		if err := json.Unmarshal(r.body, &got); err != nil || got.Name != "d" || got.Tags == nil {
			t.Fatalf("%v %s", err, r.body)
		}
		return strings.Join(got.Tags, " "), r.Header.Get("Link")
	}
	if got, link := tags(""); got != "t0 t1 t2 t3 t4" || link != "" {
		t.Fatal(got, link)
	}
	if got, link := tags("?n=2"); got != "t0 t1" || link != `</v2/d/tags/list?last=t1&n=2>; rel="next"` {
		t.Fatal(got, link)
	}
	if got, link := tags("?n=3&last=t1"); got != "t2 t3 t4" || link != "" {
		t.Fatal(got, link)
	}
	if got, _ := tags("?n=0"); got != "" {
		t.Fatal(got)
	}
	if got, _ := tags("?last=t1x"); got != "t2 t3 t4" {
		t.Fatal(got)
	}
	w.want(400, "PAGINATION_NUMBER_INVALID", w.do("GET", "/v2/d/tags/list?n=x", nil))
	if r := w.want(200, "", w.do("GET", "/v2/_catalog", nil)); string(r.body) != `{"repositories":["d"]}` {
		t.Fatalf("%s", r.body)
	}

	empty := w.push("d", []byte("{}"))
	empty.MediaType = ocispec.MediaTypeEmptyJSON
	signature := w.manifest("d", "", ocispec.Manifest{ArtifactType: "test/signature", Config: empty, Layers: []ocispec.Descriptor{empty}, Subject: &m, Annotations: map[string]string{"k": "v"}})
	byConfig := w.manifest("d", "", ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{}, Subject: &m})
	future := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("not pushed yet"), Size: 3}
	w.manifest("d", "", ocispec.Manifest{ArtifactType: "test/early", Config: empty, Layers: []ocispec.Descriptor{empty}, Subject: &future})
	list := func(d digest.Digest, query string) (ocispec.Index, reply) {
		r := w.want(200, "", w.do("GET", "/v2/d/referrers/"+d.String()+query, nil))
		var index ocispec.Index
		if err := json.Unmarshal(r.body, &index); err != nil || index.MediaType != ocispec.MediaTypeImageIndex || r.Header.Get("Content-Type") != index.MediaType || index.Manifests == nil {
			t.Fatalf("%v %s", err, r.body)
		}
		return index, r
	}
	index, _ := list(m.Digest, "")
	if len(index.Manifests) != 2 {
		t.Fatalf("%+v", index)
	}
	index, r := list(m.Digest, "?artifactType=test/signature")
	if len(index.Manifests) != 1 || index.Manifests[0].Digest != signature.Digest || index.Manifests[0].Annotations["k"] != "v" || r.Header.Get("OCI-Filters-Applied") != "artifactType" {
		t.Fatalf("%+v %v", index, r.Header)
	}
	if index, _ = list(m.Digest, "?artifactType="+url.QueryEscape(ocispec.MediaTypeImageConfig)); len(index.Manifests) != 1 || index.Manifests[0].Digest != byConfig.Digest {
		t.Fatalf("%+v", index)
	}
	if index, _ = list(future.Digest, ""); len(index.Manifests) != 1 {
		t.Fatalf("%+v", index)
	}
	if index, _ = list(digest.FromString("nobody"), ""); len(index.Manifests) != 0 {
		t.Fatalf("%+v", index)
	}
	w.want(202, "", w.do("DELETE", "/v2/d/manifests/"+signature.Digest.String(), nil))
	if index, _ = list(m.Digest, ""); len(index.Manifests) != 1 {
		t.Fatalf("a deleted referrer is still listed: %+v", index)
	}
}

func TestSpecManagement(t *testing.T) {
	w := newWorld(t, nil)
	m, config, layer := w.image("g", "one")
	text := w.do("GET", "/v2/g/manifests/one", nil).body
	w.want(201, "", w.do("PUT", "/v2/g/manifests/two", text, "Content-Type", m.MediaType))
	w.want(202, "", w.do("DELETE", "/v2/g/manifests/two", nil))
	w.want(404, "", w.do("GET", "/v2/g/manifests/two", nil))
	w.want(200, "", w.do("GET", "/v2/g/manifests/one", nil))
	w.want(202, "", w.do("DELETE", "/v2/g/manifests/"+m.Digest.String(), nil))
	w.want(404, "", w.do("GET", "/v2/g/manifests/one", nil))
	w.want(404, "", w.do("DELETE", "/v2/g/manifests/"+m.Digest.String(), nil))
	w.want(200, "", w.do("GET", "/v2/g/blobs/"+config.Digest.String(), nil)) // a push that began before may rely on it
	w.want(202, "", w.do("DELETE", "/v2/g/blobs/"+layer.Digest.String(), nil))
	w.want(404, "BLOB_UNKNOWN", w.do("GET", "/v2/g/blobs/"+layer.Digest.String(), nil))
	w.want(404, "BLOB_UNKNOWN", w.do("DELETE", "/v2/g/blobs/"+layer.Digest.String(), nil))
	w.clock.Advance(3 * time.Hour)
	w.restart() // tidies
	w.want(404, "BLOB_UNKNOWN", w.do("GET", "/v2/g/blobs/"+config.Digest.String(), nil))
	w.want(404, "NAME_UNKNOWN", w.do("GET", "/v2/g/tags/list", nil))
	if u, err := w.store.DiskUsage(t.Context()); err != nil || u.ContentSize != 0 {
		t.Fatalf("content is left: %+v %v", u, err)
	}
	w.want(405, "UNSUPPORTED", w.do("POST", "/v2/g/manifests/x", nil))
	w.want(404, "UNSUPPORTED", w.do("GET", "/v2/g/nothing", nil))
}

func TestReadOnly(t *testing.T) {
	w := newWorld(t, func(c *server.Config) { c.ReadOnly = true })
	w.want(405, "UNSUPPORTED", w.do("POST", "/v2/r/blobs/uploads/", nil))
	w.want(405, "UNSUPPORTED", w.do("DELETE", "/v2/r/manifests/x", nil))
	w.want(404, "", w.do("GET", "/v2/r/manifests/x", nil))
}
