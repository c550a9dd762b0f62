package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	mobyregistry "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/image/registry"
	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/lib/clock"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/model"
)

// fake is a registry with one image that can be told to misbehave.
type fake struct {
	t         testing.TB
	manifests map[string][]byte
	types     map[string]string
	blobs     map[string][]byte
	layer     ocispec.Descriptor // the larger one
	hook      func(w http.ResponseWriter, r *http.Request) bool

	mu     sync.Mutex
	seen   []string
	ranges []string
}

func newFake(t testing.TB) (*fake, string) {
	f := &fake{t: t, manifests: map[string][]byte{}, types: map[string]string{}, blobs: map[string][]byte{}}
	cfg := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	for i, size := range []int{10, 300_000} {
		l := imagetest.Layer(t, imagetest.File{Name: fmt.Sprint("file", i), Data: strings.Repeat("x", size)})
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, digest.FromBytes(l))
		f.layer = f.blob(ocispec.MediaTypeImageLayer, l)
		m.Layers = append(m.Layers, f.layer)
	}
	data, _ := json.Marshal(cfg)
	m.Config = f.blob(ocispec.MediaTypeImageConfig, data)
	f.put("1", m.MediaType, m)
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return f, strings.TrimPrefix(s.URL, "http://")
}

func (f *fake) blob(mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	f.blobs[d.String()] = data
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (f *fake) put(tag, mediaType string, m any) ocispec.Descriptor {
	data, _ := json.Marshal(m)
	d := digest.FromBytes(data)
	for _, ref := range []string{tag, d.String()} {
		f.manifests[ref], f.types[ref] = data, mediaType
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.seen = append(f.seen, r.Method+" "+r.URL.Path)
	if v := r.Header.Get("Range"); v != "" {
		f.ranges = append(f.ranges, v)
	}
	f.mu.Unlock()
	f.mu.Lock()
	hook := f.hook
	f.mu.Unlock()
	if hook != nil && hook(w, r) {
		return
	}
	f.answer(w, r)
}

// answer is what an honest registry says.
func (f *fake) answer(w http.ResponseWriter, r *http.Request) {
	last := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	if data, ok := f.manifests[last]; ok {
		w.Header().Set("Content-Type", f.types[last])
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(data).String())
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data)
		return
	}
	if data, ok := f.blobs[last]; ok {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		return
	}
	w.WriteHeader(404)
}

func (f *fake) isLayer(r *http.Request) bool {
	return strings.HasSuffix(r.URL.Path, "/blobs/"+f.layer.Digest.String())
}

// rig is a client that waits by a clock which is always in a hurry.
type rig struct {
	t      *testing.T
	set    registry.Settings
	store  *store.Store
	client *registry.Client
	lines  []string
	mu     sync.Mutex
}

func newRig(t *testing.T, set registry.Settings) *rig {
	r := &rig{t: t, set: set, store: store.New(store.Config{Root: filepath.Join(t.TempDir(), "images"), Driver: store.DriverNative})}
	t.Cleanup(func() { r.store.Close() })
	r.client = registry.New(registry.Config{Store: r.store, Settings: func() registry.Settings { return r.set }, Clock: hurry{set.Stall}})
	return r
}

// hurry lets pauses between tries take no time, and the time of a stall as it is.
type hurry struct{ stall time.Duration }

func (hurry) Now() time.Time { return time.Unix(0, 0) }
func (h hurry) AfterFunc(d time.Duration, f func()) func() bool {
	if d != h.stall && d < 20*time.Second {
		d = 0
	}
	return clock.Real{}.AfterFunc(d, f)
}

func (r *rig) pull(ref string, auth *mobyregistry.AuthConfig) error {
	r.lines = nil
	return r.client.Pull(r.t.Context(), ref, "linux/amd64", auth, func(p model.ImageProgress) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.lines = append(r.lines, p.ID+" "+p.Action)
	})
}

func (r *rig) text() string { return strings.Join(r.lines, "\n") }

