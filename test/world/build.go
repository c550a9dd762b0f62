//go:build kernel

package world

import (
	"archive/tar"
	"bytes"
	"io"
	"maps"
	"net/http"
	"slices"
)

// Archive makes a build's context: a tar of the files by name, in the order of their names.
func Archive(files map[string]string) []byte {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		t.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(files[name])), Typeflag: tar.TypeReg})
		io.WriteString(t, files[name])
	}
	t.Close()
	return b.Bytes()
}

// Build posts a context to the classic build endpoint. The answer is the stream of messages.
func (w *World) Build(query string, archive []byte) Answer {
	req, err := http.NewRequest(http.MethodPost, "http://docker/build?"+query, bytes.NewReader(archive))
	if err != nil {
		return Answer{Err: err}
	}
	req.Header.Set("Content-Type", "application/x-tar")
	resp, err := w.Client().Do(req)
	if err != nil {
		return Answer{Err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return Answer{Code: resp.StatusCode, Body: body, Err: err}
}
