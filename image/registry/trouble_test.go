package registry_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	mobyregistry "github.com/moby/moby/api/types/registry"

	"github.com/shoalhq/shoal/image/registry"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// endless writes until nobody reads any more, or more than anybody should have read.
func endless(t *testing.T, w io.Writer, text string) {
	for n := 0; n < 64<<20; n += len(text) {
		if _, err := io.WriteString(w, text); err != nil {
			return
		}
	}
	t.Error("64 MB were read")
}

func isManifest(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }

// challenge answers what has no credentials with a challenge.
func challenge(text string) func(*fake, http.ResponseWriter, *http.Request) bool {
	return func(_ *fake, w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("WWW-Authenticate", text)
		w.WriteHeader(401)
		return true
	}
}

// A registry may do whatever it likes: the pull ends soon, with an error that says what it did, nothing is recorded, and the
// next pull, from the same registry in its right mind, works.
func TestHostileRegistry(t *testing.T) {
	block := make(chan struct{})
	stall := func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-block:
		case <-r.Context().Done():
		}
	}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/stall":
			stall(w, r)
		case "/endless":
			endless(t, w, strings.Repeat(" ", 1<<20))
		case "/nonsense":
			io.WriteString(w, "<html>")
		case "/empty":
			io.WriteString(w, "{}")
		case "/token":
			io.WriteString(w, `{"token":"t","access_token":"t"}`)
		default:
			http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
		}
	}))
	t.Cleanup(other.Close)
	t.Cleanup(func() { close(block) })
	type hook func(f *fake, w http.ResponseWriter, r *http.Request) bool
	at := func(where func(f *fake, r *http.Request) bool, do func(f *fake, w http.ResponseWriter, r *http.Request)) hook {
		return func(f *fake, w http.ResponseWriter, r *http.Request) bool {
			if !where(f, r) {
				return false
			}
			do(f, w, r)
			return true
		}
	}
	manifest := func(do func(f *fake, w http.ResponseWriter, r *http.Request)) hook {
		return at(func(_ *fake, r *http.Request) bool { return isManifest(r) }, do)
	}
	layer := func(do func(f *fake, w http.ResponseWriter, r *http.Request)) hook {
		return at(func(f *fake, r *http.Request) bool { return f.isLayer(r) }, do)
	}
	redirect := func(to string) func(f *fake, w http.ResponseWriter, r *http.Request) {
		return func(_ *fake, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, to, http.StatusTemporaryRedirect)
		}
	}
	for name, c := range map[string]struct {
		hook hook
		says string
	}{
		"manifest never comes": {manifest(func(_ *fake, w http.ResponseWriter, r *http.Request) { stall(w, r) }), ""},
		"manifest is reset":    {manifest(func(*fake, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), ""},
		"manifest without end": {manifest(func(_ *fake, w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				endless(t, w, strings.Repeat(" ", 1<<20))
			}
		}), ""},
		"manifest stalls in the middle": {manifest(func(f *fake, w http.ResponseWriter, r *http.Request) {
			if half(f, w); r.Method == http.MethodGet {
				stall(w, r)
			}
		}), ""},
		"manifest is cut off":             {manifest(func(f *fake, w http.ResponseWriter, r *http.Request) { half(f, w); panic(http.ErrAbortHandler) }), ""},
		"manifest has a lying digest":     {manifest(lie("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))), ""},
		"manifest has a nonsense digest":  {manifest(lie("Docker-Content-Digest", "sha256:../../etc/passwd")), ""},
		"manifest says it is huge":        {manifest(lie("Content-Length", "99999999999")), ""},
		"manifest is a web page":          {manifest(lie("Content-Type", "text/html")), ""},
		"manifest leads round in circles": {manifest(redirect("/v2/app/manifests/1")), ""},
		"manifest leads on and on":        {manifest(redirect(other.URL + "/on")), ""},
		"manifest leads to a file":        {manifest(redirect("file:///etc/passwd")), ""},
		"manifest leads to a gopher":      {manifest(redirect("gopher://127.0.0.1/x")), ""},
		"blob leads to a file":            {layer(redirect("file:///etc/passwd")), ""},
		"blob never comes":                {layer(func(_ *fake, w http.ResponseWriter, r *http.Request) { stall(w, r) }), ""},
		"blob without end":                {layer(func(_ *fake, w http.ResponseWriter, r *http.Request) { endless(t, w, strings.Repeat("x", 1<<20)) }), "more than"},
		"blob in other parts":             {layer(otherPart), ""},
		"blob says it is packed":          {layer(lie("Content-Encoding", "gzip")), ""},
		"challenge is nonsense":           {challenge("\x00nonsense"), ""},
		"challenge without a realm":       {challenge(`Bearer service="x"`), ""},
		"realm is a file":                 {challenge(`Bearer realm="file:///etc/passwd",service="x"`), ""},
		"realm is nonsense":               {challenge(`Bearer realm="::::"`), ""},
		"realm never answers":             {challenge(`Bearer realm="` + other.URL + `/stall",service="x"`), ""},
		"realm answers without end":       {challenge(`Bearer realm="` + other.URL + `/endless",service="x"`), ""},
		"realm answers nonsense":          {challenge(`Bearer realm="` + other.URL + `/nonsense",service="x"`), ""},
		"realm answers nothing":           {challenge(`Bearer realm="` + other.URL + `/empty",service="x"`), ""},
		"realm leads on and on":           {challenge(`Bearer realm="` + other.URL + `/on",service="x"`), ""},
		"token does not help":             {challenge(`Bearer realm="` + other.URL + `/token",service="x"`), ""},
		"password does not help":          {challenge(`Basic realm="x"`), ""},
	} {
		t.Run(name, func(t *testing.T) {
			f, addr := newFake(t)
			f.hook = func(w http.ResponseWriter, r *http.Request) bool { return c.hook(f, w, r) }
			set := registry.Settings{Attempts: 2}
			if strings.Contains(name, "never") || strings.Contains(name, "stalls") { // else a busy machine stalls, too
				set.Stall = 100 * time.Millisecond
			}
			r := newRig(t, set)
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err := r.client.Pull(ctx, addr+"/app:1", "linux/amd64", &mobyregistry.AuthConfig{Username: "ann", Password: "s3cret"}, func(model.ImageProgress) {})
			if err == nil || ctx.Err() != nil || strings.Contains(err.Error(), "s3cret") {
				t.Fatalf("after %v: %v", time.Since(start), err)
			}
			r.refused(err, errs.KindOf(err), c.says)
			if errs.Is(err, errs.Internal) {
				t.Error("no kind")
			}
			f.mu.Lock()
			if len(f.seen) > 40 {
				t.Errorf("%d requests", len(f.seen))
			}
			f.hook = nil
			f.mu.Unlock()
			r.set.Stall = 0
			if err := r.pull(addr+"/app:1", nil); err != nil {
				t.Fatal("the next pull:", err)
			}
		})
	}
}

// half sends the first half of the manifest.
func half(f *fake, w http.ResponseWriter) {
	data := f.manifests["1"]
	w.Header().Set("Content-Type", f.types["1"])
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.Write(data[:len(data)/2])
	w.(http.Flusher).Flush()
}

// lie answers truly, but for one header.
func lie(header, value string) func(f *fake, w http.ResponseWriter, r *http.Request) {
	return func(f *fake, w http.ResponseWriter, r *http.Request) {
		f.answer(&liar{ResponseWriter: w, header: header, value: value}, r)
	}
}

type liar struct {
	http.ResponseWriter
	header, value string
	told          bool
}

func (l *liar) WriteHeader(status int) {
	l.told = true
	l.Header().Set(l.header, l.value)
	l.ResponseWriter.WriteHeader(status)
}

func (l *liar) Write(p []byte) (int, error) {
	if !l.told {
		l.WriteHeader(200)
	}
	return l.ResponseWriter.Write(p)
}

// otherPart breaks off, and answers the request for the rest with another part.
func otherPart(f *fake, w http.ResponseWriter, r *http.Request) {
	data := f.blobs[f.layer.Digest.String()]
	if r.Header.Get("Range") == "" {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data[:1000])
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(data)-1, len(data)))
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(206)
	w.Write(data)
}

