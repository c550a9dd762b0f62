package server

import (
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/shoalhq/shoal/api/convert"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/model"
)

func FuzzDecodeCreate(f *testing.F) {
	f.Add([]byte(`{"Image":"i","Cmd":["a"],"HostConfig":{"Binds":["a:b"]}}`))
	f.Add([]byte("{\n\"Image\":5}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var b convert.CreateBody
		if err := decodeJSON(data, &b); err != nil && err.Error() == "" {
			t.Fatal("an error without a sentence")
		}
	})
}

func FuzzFilters(f *testing.F) {
	f.Add(`{"label":["a=b"]}`)
	f.Add(`{"label":{"a=b":true,"c":false}}`)
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseFilters(s)
		if err != nil {
			return
		}
		again, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseFilters(string(again)); err != nil {
			t.Fatalf("%q was read as %s, which cannot be read: %v", s, again, err)
		}
		matchEvent(&model.Event{Type: "container", ID: "a", Attrs: map[string]string{"name": "n"}}, got)
	})
}

func FuzzQuery(f *testing.F) {
	f.Add("since=1.5&until=10m&tail=5&h=1&w=2&platform={}", "/v1.24/images/a/b/json")
	f.Add("filters={}&limit=-1&t=x", "/v1.44/containers/x/json")
	f.Fuzz(func(t *testing.T, raw, path string) {
		if version, rest, ok := cutVersion(path); ok {
			if rest[0] != '/' {
				t.Fatalf("%q %q", version, rest)
			}
			checkVersion(version)
		}
		q, err := parseQuery(&http.Request{URL: &url.URL{RawQuery: raw}})
		if err != nil {
			return
		}
		for key := range q.Values {
			q.bool(key)
			q.int(key, 0)
			eventTime(q, key, time.Unix(0, 0))
			parseTime(q.Get(key))
			platforms(q.Values[key])
			q.filters("label")
		}
		q.size()
		logOptions(q, types.MaxVersion)
	})
}

// The stat header carries every path stat whole.
func FuzzStatHeader(f *testing.F) {
	f.Add("motd", int64(5), uint32(0o644), "../x\n")
	f.Fuzz(func(t *testing.T, name string, size int64, mode uint32, link string) {
		w := httptest.NewRecorder()
		if err := setStat(w, &model.PathStat{Name: name, Size: size, Mode: fs.FileMode(mode), LinkTarget: link}); err != nil {
			t.Fatal(err)
		}
		data, err := base64.StdEncoding.DecodeString(w.Header().Get("X-Docker-Container-Path-Stat"))
		if err != nil {
			t.Fatal(err)
		}
		var got container.PathStat
		if err := json.Unmarshal(data, &got); err != nil || got.Size != size || uint32(got.Mode) != mode {
			t.Fatalf("%s %v", data, err)
		}
	})
}

func FuzzRegistryAuth(f *testing.F) {
	f.Add("eyJ1c2VybmFtZSI6ImEifQ==")
	f.Fuzz(func(t *testing.T, h string) {
		registryAuth(&http.Request{Header: http.Header{"X-Registry-Auth": {h}}})
	})
}
