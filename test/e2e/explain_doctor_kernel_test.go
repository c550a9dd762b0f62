//go:build kernel

package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

func TestDoctorFindsContainersThatSeeTheEngine(t *testing.T) {
	dir := t.TempDir()
	pki(t, dir)
	f := func(name string) string { return filepath.Join(dir, name+".pem") }
	w := world.New(t, "-H", "tcp://127.0.0.1:2376", "--tlsverify", "--tlscacert", f("ca"), "--tlscert", f("server"), "--tlskey", f("server-key"))
	w.Must(w.Shoal("create", "--name", "spy", "-v", w.Socket+":/s", "toolbox", "true"))
	w.Must(w.Shoal("create", "--name", "holder", "-v", dir+":/certs:ro", "toolbox", "true"))
	w.Must(w.Shoal("create", "--name", "harmless", "-v", "/usr/share:/x:ro", "-v", "data:/data", "toolbox", "true"))
	var r struct {
		Findings []struct{ Code, Cause string }
	}
	out := w.Shoal("doctor", "--format", "json")
	if err := json.Unmarshal([]byte(out.Out), &r); err != nil {
		t.Fatal(err, out)
	}
	got := map[string]string{}
	for _, f := range r.Findings {
		got[f.Code] += f.Cause + "\n"
	}
	if !strings.Contains(got["engine-exposed"], "container spy sees the engine's socket") || !strings.Contains(got["engine-exposed"], "container holder sees the engine's TLS key") {
		t.Errorf("%s", got["engine-exposed"])
	}
	if c := got["client-key-exposed"]; !strings.Contains(c, "container holder") || strings.Contains(c, "spy") || strings.Contains(c, "harmless") {
		t.Errorf("%s", c)
	}
	if strings.Contains(got["engine-exposed"], "harmless") || got["api-open"] != "" {
		t.Errorf("%v", got)
	}
	w.Must(w.Shoal("rm", "harmless"))
	w.Must(w.Shoal("volume", "rm", "data"))
}

func TestBundleHasNoSecrets(t *testing.T) {
	w := world.New(t)
	const secret = "hUnter2"
	w.Must(w.Shoal("create", "--name", "app", "-e", "DB="+secret, "--label", "db.password="+secret, "--log-opt", "tag=x", "toolbox", "sh", "-c", "true", "--password", secret))
	w.Must(w.Shoal("run", "--name", "failed", "-e", "X="+secret, "toolbox", "sh", "-c", "echo "+secret+" 1>&2; export API_TOKEN="+secret+"; true"))
	w.Must(w.Shoal("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "--label", "token="+secret, "vol"))
	file := filepath.Join(w.Dir, "b.tar.gz")
	if out := w.Must(w.Shoal("doctor", "bundle", "-o", file)); out != file {
		t.Error(out)
	}
	if r := w.Shoal("doctor", "bundle", "-o", file); r.Code == 0 {
		t.Error("a file was written over")
	}
	r := w.Shoal("doctor", "bundle", "-o", "-")
	z, err := gzip.NewReader(bytes.NewReader([]byte(r.Out)))
	if err != nil {
		t.Fatal(err, r.Err)
	}
	names := map[string]string{}
	tr := tar.NewReader(z)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(tr)
		names[strings.TrimPrefix(h.Name, "shoal-bundle/")] = string(b)
		for line := range strings.Lines(string(b)) {
			// What a shell script echoes looks like any other text; the archive's user is told to read it.
			if strings.Contains(strings.ReplaceAll(line, "echo "+secret, ""), secret) {
				t.Errorf("%s: %s", h.Name, line)
			}
		}
	}
	for _, want := range []string{"doctor.json", "version.json", "info.json", "containers.json", "events.json", "volumes.json", "networks.json"} {
		if len(names[want]) < 10 {
			t.Errorf("%s is missing: %s", want, names["errors.txt"])
		}
	}
	w.Must(w.Shoal("volume", "rm", "vol"))
}
