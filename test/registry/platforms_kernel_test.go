//go:build kernel

package registry_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/image/registry"
	"github.com/shoalhq/shoal/lib/errs"
)

// multi makes an index of two platforms, and an attestation as buildx adds them, under the tag.
func multi(t *testing.T, addr, repo, tag string) {
	t.Helper()
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	s := freshStore(t)
	for _, arch := range []string{"amd64", "arm64"} {
		ref := addr + "/" + repo + ":" + arch
		load(t, s, imagetest.Docker(sample(t, ref, arch)))
		if err := client(s, registry.Settings{}).Push(t.Context(), ref, "", nil, nil); err != nil {
			t.Fatal(err)
		}
		img, err := s.Resolve(t.Context(), ref, "")
		if err != nil {
			t.Fatal(err)
		}
		targets, err := s.Targets(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		d := targets[0].Target
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: img.Platform.Architecture}
		index.Manifests = append(index.Manifests, d)
	}
	attestation := index.Manifests[0]
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": index.Manifests[0].Digest.String()}
	index.Manifests = append([]ocispec.Descriptor{attestation}, index.Manifests...)
	data, _ := json.Marshal(index)
	req, _ := http.NewRequest(http.MethodPut, "http://"+addr+"/v2/"+repo+"/manifests/"+tag, bytes.NewReader(data))
	req.Header.Set("Content-Type", index.MediaType)
	res, err := http.DefaultClient.Do(req)
	if err != nil || res.StatusCode != http.StatusCreated {
		t.Fatal(res, err)
	}
	res.Body.Close()
}

func TestPlatforms(t *testing.T) {
	addr := ours(t, nil)
	multi(t, addr, "multi", "all")
	ref := addr + "/multi:all"
	s := freshStore(t)
	c := client(s, registry.Settings{})
	if err := c.Pull(t.Context(), ref, "linux/s390x", nil, nil); !errs.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "linux/amd64, linux/arm64") {
		t.Fatal(err)
	}
	// The other platform first: then this host's must be found as soon as it is there.
	for _, arch := range []string{"arm64", "amd64"} {
		if err := c.Pull(t.Context(), ref, "linux/"+arch, nil, nil); err != nil {
			t.Fatal(err)
		}
		for _, platform := range []string{"", "linux/" + arch} {
			img, err := s.Resolve(t.Context(), ref, platform)
			if err != nil || img.Platform.Architecture != arch || img.Config.Labels["name"] != addr+"/multi:"+arch {
				t.Fatalf("asked for %q after %s came: %+v %v", platform, arch, img, err)
			}
		}
	}
	fresh := freshStore(t)
	c = client(fresh, registry.Settings{})
	if err := c.Pull(t.Context(), ref, "linux/arm64", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := fresh.Tag(t.Context(), ref, addr+"/part:1"); err != nil {
		t.Fatal(err)
	}
	var l lines
	if err := c.Push(t.Context(), addr+"/part:1", "", nil, l.tell); err != nil {
		t.Fatal(err)
	}
	l.want(t, "Only one platform of the image is here", "Mounted from multi")
	if out := skopeo(t, "inspect", "--raw", "--tls-verify=false", "docker://"+addr+"/part:1"); !strings.Contains(out, `"layers"`) {
		t.Fatal(out)
	}
	if err := c.Push(t.Context(), addr+"/part:1", "linux/amd64", nil, nil); !errs.Is(err, errs.NotFound) {
		t.Fatal(err)
	}
}

// Several pulls of the same image at once share the downloads and leave one image; a removal meanwhile does no harm.
func TestPullsAtOnce(t *testing.T) {
	addr := ours(t, nil)
	ref := addr + "/app:1"
	s := freshStore(t)
	load(t, s, imagetest.Docker(sample(t, ref, "amd64"), sample(t, "other:1", "amd64")))
	c := client(s, registry.Settings{})
	if err := c.Push(t.Context(), ref, "", nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), ref, removeOptions); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			if i == 5 {
				s.Remove(t.Context(), "other:1", removeOptions) // collects
				return
			}
			if err := c.Pull(t.Context(), ref, "", nil, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	img, err := s.Resolve(t.Context(), ref, "")
	if err != nil {
		t.Fatal(err)
	}
	if dirs, err := s.Lowers(t.Context(), img.ID); err != nil || len(dirs) != 3 {
		t.Fatal(dirs, err)
	}
	if _, err := s.Remove(t.Context(), ref, removeOptions); err != nil {
		t.Fatal(err)
	}
	if u, err := s.DiskUsage(t.Context()); err != nil || u.ContentSize != 0 || u.LayersSize != 0 {
		t.Fatalf("something is left: %+v %v", u, err)
	}
}