// refused wants an error of the kind that says something, and nothing recorded.
func (r *rig) refused(err error, kind errs.Kind, says ...string) {
	r.t.Helper()
	if !errs.Is(err, kind) {
		r.t.Fatalf("%v: %v; want %v", errs.KindOf(err), err, kind)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			r.t.Errorf("the error does not say %q: %v", s, err)
		}
	}
	r.t.Log(err)
	if u, err := r.store.DiskUsage(r.t.Context()); err != nil || len(u.Images) != 0 || u.LayersSize != 0 {
		r.t.Errorf("something was recorded: %+v %v", u, err)
	}
}

func TestLies(t *testing.T) {
	for name, c := range map[string]struct {
		send func(f *fake, data []byte) []byte
		says string
	}{
		"other content": {func(_ *fake, d []byte) []byte { return append([]byte{d[0] ^ 1}, d[1:]...) }, "verification failed"},
		"more content":  {func(_ *fake, d []byte) []byte { return append(d[:len(d):len(d)], "more"...) }, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			f, addr := newFake(t)
			f.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if !f.isLayer(r) {
					return false
				}
				w.Write(c.send(f, f.blobs[f.layer.Digest.String()]))
				return true
			}
			r := newRig(t, registry.Settings{})
			r.refused(r.pull(addr+"/app:1", nil), errs.Damaged, c.says)
			f.hook = nil
			if err := r.pull(addr+"/app:1", nil); err != nil {
				t.Fatal("the retry does not work:", err)
			}
		})
	}
}

func TestBrokenDownloadsGoOn(t *testing.T) {
	f, addr := newFake(t)
	broken := 0
	f.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if !f.isLayer(r) || broken == 2 {
			return false
		}
		broken++
		data := f.blobs[f.layer.Digest.String()]
		at := 0
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &at)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)-at))
		if at > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", at, len(data)-1, len(data)))
			w.WriteHeader(206)
		}
		w.Write(data[at : at+100_000])
		panic(http.ErrAbortHandler)
	}
	r := newRig(t, registry.Settings{})
	if err := r.pull(addr+"/app:1", nil); err != nil {
		t.Fatal(err)
	}
	if len(f.ranges) < 2 || !strings.HasPrefix(f.ranges[0], "bytes=100000") {
		t.Fatalf("the download did not go on where it broke off: %v", f.ranges)
	}
}

// What a pull that failed for good has fetched is not fetched again by the next.
func TestNextPullGoesOn(t *testing.T) {
	f, addr := newFake(t)
	f.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if !f.isLayer(r) {
			return false
		}
		if r.Header.Get("Range") != "" {
			w.WriteHeader(503)
			return true
		}
		data := f.blobs[f.layer.Digest.String()]
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data[:150_000])
		panic(http.ErrAbortHandler)
	}
	r := newRig(t, registry.Settings{Attempts: 2})
	r.refused(r.pull(addr+"/app:1", nil), errs.Unavailable)
	f.hook, f.ranges = nil, nil
	if err := r.pull(addr+"/app:1", nil); err != nil {
		t.Fatal(err)
	}
	if len(f.ranges) != 1 || f.ranges[0] != "bytes=150000-" {
		t.Fatalf("fetched again: %v", f.ranges)
	}
}

func TestStall(t *testing.T) {
	f, addr := newFake(t)
	release := make(chan struct{})
	f.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if !f.isLayer(r) {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(int(f.layer.Size)))
		w.Write([]byte("x"))
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return true
	}
	defer close(release)
	r := newRig(t, registry.Settings{Stall: 500 * time.Millisecond, Attempts: 2})
	r.refused(r.pull(addr+"/app:1", nil), errs.Unavailable, "stopped sending")
	if !strings.Contains(r.text(), "Retrying in") {
		t.Error(r.text())
	}
}

