//go:build kernel

package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/world"
)

// hostileConfigs change toolbox's config: values that no sound tool writes. Each is either refused at the load, or loads, and
// then runs or is refused at the run. What is refused is named.
var hostileConfigs = []struct {
	name   string
	change string // JSON, merged into the config; MANY(n, text) is the text n times, with %d counting
	load   string // the refusal at the load
	run    string // the refusal at the run; "" and load "" when it runs
}{
	{name: "user that is long", change: `{"config": {"User": "MANY(100000,a)"}}`, run: "user"},
	{name: "user of a path", change: `{"config": {"User": "../../etc/shadow"}}`, run: "../../etc/shadow"},
	{name: "user below zero", change: `{"config": {"User": "-1"}}`, run: "range 0-2147483647"},
	{name: "user beyond numbers", change: `{"config": {"User": "99999999999"}}`, run: "range 0-2147483647"},
	{name: "user of parts", change: `{"config": {"User": "0:0:0"}}`, run: "0:0"},
	{name: "variables without value", change: `{"config": {"Env": ["NOVALUE", "A=B=C", "A=twice"]}}`},
	{name: "variable without name", change: `{"config": {"Env": ["=x"]}}`, run: "=x"},
	{name: "variable with zero byte", change: `{"config": {"Env": ["A=\u0000B"]}}`, run: "environment"},
	{name: "100,000 variables", change: `{"config": {"Env": [MANY(100000,"V%d=x",) "Z=1"]}}`},
	{name: "entrypoint that is long", change: `{"config": {"Entrypoint": [MANY(100000,"abcdefghijklmnopqrstuvwxyzabcdefghijklmn",) "x"]}}`, run: "abcdefgh"},
	{name: "entrypoint of nothing", change: `{"config": {"Entrypoint": [""]}}`}, /* as Docker: none */
	{name: "entrypoint that is no list", change: `{"config": {"Entrypoint": "sh"}}`, load: "Entrypoint"},
	{name: "directory above the root", change: `{"config": {"WorkingDir": "../.."}}`, run: "../.."},
	{name: "directory with zero byte", change: `{"config": {"WorkingDir": "/a\u0000b"}}`, run: "orking"},
	{name: "directory too long", change: `{"config": {"WorkingDir": "/MANY(5000,a)"}}`, run: "orking"},
	{name: "volume over the root", change: `{"config": {"Volumes": {"/": {}}}}`, run: "/"},
	{name: "volume without path", change: `{"config": {"Volumes": {"": {}}}}`, run: "mount path"},
	{name: "volume above the root", change: `{"config": {"Volumes": {"../../x": {}}}}`, run: "../../x"},
	{name: "volume over /proc", change: `{"config": {"Volumes": {"/proc": {}}}}`, run: "/proc"},
	{name: "10,000 volumes", change: `{"config": {"Volumes": {MANY(10000,"/v%d":{},) "/z":{}}}}`, run: "10001 volumes"},
	{name: "port that is none", change: `{"config": {"ExposedPorts": {"nonsense": {}}}}`, run: "nonsense"},
	{name: "port beyond numbers", change: `{"config": {"ExposedPorts": {"99999/tcp": {}}}}`, run: "99999"},
	{name: "port of a protocol that is none", change: `{"config": {"ExposedPorts": {"80/xyz": {}}}}`, run: "xyz"},
	{name: "60,000 ports", change: `{"config": {"ExposedPorts": {MANY(60000,"%d/tcp":{},) "1/udp":{}}}}`},
	{name: "made before all time", change: `{"created": "-0001-01-01T00:00:00Z"}`, load: "time"},
	{name: "made in the year 0", change: `{"created": "0000-01-01T00:00:00Z"}`},
	{name: "made in the year 9999", change: `{"created": "9999-12-31T23:59:59Z"}`},
	{name: "labels of 10 MB", change: `{"config": {"Labels": {"a": "MANY(10485760,a)"}}}`, load: "at most"},
	{name: "labels of 6 MB", change: `{"config": {"Labels": {"a": "MANY(6291456,a)"}}}`},
	{name: "100,000 steps of history", change: `{"history": [MANY(100000,{"empty_layer":true,"created_by":"x"},) {"created_by":"y"}]}`},
	{name: "more steps than layers", change: `{"history": [MANY(100,{"created_by":"x"},) {"created_by":"y"}]}`},
	{name: "a stop signal that is none", change: `{"config": {"StopSignal": "SIGNONSENSE"}}`, run: "SIGNONSENSE"},
	{name: "a health check that is none", change: `{"config": {"Healthcheck": {"Test": ["WAT"], "Interval": -5, "Retries": -1}}}`, run: "ealth"},
	{name: "layers without number", change: `{"rootfs": {"type": "layers", "diff_ids": [MANY(60000,"sha256:0000000000000000000000000000000000000000000000000000000000000000",) "x"]}}`, load: "layers"},
	{name: "no layers", change: `{"rootfs": {"type": "layers", "diff_ids": null}}`, load: "layers"},
	{name: "a config without end", change: `{"x": MANY(20000,[)}`, load: "max depth"},
}