// chunked packs as zstd:chunked does: several frames, and frames between and behind them that a reader skips.
func chunked(b []byte) []byte {
	skipped := append(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 0x184D2A50), 64), make([]byte, 64)...)
	half := len(b) / 2
	return slices.Concat(imagetest.Zstd(b[:half]), skipped, imagetest.Zstd(b[half:]), skipped)
}

// Zstandard and plain layers, and the same layer twice.
func TestPackings(t *testing.T) {
	addr := ours(t, nil)
	for name, pack := range map[string]func([]byte) []byte{"zstd": imagetest.Zstd, "zstd-chunked": chunked, "plain": nil, "gzip": imagetest.Gzip} {
		img := sample(t, addr+"/packed:"+name, "amd64")
		img.Pack = pack
		img.Layers = append(img.Layers, img.Layers[1])
		s := freshStore(t)
		load(t, s, imagetest.Docker(img))
		if err := client(s, registry.Settings{}).Push(t.Context(), img.Tags[0], "", nil, nil); err != nil {
			t.Fatal(name, err)
		}
		fresh := freshStore(t)
		if err := client(fresh, registry.Settings{}).Pull(t.Context(), img.Tags[0], "", nil, nil); err != nil {
			t.Fatal(name, err)
		}
		got, err := fresh.Resolve(t.Context(), img.Tags[0], "")
		if err != nil || len(got.DiffIDs) != 4 || digest.Digest(got.DiffIDs[3]) != digest.FromBytes(img.Layers[1]) {
			t.Fatal(name, got, err)
		}
	}
}

func TestAllTagsAndDistribution(t *testing.T) {
	for name, addr := range map[string]string{"ours": ours(t, nil), "debian": debian(t, "")} {
		s := freshStore(t)
		c := client(s, registry.Settings{})
		for _, tag := range []string{"1", "2", "three"} {
			ref := addr + "/tags:" + tag
			load(t, s, imagetest.Docker(sample(t, ref, "amd64")))
		}
		var pushed lines
		if err := c.Push(t.Context(), addr+"/tags", "", nil, pushed.tell); err != nil {
			t.Fatal(name, err)
		}
		pushed.want(t, "1: digest:", "2: digest:", "three: digest:")
		for _, tag := range []string{"1", "2"} { // the same image by two names
			if err := s.Tag(t.Context(), addr+"/tags:1", addr+"/same:"+tag); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Push(t.Context(), addr+"/same", "", nil, nil); err != nil {
			t.Fatal(name, err)
		}
		for _, tag := range []string{"1", "2"} {
			if _, err := c.Distribution(t.Context(), addr+"/same:"+tag, nil); err != nil {
				t.Fatal(name, err)
			}
		}
		fresh := freshStore(t)
		if err := client(fresh, registry.Settings{}).Pull(t.Context(), addr+"/tags", "", nil, nil); err != nil {
			t.Fatal(name, err)
		}
		if list, err := fresh.Targets(t.Context(), addr+"/tags"); err != nil || len(list) != 3 {
			t.Fatal(name, list, err)
		}
		d, err := c.Distribution(t.Context(), addr+"/tags:2", nil)
		if err != nil || len(d.Platforms) != 1 || d.Platforms[0].Architecture != "amd64" || d.Descriptor.Digest == "" {
			t.Fatal(name, d, err)
		}
		if _, err := c.Distribution(t.Context(), addr+"/tags:none", nil); !errs.Is(err, errs.NotFound) {
			t.Fatal(name, err)
		}
		if err := c.Pull(t.Context(), addr+"/none-at-all", "", nil, nil); !errs.Is(err, errs.NotFound) {
			t.Fatal(name, err)
		}
	}
	addr := ours(t, nil)
	multi(t, addr, "multi", "all")
	d, err := client(freshStore(t), registry.Settings{}).Distribution(t.Context(), addr+"/multi:all", nil)
	if err != nil || len(d.Platforms) != 2 || d.Descriptor.MediaType != ocispec.MediaTypeImageIndex {
		t.Fatal(d, err)
	}
}