func TestRegistryMessagesReachPeople(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		kind   errs.Kind
		says   string
	}{
		"rate limit": {429, `{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}`, errs.Unavailable, "toomanyrequests: You have reached your pull rate limit."},
		"denied":     {403, `{"errors":[{"code":"DENIED","message":"not yours"}]}`, errs.NotFound, "pull access denied for"},
		"broken":     {500, "<html>oops</html>", errs.Unavailable, "500"},
	} {
		t.Run(name, func(t *testing.T) {
			f, addr := newFake(t)
			f.hook = func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Retry-After", "60")
				w.WriteHeader(c.status)
				w.Write([]byte(c.body))
				return true
			}
			r := newRig(t, registry.Settings{Attempts: 1})
			r.refused(r.pull(addr+"/app:1", nil), c.kind, c.says)
			if limit := strings.Contains(r.text(), "says of its limit: Retry-After: 60"); limit != (c.status == 429) {
				t.Errorf("what the registry says of its limit: %q", r.text())
			}
		})
	}
}

func TestBadManifests(t *testing.T) {
	f, addr := newFake(t)
	layers := make([]ocispec.Descriptor, 501)
	for i := range layers {
		layers[i] = f.layer
	}
	config := f.blob(ocispec.MediaTypeImageConfig, []byte(`{"rootfs":{"diff_ids":[]}}`))
	index := map[string]any{"mediaType": ocispec.MediaTypeImageIndex}
	deep := f.put("leaf", ocispec.MediaTypeImageIndex, index)
	for range 6 {
		deep = f.put("deep", ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{deep}})
	}
	other := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: f.layer.Digest, Size: 5, Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}}
	for tag, c := range map[string]struct {
		mediaType string
		doc       any
		kind      errs.Kind
		says      string
	}{
		"list":     {ocispec.MediaTypeImageManifest, []int{1}, errs.Invalid, "no JSON document"},
		"bare":     {ocispec.MediaTypeImageManifest, map[string]any{}, errs.Invalid, "no config"},
		"differs":  {ocispec.MediaTypeImageManifest, index, errs.Invalid, "calls itself"},
		"schema1":  {"application/vnd.docker.distribution.manifest.v1+prettyjws", map[string]any{"schemaVersion": 1}, errs.Unsupported, "schema 1"},
		"artifact": {ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: ocispec.Descriptor{MediaType: "application/vnd.cncf.helm.config.v1+json", Digest: config.Digest, Size: config.Size}}, errs.Unsupported, "not an image but an artifact"},
		"layers":   {ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: config, Layers: layers}, errs.Invalid, "501 layers"},
		"counts":   {ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: config, Layers: layers[:1]}, errs.Invalid, "its config 0"},
		"digest":   {ocispec.MediaTypeImageManifest, map[string]any{"config": map[string]any{"mediaType": ocispec.MediaTypeImageConfig, "digest": "../../etc", "size": 3}}, errs.Invalid, "no digest"},
		"huge":     {ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: config.Digest, Size: 1 << 40}}, errs.Invalid, "at most"},
		"nested":   {ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{deep}}, errs.Invalid, "indexes within each other"},
		"platform": {ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{other}}, errs.NotFound, "no matching manifest for linux/amd64 in the manifest list entries"},
	} {
		t.Run(tag, func(t *testing.T) {
			f.put(tag, c.mediaType, c.doc)
			r := newRig(t, registry.Settings{Attempts: 1})
			r.refused(r.pull(addr+"/app:"+tag, nil), c.kind, c.says)
		})
	}
}

