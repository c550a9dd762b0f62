//go:build kernel

package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// spec speaks with a registry as the distribution specification 1.1.1 has it.
type specClient struct {
	t    *testing.T
	addr string
}

type reply struct {
	code int
	head http.Header
	body []byte
}

// do asks; headers are pairs.
func (s specClient) do(method, path string, body []byte, headers ...string) reply {
	s.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = "http://" + s.addr + path
	}
	req, err := http.NewRequest(method, path, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, data}
}

// at is the upload's address with a query added.
func (r reply) at(addr, query string) string {
	u, _ := url.Parse(r.head.Get("Location"))
	base, _ := url.Parse("http://" + addr)
	u = base.ResolveReference(u)
	if query != "" {
		if u.RawQuery != "" {
			query = u.RawQuery + "&" + query
		}
		u.RawQuery = query
	}
	return u.String()
}

func (s specClient) push(repo string, blob []byte) digest.Digest {
	s.t.Helper()
	d := digest.FromBytes(blob)
	start := s.do("POST", "/v2/"+repo+"/blobs/uploads/", nil)
	if r := s.do("PUT", start.at(s.addr, "digest="+d.String()), blob, "Content-Type", "application/octet-stream"); r.code != 201 {
		s.t.Fatalf("push of a blob: %d %s", r.code, r.body)
	}
	return d
}

func (s specClient) manifest(config, blob []byte, subject *ocispec.Descriptor, artifact string) []byte {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifact, Subject: subject,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(blob), Size: int64(len(blob))}}}
	m.SchemaVersion = 2
	data, _ := json.Marshal(m)
	return data
}

