package plugin

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// FuzzSpec reads the files that say where plug-ins are.
func FuzzSpec(f *testing.F) {
	f.Add(".spec", []byte("unix:///run/x.sock\n"))
	f.Add(".spec", []byte("tcp://[::1]:80"))
	f.Add(".json", []byte(`{"Name":"x","Addr":"https://127.0.0.1:1","TLSConfig":{"InsecureSkipVerify":true,"CAFile":"/dev/null"}}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, ext string, data []byte) {
		path := filepath.Join(dir, "x.spec")
		if ext == ".json" {
			path = filepath.Join(dir, "x.json")
			if bytes.Contains(data, []byte("File")) && bytes.Contains(data, []byte("/")) {
				t.Skip() // it would open what the fuzzer names
			}
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if a, err := readSpec(path); err == nil && (a.addr == "" || a.network == "") {
			t.Errorf("%q: %+v", data, a)
		}
	})
}

type answers struct {
	status int
	body   []byte
}

func (a answers) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: a.status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(a.body))}, nil
}

// FuzzAnswer decodes what plug-ins answer.
func FuzzAnswer(f *testing.F) {
	f.Add(200, []byte(`{"Implements":["VolumeDriver"]}`))
	f.Add(200, []byte(`{"Err":"no space"}`))
	f.Add(500, []byte("plain"))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 599 {
			t.Skip()
		}
		p := &Plugin{Name: "x", of: New(Config{Call: time.Second}), http: &http.Client{Transport: answers{status, body},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
		var out struct {
			Allow      bool
			Implements []string
			Mountpoint string
		}
		if err := p.Call(context.Background(), "D.X", nil, &out); err == nil && status != http.StatusOK {
			t.Errorf("status %d was taken for a success", status)
		}
	})
}