// A registry behind TLS cannot have the password sent to a token server without.
func TestRealmWithoutTLS(t *testing.T) {
	got := ""
	open := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		_, password, _ := r.BasicAuth()
		got += password + r.Form.Get("password")
		io.WriteString(w, `{"token":"t"}`)
	}))
	t.Cleanup(open.Close)
	f, _ := newFake(t)
	f.hook = func(w http.ResponseWriter, r *http.Request) bool {
		return challenge(`Bearer realm="`+open.URL+`/token",service="x"`)(f, w, r)
	}
	s := httptest.NewTLSServer(f)
	t.Cleanup(s.Close)
	r := newRig(t, registry.Settings{Attempts: 1})
	err := r.pull(strings.TrimPrefix(s.URL, "https://")+"/app:1", &mobyregistry.AuthConfig{Username: "ann", Password: "s3cret"})
	if !errs.Is(err, errs.Forbidden) || got != "" {
		t.Fatalf("sent %q: %v", got, err)
	}
}

// A list of tags without end ends.
func TestTagsWithoutEnd(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter, n int){
		"pages": func(w http.ResponseWriter, n int) {
			w.Header().Set("Link", fmt.Sprintf(`</v2/app/tags/list?last=%d>; rel="next"`, n))
			fmt.Fprintf(w, `{"tags":["t%d"]}`, n)
		},
		"one page": func(w http.ResponseWriter, _ int) {
			io.WriteString(w, `{"tags":["1"`)
			endless(t, w, strings.Repeat(`,"1"`, 1<<18))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, addr := newFake(t)
			n := 0
			f.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/tags/list") {
					return false
				}
				n++
				answer(w, n)
				return true
			}
			r := newRig(t, registry.Settings{Stall: time.Second, Attempts: 1})
			err := r.pull(addr+"/app", nil)
			if err == nil || n > 2000 {
				t.Fatalf("%d requests: %v", n, err)
			}
			r.refused(err, errs.KindOf(err))
		})
	}
}