// TestDistributionConformance goes through what the specification 1.1.1 demands of a registry, by its endpoints, against
// ours and against Debian's docker-registry as the witness that the questions are right. What that one, older than 1.1,
// does not have is named.
func TestDistributionConformance(t *testing.T) {
	const oci = ocispec.MediaTypeImageManifest
	for name, s := range map[string]specClient{"ours": {t, ours(t, nil)}, "docker-registry": {t, debian(t, "")}} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			is := func(what string, r reply, codes ...int) reply {
				t.Helper()
				for _, c := range codes {
					if r.code == c {
						return r
					}
				}
				t.Errorf("%s: status %d, want %v: %s", what, r.code, codes, r.body)
				return r
			}
			const repo = "conformance/one"
			config, blob := []byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`), []byte(strings.Repeat("blob", 1000))
			bd := digest.FromBytes(blob)

			// Push
			is("end-1: support of the API", s.do("GET", "/v2/", nil), 200)
			start := is("end-4a: open an upload", s.do("POST", "/v2/"+repo+"/blobs/uploads/", nil), 202)
			done := is("end-6: close it with all content", s.do("PUT", start.at(s.addr, "digest="+bd.String()), blob, "Content-Type", "application/octet-stream"), 201)
			is("end-2: the Location of a pushed blob", s.do("GET", done.at(s.addr, ""), nil), 200)
			single := []byte("in one request")
			is("end-4b: single POST, 201, or 202 and an upload", s.do("POST", "/v2/"+repo+"/blobs/uploads/?digest="+digest.FromBytes(single).String(), single, "Content-Type", "application/octet-stream"), 201, 202)
			is("a wrong digest is refused", s.do("PUT", is("open", s.do("POST", "/v2/"+repo+"/blobs/uploads/", nil), 202).at(s.addr, "digest="+digest.FromString("other").String()), blob, "Content-Type", "application/octet-stream"), 400)
			u := is("chunked: open", s.do("POST", "/v2/"+repo+"/blobs/uploads/", nil, "Content-Length", "0"), 202)
			half := len(blob)/2 + 1
			chunked := append([]byte("x"), blob...)
			u = is("end-5: first chunk", s.do("PATCH", u.at(s.addr, ""), chunked[:half], "Content-Type", "application/octet-stream", "Content-Range", fmt.Sprintf("0-%d", half-1)), 202)
			if got := u.head.Get("Range"); got != fmt.Sprintf("0-%d", half-1) {
				t.Errorf("end-5: Range is %q", got)
			}
			if name != "ours" { // docker-registry 2.8 takes chunks in any order: begin again with one
				u = is("chunked: open", s.do("POST", "/v2/"+repo+"/blobs/uploads/", nil), 202)
				u = is("end-5: first chunk", s.do("PATCH", u.at(s.addr, ""), chunked[:half], "Content-Type", "application/octet-stream"), 202)
			} else {
				is("end-5: a chunk out of order is 416", s.do("PATCH", u.at(s.addr, ""), chunked[half+5:], "Content-Type", "application/octet-stream", "Content-Range", fmt.Sprintf("%d-%d", half+5, len(chunked)-1)), 416)
			}
			u = is("end-13: status of the upload", s.do("GET", u.at(s.addr, ""), nil), 204)
			u = is("end-5: last chunk", s.do("PATCH", u.at(s.addr, ""), chunked[half:], "Content-Type", "application/octet-stream", "Content-Range", fmt.Sprintf("%d-%d", half, len(chunked)-1)), 202)
			is("end-6: close the chunked upload", s.do("PUT", u.at(s.addr, "digest="+digest.FromBytes(chunked).String()), nil), 201)
			is("end-11: mount from another repository", s.do("POST", "/v2/conformance/two/blobs/uploads/?mount="+bd.String()+"&from="+repo, nil), 201)
			is("end-11: a mount of what is not there opens an upload", s.do("POST", "/v2/conformance/two/blobs/uploads/?mount="+digest.FromString("none").String()+"&from="+repo, nil), 202)
			s.push(repo, config)
			m := s.manifest(config, blob, nil, "")
			md := digest.FromBytes(m)
			p := is("end-7: push a manifest by tag", s.do("PUT", "/v2/"+repo+"/manifests/one", m, "Content-Type", oci), 201)
			if p.head.Get("Location") == "" {
				t.Error("end-7: no Location")
			}
			is("end-7: push a manifest by digest", s.do("PUT", "/v2/"+repo+"/manifests/"+md.String(), m, "Content-Type", oci), 201)
			is("end-7: a manifest whose blobs are missing", s.do("PUT", "/v2/"+repo+"/manifests/bad", s.manifest(config, []byte("missing"), nil, ""), "Content-Type", oci), 400, 404)
			for _, tag := range []string{"two", "three"} {
				is("end-7: another tag", s.do("PUT", "/v2/"+repo+"/manifests/"+tag, m, "Content-Type", oci), 201)
			}

			// Pull
			for _, ref := range []string{"one", md.String()} {
				got := is("end-3: pull a manifest", s.do("GET", "/v2/"+repo+"/manifests/"+ref, nil, "Accept", oci), 200)
				if !bytes.Equal(got.body, m) || got.head.Get("Content-Type") != oci || got.head.Get("Docker-Content-Digest") != md.String() {
					t.Errorf("end-3: %v", got.head)
				}
				is("end-3: HEAD of a manifest", s.do("HEAD", "/v2/"+repo+"/manifests/"+ref, nil, "Accept", oci), 200)
			}
			missing := is("end-3: a manifest that is not there", s.do("GET", "/v2/"+repo+"/manifests/none", nil, "Accept", oci), 404)
			if !strings.Contains(string(missing.body), "MANIFEST_UNKNOWN") {
				t.Errorf("errors: %s", missing.body)
			}
			got := is("end-2: pull a blob", s.do("GET", "/v2/"+repo+"/blobs/"+bd.String(), nil), 200)
			if !bytes.Equal(got.body, blob) {
				t.Error("end-2: other content")
			}
			head := is("end-2: HEAD of a blob", s.do("HEAD", "/v2/"+repo+"/blobs/"+bd.String(), nil), 200)
			if head.head.Get("Content-Length") != fmt.Sprint(len(blob)) {
				t.Error("end-2: Content-Length", head.head)
			}
			part := is("end-2: a range of a blob", s.do("GET", "/v2/"+repo+"/blobs/"+bd.String(), nil, "Range", "bytes=4-7"), 206)
			if string(part.body) != "blob" {
				t.Errorf("end-2: range is %q", part.body)
			}
			is("end-2: a blob that is not there", s.do("GET", "/v2/"+repo+"/blobs/"+digest.FromString("none").String(), nil), 404)

			// Content discovery
			var tags struct{ Tags []string }
			all := is("end-8a: list tags", s.do("GET", "/v2/"+repo+"/tags/list", nil), 200)
			if err := json.Unmarshal(all.body, &tags); err != nil || strings.Join(tags.Tags, " ") != "one three two" && name == "ours" || len(tags.Tags) != 3 {
				t.Errorf("end-8a: %s %v", all.body, err)
			}
			is("end-8a: of a repository that is not there", s.do("GET", "/v2/conformance/none/tags/list", nil), 404)
			if name == "ours" { // docker-registry 2.8 has neither pages of tags nor referrers
				page := is("end-8b: a page of tags", s.do("GET", "/v2/"+repo+"/tags/list?n=1&last=one", nil), 200)
				if err := json.Unmarshal(page.body, &tags); err != nil || strings.Join(tags.Tags, " ") != "three" {
					t.Errorf("end-8b: %s %v", page.body, err)
				}
				s.referrers(repo, config, blob, m, is)
			}

			// Content management
			is("end-9: delete a tag", s.do("DELETE", "/v2/"+repo+"/manifests/three", nil), 202, 400, 405)
			is("end-9: delete a manifest", s.do("DELETE", "/v2/"+repo+"/manifests/"+md.String(), nil), 202)
			is("end-3: a deleted manifest", s.do("GET", "/v2/"+repo+"/manifests/"+md.String(), nil, "Accept", oci), 404)
			is("end-10: delete a blob", s.do("DELETE", "/v2/"+repo+"/blobs/"+bd.String(), nil), 202)
			is("end-2: a deleted blob", s.do("GET", "/v2/"+repo+"/blobs/"+bd.String(), nil), 404)
		})
	}
}

// referrers are what 1.1 brought.
func (s specClient) referrers(repo string, config, blob, m []byte, is func(string, reply, ...int) reply) {
	const oci = ocispec.MediaTypeImageManifest
	subject := ocispec.Descriptor{MediaType: oci, Digest: digest.FromBytes(m), Size: int64(len(m))}
	for _, kind := range []string{"application/vnd.example.a", "application/vnd.example.b"} {
		about := s.manifest(config, blob, &subject, kind)
		r := is("end-7: push with a subject", s.do("PUT", "/v2/"+repo+"/manifests/"+digest.FromBytes(about).String(), about, "Content-Type", oci), 201)
		if r.head.Get("OCI-Subject") != subject.Digest.String() {
			s.t.Error("end-7: OCI-Subject is", r.head)
		}
	}
	var index ocispec.Index
	for query, want := range map[string]int{"": 2, "?artifactType=application/vnd.example.a": 1} {
		r := is("end-12: referrers", s.do("GET", "/v2/"+repo+"/referrers/"+subject.Digest.String()+query, nil), 200)
		if err := json.Unmarshal(r.body, &index); err != nil || len(index.Manifests) != want || r.head.Get("Content-Type") != ocispec.MediaTypeImageIndex {
			s.t.Errorf("end-12%s: %s %v", query, r.body, err)
		}
		if query != "" && r.head.Get("OCI-Filters-Applied") != "artifactType" {
			s.t.Error("end-12b: OCI-Filters-Applied is", r.head)
		}
	}
	r := is("end-12a: of what nobody refers to", s.do("GET", "/v2/"+repo+"/referrers/"+digest.FromString("none").String(), nil), 200)
	if err := json.Unmarshal(r.body, &index); err != nil || len(index.Manifests) != 0 {
		s.t.Errorf("end-12a: %s %v", r.body, err)
	}
	is("end-12a: of what is no digest", s.do("GET", "/v2/"+repo+"/referrers/nonsense", nil), 400)
}