// many writes MANY(n,text) out.
func many(s string) string {
	at := strings.Index(s, "MANY(")
	if at < 0 {
		return s
	}
	n, end, depth := 0, 0, 1
	fmt.Sscanf(s[at:], "MANY(%d,", &n)
	begin := at + strings.IndexByte(s[at:], ',') + 1
	for end = begin; depth > 0; end++ {
		switch s[end] {
		case '(':
			depth++
		case ')':
			depth--
		}
	}
	var b strings.Builder
	b.WriteString(s[:at])
	text := s[begin : end-1]
	for i := range n {
		if strings.Contains(text, "%d") {
			fmt.Fprintf(&b, text, i+1)
		} else {
			b.WriteString(text)
		}
	}
	return b.String() + s[end:]
}

// merge puts the members of JSON objects into others.
func merge(into, from map[string]json.RawMessage) {
	for k, v := range from {
		var a, b map[string]json.RawMessage
		if k == "config" && json.Unmarshal(into[k], &a) == nil && json.Unmarshal(v, &b) == nil {
			merge(a, b)
			v, _ = json.Marshal(a)
		}
		into[k] = v
	}
}

// TestHostileConfigs: images whose configs are absurd do no harm, and what cannot be is said.
func TestHostileConfigs(t *testing.T) {
	w := world.New(t)
	w.Must(w.Shoal("run", "--rm", "toolbox", "true"))
	file := t.TempDir() + "/toolbox.tar"
	w.Must(w.Shoal("save", "-o", file, "toolbox"))
	config, layers := savedParts(t, file)
	for i, c := range hostileConfigs {
		t.Run(c.name, func(t *testing.T) {
			begun := world.Worked(w.DaemonPid())
			doc := []byte(many(c.change))
			var change, whole map[string]json.RawMessage
			if json.Unmarshal(doc, &change) == nil {
				json.Unmarshal(config, &whole)
				merge(whole, change)
				doc, _ = json.Marshal(whole)
			}
			ref := fmt.Sprintf("hostile:%d", i)
			a := w.API("POST", "/images/load?quiet=1", dockerArchive(ref, doc, layers))
			if c.load != "" {
				if !strings.Contains(string(a.Body), c.load) || strings.Contains(string(a.Body), "Loaded") || len(a.Body) > 4000 {
					t.Errorf("load: want a refusal with %q: %d %.500s", c.load, a.Code, a.Body)
				}
				return
			}
			if !strings.Contains(string(a.Body), "Loaded image") {
				t.Fatalf("load: %d %.500s", a.Code, a.Body)
			}
			for _, path := range []string{"/images/" + ref + "/json", "/images/" + ref + "/history", "/images/json?manifests=1"} {
				if a := w.API("GET", path, nil); a.Code != 200 {
					t.Errorf("%s: %d %.500s", path, a.Code, a.Body)
				}
			}
			code, said := tryRun(w, ref)
			if c.run == "" && code != 204 || c.run != "" && (code < 400 || !strings.Contains(said, c.run)) || len(said) > 4000 {
				t.Errorf("run: %d, want %q in (%d bytes) %.500s", code, c.run, len(said), said)
			}
			if a := w.API("DELETE", "/images/"+ref+"?force=1", nil); a.Code != 200 {
				t.Errorf("removal: %d %.500s", a.Code, a.Body)
			}
			if work := world.Worked(w.DaemonPid()) - begun; work > 5*time.Second {
				t.Errorf("%v of work", work)
			}
		})
	}
	w.Must(w.Shoal("run", "--rm", "toolbox", "true"))
}

// tryRun makes and starts a container and removes it. It gives the status and the message of what failed, or of the start.
func tryRun(w *world.World, image string) (code int, message string) {
	a := w.API("POST", "/containers/create", map[string]any{"Image": image, "Cmd": []string{"true"}, "HostConfig": map[string]any{"NetworkMode": "none"}})
	if a.Code != 201 {
		return a.Code, a.Message()
	}
	var made struct{ ID string }
	if err := a.Into(&made); err != nil {
		return 0, err.Error()
	}
	a = w.API("POST", "/containers/"+made.ID+"/start", nil)
	if r := w.API("DELETE", "/containers/"+made.ID+"?force=1&v=1", nil); r.Code != 204 {
		return r.Code, r.Message()
	}
	return a.Code, a.Message()
}

// savedParts are the config and the plain layers of a saved image.
func savedParts(t *testing.T, file string) (config []byte, layers [][]byte) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	entries := map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		entries[h.Name], _ = io.ReadAll(r)
	}
	var manifest []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(entries["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	for _, l := range manifest[0].Layers {
		layers = append(layers, entries[l])
	}
	return entries[manifest[0].Config], layers
}

func dockerArchive(ref string, config []byte, layers [][]byte) []byte {
	files := map[string]string{}
	name := fmt.Sprintf("%x.json", sha256.Sum256(config))
	files[name] = string(config)
	var names []string
	for i, l := range layers {
		names = append(names, fmt.Sprintf("%d/layer.tar", i))
		files[names[i]] = string(l)
	}
	manifest, _ := json.Marshal([]map[string]any{{"Config": name, "RepoTags": []string{ref}, "Layers": names}})
	files["manifest.json"] = string(manifest)
	return world.Archive(files)
}
