package importdocker

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vbatts/tar-split/tar/storage"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/openat/openattest"
)

// A layer's headers name files of an image; none is looked for outside the layer, whatever links lead there.
func TestLayerFilesStayInside(t *testing.T) {
	openattest.Need(t)
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	layer := filepath.Join(dir, "diff")
	os.Mkdir(layer, 0o755)
	os.Symlink(secret, filepath.Join(layer, "link"))
	os.Symlink(dir, filepath.Join(layer, "up"))
	os.WriteFile(filepath.Join(layer, "own"), []byte("o"), 0o600)
	os.Symlink("/own", filepath.Join(layer, "within"))
	split := func(name string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		p := storage.NewJSONPacker(z)
		if _, err := p.AddEntry(storage.Entry{Type: storage.FileType, Name: name, Size: 1, Payload: make([]byte, 8)}); err != nil {
			t.Fatal(err)
		}
		z.Close()
		path := filepath.Join(dir, "split.json.gz")
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, name := range []string{"link", "../secret", "up/secret", secret, "/../../" + secret} {
		var out bytes.Buffer
		if err := assemble(&out, split(name), layer); errs.KindOf(err) != errs.Damaged || out.Len() > 0 {
			t.Errorf("%s: %v, %q", name, err, out.String())
		}
	}
	for _, name := range []string{"own", "/own", "x/../own", "within"} { // opened; the checksum of zeros is not theirs
		if err := assemble(&bytes.Buffer{}, split(name), layer); err == nil || !strings.Contains(err.Error(), "checksum") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What Docker knew of mounts, names and addresses goes into the request; what it had made up does not.
func TestContainerBody(t *testing.T) {
	id := strings.Repeat("ab", 32)
	c := &container{ID: id, Name: "web", Config: map[string]json.RawMessage{"Hostname": json.RawMessage(`"` + id[:12] + `"`), "MacAddress": json.RawMessage(`"02:00:00:00:00:01"`)},
		host: map[string]json.RawMessage{"NetworkMode": json.RawMessage(`"netid"`), "PidMode": json.RawMessage(`"container:other"`),
			"Binds": json.RawMessage(`["data:/d:ro","/anonymous"]`), "VolumesFrom": json.RawMessage(`["x"]`),
			"Mounts": json.RawMessage(`[{"Type":"volume","Target":"/m"}]`)},
		MountPoints: map[string]mountPoint{
			"/d": {Type: "volume", Name: "data"}, "/anonymous": {Type: "volume", Name: "v1", RW: true}, "/m": {Type: "volume", Name: "v2"},
			"/from": {Type: "bind", Source: "/host"}, "/tmp": {Type: "tmpfs"}}}
	c.NetworkSettings.Networks = map[string]*endpoint{"front": {Aliases: []string{"w", id[:12]}}, "gone": nil}
	data, err := c.body("app:1", map[string]string{"other": "db", "netid": "front"})
	if err != nil {
		t.Fatal(err)
	}
	var b struct {
		Image, Hostname, MacAddress string
		HostConfig                  struct {
			NetworkMode, PidMode string
			Binds, VolumesFrom   []string
			Mounts               []struct{ Source string }
		}
		NetworkingConfig struct{ EndpointsConfig map[string]endpoint }
	}
	if err := json.Unmarshal(data, &b); err != nil {
		t.Fatal(err)
	}
	h := b.HostConfig
	if b.Image != "app:1" || b.Hostname != "" || b.MacAddress != "" || h.NetworkMode != "front" || h.PidMode != "container:db" || h.VolumesFrom != nil {
		t.Errorf("%s", data)
	}
	if got := strings.Join(h.Binds, " "); got != "data:/d:ro v1:/anonymous /host:/from:ro" || h.Mounts[0].Source != "v2" {
		t.Errorf("mounts: %q, %+v", got, h.Mounts)
	}
	if e := b.NetworkingConfig.EndpointsConfig; len(e) != 2 || strings.Join(e["front"].Aliases, " ") != "w" {
		t.Errorf("endpoints: %+v", e)
	}
}

func TestOrderOfContainers(t *testing.T) {
	c := func(name, mode string) *container {
		return &container{ID: "id-" + name, Name: name, host: map[string]json.RawMessage{"NetworkMode": json.RawMessage(`"` + mode + `"`)}}
	}
	var names []string
	for _, c := range inOrder([]*container{c("a", "container:id-c"), c("b", "bridge"), c("c", "container:b"), c("x", "container:y"), c("y", "container:x")}) {
		names = append(names, c.Name)
	}
	if got := strings.Join(names, " "); got != "b c a y x" {
		t.Errorf("order: %s", got)
	}
}