// Credentials go to the registry that they are for, not to a mirror, and not where a redirect leads.
func TestCredentialsStayAtHome(t *testing.T) {
	thief, stolen := "", make(chan string, 10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v := r.Header.Get("Authorization"); v != "" {
			stolen <- v
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="give"`)
		w.WriteHeader(401)
	}))
	t.Cleanup(s.Close)
	thief = s.URL
	f, addr := newFake(t)
	f.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if _, _, ok := r.BasicAuth(); !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(401)
			return true
		}
		if f.isLayer(r) {
			http.Redirect(w, r, thief+"/blob", http.StatusTemporaryRedirect)
			return true
		}
		return false
	}
	r := newRig(t, registry.Settings{Attempts: 1, Mirrors: []string{addr + "=" + thief}})
	if err := r.pull(addr+"/app:1", &mobyregistry.AuthConfig{Username: "ann", Password: "s3cret"}); err == nil {
		t.Fatal("pulled from a thief")
	}
	select {
	case v := <-stolen:
		t.Fatal("credentials were sent elsewhere:", v)
	default:
	}
	f.hook = nil
	if err := r.pull(addr+"/app:1", nil); err != nil {
		t.Fatal("a mirror that refuses is in the way:", err)
	}
}

func TestDiskFull(t *testing.T) {
	_, addr := newFake(t)
	r := newRig(t, registry.Settings{})
	for _, point := range []string{"image/pull/commit=3*enospc", "image/unpack/sync=enospc", "image/unpack/commit=1*enospc"} {
		if err := failpoint.Arm(point); err != nil {
			t.Fatal(err)
		}
		err := r.pull(addr+"/app:1", nil)
		failpoint.Arm("")
		if !errs.Is(err, errs.Exhausted) {
			t.Fatal(point, err)
		}
		if list, err := r.store.Targets(t.Context(), addr+"/app:1"); err == nil {
			t.Fatalf("%s: recorded: %v", point, list)
		}
	}
	if err := r.pull(addr+"/app:1", nil); err != nil {
		t.Fatal(err)
	}
}

func TestUnreachable(t *testing.T) {
	_, addr := newFake(t)
	dead := httptest.NewServer(nil)
	gone := strings.TrimPrefix(dead.URL, "http://")
	dead.Close()
	r := newRig(t, registry.Settings{Attempts: 2})
	r.refused(r.pull(gone+"/app:1", nil), errs.Unavailable, "cannot be reached")
	r = newRig(t, registry.Settings{Mirrors: []string{addr + "=http://" + gone}})
	if err := r.pull(addr+"/app:1", nil); err != nil {
		t.Fatal("a dead mirror is in the way:", err)
	}
	if _, err := r.client.Login(t.Context(), mobyregistry.AuthConfig{ServerAddress: gone}); !errs.Is(err, errs.Unavailable) {
		t.Fatal(err)
	}
}

func TestSearch(t *testing.T) {
	f, addr := newFake(t)
	r := newRig(t, registry.Settings{})
	if _, err := r.client.Search(t.Context(), addr+"/web", 0, nil, nil); !errs.Is(err, errs.Unsupported) {
		t.Fatal(err)
	}
	f.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v1/search" || r.URL.Query().Get("q") != "web" {
			return false
		}
		w.Write([]byte(`{"results":[{"name":"a/web","star_count":7,"is_official":true},{"name":"b/web","star_count":1}]}`))
		return true
	}
	list, err := r.client.Search(t.Context(), addr+"/web", 0, model.Filters{"stars": {"3"}, "is-official": {"true"}}, nil)
	if err != nil || len(list) != 1 || list[0].Name != addr+"/a/web" {
		t.Fatal(list, err)
	}
	if _, err := r.client.Search(t.Context(), addr+"/web", 101, nil, nil); !errs.Is(err, errs.Invalid) {
		t.Fatal(err)
	}
}

// Foreign layers come from the address in the manifest when the registry has none; other layers never do.
func TestForeignLayers(t *testing.T) {
	f, addr := newFake(t)
	content := f.blobs[f.layer.Digest.String()]
	asked := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = true
		w.Write(content)
	}))
	t.Cleanup(elsewhere.Close)
	delete(f.blobs, f.layer.Digest.String())
	var m ocispec.Manifest
	if err := json.Unmarshal(f.manifests["1"], &m); err != nil {
		t.Fatal(err)
	}
	m.Layers[1].URLs = []string{elsewhere.URL + "/layer"}
	f.put("plain", m.MediaType, m)
	m.Layers[1].MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar"
	f.put("foreign", m.MediaType, m)
	r := newRig(t, registry.Settings{Attempts: 1})
	if err := r.pull(addr+"/app:plain", nil); err == nil || asked {
		t.Fatal("a manifest sent the daemon elsewhere:", err)
	}
	if err := r.pull(addr+"/app:foreign", nil); err != nil || !asked {
		t.Fatal(asked, err)
	}
}
