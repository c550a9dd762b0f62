//go:build kernel

package chaos

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// smallRegistry serves images of one layer from memory, in the world's network.
type smallRegistry struct {
	addr  string
	mu    sync.Mutex
	files map[string][]byte // by digest and by tag
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func newRegistry(t *testing.T, w *world.World) *smallRegistry {
	r := &smallRegistry{files: map[string][]byte{}}
	var l net.Listener
	var err error
	w.InNet(func() { l, err = net.Listen("tcp", "127.0.0.1:0") })
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	s := &http.Server{Handler: r}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return r
}

// add makes an image with one file of this content and gives its reference.
func (r *smallRegistry) add(content string) string {
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	tw.WriteHeader(&tar.Header{Name: "file", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))})
	tw.Write([]byte(content))
	tw.Close()
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","config":{"Cmd":["/file"]},"rootfs":{"type":"layers","diff_ids":[%q]}}`, digest(layer.Bytes()))
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		manifestType, digest(config), len(config), digest(layer.Bytes()), layer.Len())
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range [][]byte{layer.Bytes(), config, manifest} {
		r.files[digest(b)] = b
	}
	tag := digest(manifest)[7:19]
	r.files[tag] = manifest
	return r.addr + "/made:" + tag
}

func (r *smallRegistry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == "/v2/" {
		return
	}
	parts := strings.Split(req.URL.Path, "/")
	r.mu.Lock()
	b, ok := r.files[parts[len(parts)-1]]
	r.mu.Unlock()
	if !ok {
		http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"not here"}]}`, http.StatusNotFound)
		return
	}
	w.Header().Set("Docker-Content-Digest", digest(b))
	w.Header().Set("Content-Type", "application/octet-stream")
	if parts[len(parts)-2] == "manifests" {
		w.Header().Set("Content-Type", manifestType)
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	if req.Method != http.MethodHead {
		w.Write(b)
	}
}
