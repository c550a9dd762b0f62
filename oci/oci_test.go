package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/lib/openat/openattest"
	"github.com/shoalhq/shoal/runtime/spec"
)

// sample writes the archive of a layout; its files are owned by whoever tests.
func sample(t testing.TB, images ...imagetest.Image) string {
	t.Helper()
	if len(images) == 0 {
		images = []imagetest.Image{{Tags: []string{"box"}, Pack: imagetest.Gzip, Config: ocispec.ImageConfig{Entrypoint: []string{"/bin/app"}, Cmd: []string{"x"},
			User: "worker", WorkingDir: "/srv", Env: []string{"A=b"}, Volumes: map[string]struct{}{"/data": {}}, Labels: map[string]string{"l": "v"}},
			Layers: [][]byte{imagetest.Layer(t, imagetest.File{Name: "bin/"}, imagetest.File{Name: "bin/app", Data: "#!"}, imagetest.File{Name: "gone", Data: "x"},
				imagetest.File{Name: "etc/"}, imagetest.File{Name: "etc/passwd", Data: "worker:x:12:34::/:/bin/sh\n"}),
				imagetest.Layer(t, imagetest.File{Name: ".wh.gone"})}}}
	}
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(path, imagetest.OCI(images...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func call(t testing.TB, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	code, err := run(context.Background(), args, &out)
	if err != nil {
		out.WriteString(err.Error())
	}
	return code, out.String()
}

func TestUsage(t *testing.T) {
	for args, want := range map[string]string{"": "Usage", "--help": "Usage", "image validate --help": "--format", "spec generate --help": "--cap-add"} {
		if code, out := call(t, strings.Fields(args)...); code != exitSound || !strings.Contains(out, want) {
			t.Error(args, code, out)
		}
	}
	for _, args := range []string{"nonsense", "image nonsense", "image validate", "image validate a b", "image validate --what x", "image validate --format xml .", "runtime validate /does/not/exist", "image validate /does/not/exist", "image unpack /does/not/exist /tmp/x", "bundle validate /does/not/exist"} {
		if code, out := call(t, strings.Fields(args)...); code != exitUsage || out == "" {
			t.Error(args, code, out)
		}
	}
}

func TestImageValidate(t *testing.T) {
	code, out := call(t, "image", "validate", sample(t))
	if code != exitSound || !strings.Contains(out, "valid (1 images, 2 layers)") {
		t.Fatal(code, out)
	}
	dir := t.TempDir()
	if err := unarchive(context.Background(), sample(t), dir); err != nil {
		t.Fatal(err)
	}
	if code, out := call(t, "image", "validate", dir); code != exitSound {
		t.Fatal(code, out)
	}
	for name, c := range map[string]struct {
		img  imagetest.Image
		want string
	}{
		"wrong diff ID":   {imagetest.Image{Layers: [][]byte{imagetest.Layer(t)}, DiffIDs: []digest.Digest{digest.FromString("x")}}, "but the config says"},
		"missing diff ID": {imagetest.Image{Layers: [][]byte{imagetest.Layer(t), imagetest.Layer(t)}, DiffIDs: []digest.Digest{digest.FromBytes(imagetest.Layer(t))}}, "2 layers, but the config has 1"},
		"escape":          {imagetest.Image{Layers: [][]byte{imagetest.Layer(t, imagetest.File{Name: "../../etc/x"})}}, "leads out of the layer"},
		"device":          {imagetest.Image{Layers: [][]byte{imagetest.Layer(t, imagetest.File{Name: "d", Kind: '3', Data: "0/0"})}}, "device 0/0"},
		"no archive":      {imagetest.Image{Layers: [][]byte{[]byte(strings.Repeat("no tar", 500))}}, "malformed"},
	} {
		code, out := call(t, "image", "validate", sample(t, c.img))
		if code != exitUnsound || !strings.Contains(out, c.want) {
			t.Errorf("%s: %d %s", name, code, out)
		}
	}
	blobs, _ := filepath.Glob(dir + "/blobs/sha256/*")
	for _, b := range blobs { // every blob counts
		data, err := os.ReadFile(b)
		if err != nil {
			t.Fatal(err)
		}
		for _, harm := range []func() error{func() error { return os.Remove(b) }, func() error { return os.WriteFile(b, data[1:], 0o600) },
			func() error { return os.WriteFile(b, append([]byte("x"), data[1:]...), 0o600) }, func() error { return os.Symlink("/etc/passwd", b) }} {
			os.Remove(b)
			if err := harm(); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			code, out := call(t, "image", "validate", "--format", "json", dir)
			var r report
			if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitUnsound || r.Valid || len(r.Findings) == 0 {
				t.Fatal(code, out, err)
			}
			os.Remove(b)
			if err := os.WriteFile(b, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestUnpackAndBundle(t *testing.T) {
	openattest.Need(t)
	bundle := filepath.Join(t.TempDir(), "bundle")
	if code, out := call(t, "image", "unpack", sample(t), bundle); code != exitSound {
		t.Fatal(code, out)
	}
	data, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := spec.Parse(data)
	if err != nil || strings.Join(s.Process.Args, " ") != "/bin/app x" || s.Process.User.UID != 12 || s.Process.User.GID != 34 || s.Process.Cwd != "/srv" || s.Annotations["l"] != "v" {
		t.Fatalf("%s %v", data, err)
	}
	if _, err := os.Stat(filepath.Join(bundle, "rootfs/gone")); err == nil {
		t.Fatal("a whiteout removed nothing")
	}
	if code, out := call(t, "bundle", "validate", bundle); code != exitSound {
		t.Fatal(code, out)
	}
	if code, out := call(t, "image", "unpack", sample(t), bundle); code != exitUnsound || !strings.Contains(out, "new or empty") {
		t.Fatal(code, out)
	}
	for _, args := range []string{"--ref nope", "--platform linux/s390x"} {
		to := filepath.Join(t.TempDir(), "b")
		code, out := call(t, append(append([]string{"image", "unpack"}, strings.Fields(args)...), sample(t), to)...)
		if _, err := os.Stat(to); code != exitUnsound || err == nil {
			t.Error(args, code, out, err)
		}
	}
	for change, want := range map[string]string{
		`"path": "rootfs"|"path": "elsewhere"`:                 "root.path",
		`/bin/app|/bin/none`:                                   "is not there",
		`"cwd": "/srv"|"cwd": "srv"`:                           "process.cwd",
		`"ociVersion": "|"ociVersion": "9`:                     "ociVersion",
		`CAP_KILL|CAP_NONSENSE`:                                "no capability",
		`"noNewPrivileges"|"noNewPrivilegs"`:                   "not in the specification",
		`"type": "mount"|"type": "mounts"`:                     "none of pid",
		`"source": "proc"|"source": "/n", "options": ["bind"]`: "source",
	} {
		from, to, _ := strings.Cut(change, "|")
		changed := strings.Replace(string(data), from, to, 1)
		if changed == string(data) {
			t.Fatal(from)
		}
		if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, out := call(t, "bundle", "validate", bundle); !strings.Contains(out, want) {
			t.Errorf("%s: %s", change, out)
		}
	}
	for _, text := range []string{"", "{", "[]", "null", `{"ociVersion":"1.0.0"}`, `{"ociVersion":"1.0.0","process":{"args":[]}}`} {
		if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out := call(t, "bundle", "validate", bundle); code != exitUnsound {
			t.Error(text, code, out)
		}
	}
}

func TestSpecGenerate(t *testing.T) {
	args := []string{"spec", "generate", "--env", "A=1", "--env", "A=2", "--user", "5:6", "--cap-drop", "ALL", "--cap-add", "net_admin", "--memory", "64m", "--cpus", "1.5",
		"--pids-limit", "7", "--mount", "bind:/src:/dst:ro", "--mount", "tmpfs:tmpfs:/dev/shm", "--share", "network", "--rlimit", "nofile=5:unlimited", "--sysctl", "kernel.msgmax=1",
		"--hook", "poststop=/bin/echo gone", "--seccomp", "default", "--read-only=false", "--annotation", "x=y", "--", "prog", "--flag"}
	code, out := call(t, args...)
	s, err := spec.Parse([]byte(out))
	if code != exitSound || err != nil {
		t.Fatal(code, out, err)
	}
	if got := strings.Join(s.Process.Args, " "); got != "prog --flag" || s.Process.User.UID != 5 || *s.Linux.Resources.Memory.Limit != 64<<20 || *s.Linux.Resources.CPU.Quota != 150000 ||
		len(s.Process.Capabilities.Bounding) != 1 || s.Hooks.Poststop[0].Args[1] != "gone" || spec.Namespace(s, "network") != nil || s.Linux.Seccomp == nil || s.Root.Readonly ||
		s.Process.Rlimits[0].Hard != 1<<64-1 || s.Process.Env[len(s.Process.Env)-1] != "A=2" {
		t.Fatal(out)
	}
	path := filepath.Join(t.TempDir(), "config.json")
	if code, out := call(t, append(args[:2:2], "-o", path)...); code != exitSound || out != "" {
		t.Fatal(code, out)
	}
	if code, out := call(t, "spec", "generate", "--template", path, "--rootless", "--hostname", "h"); code != exitSound || strings.Contains(out, "hooks") {
		t.Fatal(code, out)
	}
	for _, bad := range []string{"--env A", "--user x", "--cap-add NONE", "--memory lots", "--cpus 0", "--mount x", "--rlimit nofile", "--rlimit nofile=x", "--sysctl x", "--hook x", "--hook never=/bin/true",
		"--namespace nonsense", "--uid-map 1:2", "--template /does/not/exist", "--seccomp /does/not/exist", "--cwd relative", "--unmount /none", "--pids-limit 1e3", "--oom-score-adj 5000"} {
		if code, out := call(t, append([]string{"spec", "generate"}, strings.Fields(bad)...)...); code == exitSound || !strings.Contains(out, strings.Fields(bad)[0]) && code == exitUsage && !strings.Contains(out, "exist") {
			t.Error(bad, code, out)
		}
	}
}

// A layout may come from anywhere: whatever it says, the tools answer.
func FuzzLayout(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}]}`), []byte(`{}`))
	f.Add([]byte(`{"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha512:../../x","size":-1}]}`), []byte(`{"config":{}}`))
	f.Add([]byte(`{"manifests":[{"digest":"x"}]}`), []byte(`[]`))
	f.Fuzz(func(t *testing.T, index, blob []byte) {
		dir := t.TempDir()
		os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o700)
		os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600)
		os.WriteFile(filepath.Join(dir, "index.json"), index, 0o600)
		os.WriteFile(filepath.Join(dir, "blobs/sha256", digest.FromBytes(blob).Encoded()), blob, 0o600)
		call(t, "image", "validate", dir)
		call(t, "image", "unpack", dir, filepath.Join(dir, "bundle"))
	})
}
