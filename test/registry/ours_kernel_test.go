//go:build kernel

package registry_test

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	mobyregistry "github.com/moby/moby/api/types/registry"
	"golang.org/x/crypto/bcrypt"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/image/registry"
	"github.com/shoalhq/shoal/image/server"
	"github.com/shoalhq/shoal/lib/errs"
)

// ours serves Shoal's registry on loopback, over a store of its own or the one given.
func ours(t *testing.T, change func(*server.Config)) (addr string) {
	t.Helper()
	cfg := server.Config{Dir: filepath.Join(t.TempDir(), "registry")}
	if change != nil {
		change(&cfg)
	}
	if cfg.Store == nil {
		cfg.Store = freshStore(t)
	}
	s, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s)
	t.Cleanup(func() { h.Close(); s.Close() })
	return strings.TrimPrefix(h.URL, "http://")
}

func TestPushToOurRegistry(t *testing.T) { pushTo(t, ours(t, nil)) }

func TestSkopeoWithOurRegistry(t *testing.T) {
	addr := ours(t, nil)
	for _, format := range []string{"v2s2", "oci"} {
		ref := addr + "/team/app:" + format
		put(t, imagetest.Docker(sample(t, "app:1", "amd64")), ref, "--format", format)
		skopeo(t, "copy", "--insecure-policy", "--src-tls-verify=false", "docker://"+ref, "dir:"+t.TempDir())
		if err := client(freshStore(t), registry.Settings{}).Pull(t.Context(), ref, "", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if out := skopeo(t, "list-tags", "--tls-verify=false", "docker://"+addr+"/team/app"); !strings.Contains(out, "oci") {
		t.Fatal(out)
	}
	skopeo(t, "delete", "--tls-verify=false", "docker://"+addr+"/team/app:oci")
	if out := skopeo(t, "list-tags", "--tls-verify=false", "docker://"+addr+"/team/app"); strings.Contains(out, "oci") {
		t.Fatal(out)
	}
}

// A registry over the daemon's own store has no second copy, and what is removed there stays in the registry.
func TestRegistryOverTheSameStore(t *testing.T) {
	s := freshStore(t)
	addr := ours(t, func(c *server.Config) { c.Store = s })
	ref := addr + "/app:1"
	load(t, s, imagetest.Docker(sample(t, ref, "amd64")))
	before, _ := s.DiskUsage(t.Context())
	c := client(s, registry.Settings{})
	if err := c.Push(t.Context(), ref, "", nil, nil); err != nil {
		t.Fatal(err)
	}
	after, err := s.DiskUsage(t.Context())
	if err != nil || after.ContentSize != before.ContentSize {
		t.Fatalf("%d bytes became %d: %v", before.ContentSize, after.ContentSize, err)
	}
	if _, err := s.Remove(t.Context(), ref, removeOptions); err != nil {
		t.Fatal(err)
	}
	if err := client(freshStore(t), registry.Settings{}).Pull(t.Context(), ref, "", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Pull(t.Context(), ref, "", nil, nil); err != nil {
		t.Fatal(err)
	}
}

func TestCredentials(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("s3cret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(file, []byte("# users\nann:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	users, err := server.ReadUsers(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, addr := range map[string]string{
		"ours":   ours(t, func(c *server.Config) { c.Users = users }),
		"debian": debian(t, "auth: {htpasswd: {realm: test, path: "+file+"}}\n"),
	} {
		t.Run(name, func(t *testing.T) {
			s := freshStore(t)
			c := client(s, registry.Settings{})
			good := &mobyregistry.AuthConfig{Username: "ann", Password: "s3cret", ServerAddress: addr}
			wrong := &mobyregistry.AuthConfig{Username: "ann", Password: "no", ServerAddress: addr}
			if res, err := c.Login(t.Context(), *good); err != nil || res.Status != "Login Succeeded" {
				t.Fatal(res, err)
			}
			for _, auth := range []mobyregistry.AuthConfig{*wrong, {ServerAddress: addr}, {ServerAddress: addr, Username: "bob", Password: "s3cret"}} {
				if _, err := c.Login(t.Context(), auth); !errs.Is(err, errs.Unauthorized) {
					t.Fatal(err)
				} else {
					t.Log(err)
				}
			}
			ref := addr + "/app:1"
			load(t, s, imagetest.Docker(sample(t, ref, "amd64")))
			for _, auth := range []*mobyregistry.AuthConfig{nil, wrong} {
				if err := c.Push(t.Context(), ref, "", auth, nil); err == nil || !strings.Contains(err.Error(), "denied") {
					t.Fatal(err)
				} else {
					t.Log(err)
				}
			}
			if err := c.Push(t.Context(), ref, "", good, nil); err != nil {
				t.Fatal(err)
			}
			if err := c.Pull(t.Context(), ref, "", nil, nil); err == nil || !strings.Contains(err.Error(), "pull access denied") {
				t.Fatal(err)
			}
			if err := c.Pull(t.Context(), ref, "", good, nil); err != nil {
				t.Fatal(err)
			}
			skopeo(t, "inspect", "--tls-verify=false", "--creds", "ann:s3cret", "docker://"+ref)
		})
	}
}

func TestPullThrough(t *testing.T) {
	upstream := debian(t, "")
	ref := upstream + "/team/app:1"
	put(t, imagetest.Docker(sample(t, "app:1", "amd64")), ref)
	cacheStore := freshStore(t)
	cache := ours(t, func(c *server.Config) {
		c.Store = cacheStore
		c.Upstream = &server.Upstream{Client: client(cacheStore, registry.Settings{}), Domain: upstream}
	})
	mirrored := registry.Settings{Mirrors: []string{upstream + "/team=http://" + cache}}
	for range 2 {
		if err := client(freshStore(t), registry.Settings{}).Pull(t.Context(), cache+"/team/app:1", "", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if u, err := cacheStore.DiskUsage(t.Context()); err != nil || u.ContentSize == 0 {
		t.Fatal("the cache kept nothing:", err)
	}
	put(t, imagetest.Docker(sample(t, "app:2", "amd64")), ref) // the tag moves
	s := freshStore(t)
	if err := client(s, mirrored).Pull(t.Context(), ref, "", nil, nil); err != nil {
		t.Fatal(err)
	}
	if img, err := s.Resolve(t.Context(), ref, ""); err != nil || img.Config.Labels["name"] != "app:2" {
		t.Fatal("the cache serves an old tag:", img.Config.Labels, err)
	}
	if err := client(s, registry.Settings{}).Push(t.Context(), cache+"/team/app:1", "", nil, nil); err == nil {
		t.Fatal("a cache took a push")
	}
	if err := client(freshStore(t), registry.Settings{}).Pull(t.Context(), cache+"/team/none:1", "", nil, nil); !errs.Is(err, errs.NotFound) {
		t.Fatal(err)
	}
}
