//go:build kernel

package registry_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/test/world"
)

// verbs tries command lines on one daemon.
type verbs struct {
	t   *testing.T
	w   *world.World
	run func(...string) world.Result
}

// gives: it goes well, and says the parts.
func (v verbs) gives(parts []string, args ...string) string {
	v.t.Helper()
	r := v.run(args...)
	for _, p := range parts {
		if !strings.Contains(r.Out+r.Err, p) {
			v.t.Errorf("%v: %q is not in\n%s\n%s", args, p, r.Out, r.Err)
		}
	}
	if r.Code != 0 {
		v.t.Errorf("%v: exit code %d: %s", args, r.Code, r.Err)
	}
	return r.Out
}

// refuses: it fails and says the part.
func (v verbs) refuses(part string, args ...string) {
	v.t.Helper()
	if r := v.run(args...); r.Code == 0 || !strings.Contains(r.Out+r.Err, part) {
		v.t.Errorf("%v: exit code %d, want %q in: %s%s", args, r.Code, part, r.Out, r.Err)
	}
}

// TestImageVerbs: what people do with images, by both command lines.
func TestImageVerbs(t *testing.T) {
	w := world.New(t, "--registry-listen", "127.0.0.1:5000")
	w.Must(w.Shoal("run", "--rm", "toolbox", "true"))
	for name, run := range map[string]func(...string) world.Result{"docker": w.Docker, "shoal": w.Shoal} {
		t.Run(name, func(t *testing.T) {
			v := verbs{t, w, run}
			v.tagsAndDigests("127.0.0.1:5000/" + name)
			v.platforms("127.0.0.1:5000/" + name)
			v.archives()
			v.imports()
			v.pruning()
		})
	}
}

// tagsAndDigests: all tags at once; an image by digest; removals by tag, digest and ID, of images in use, forced.
func (v verbs) tagsAndDigests(at string) {
	for _, tag := range []string{":1", ":2"} {
		v.gives(nil, "tag", "toolbox", at+"/many"+tag)
	}
	v.gives([]string{"1: digest: sha256:", "2: digest: sha256:"}, "push", "--all-tags", at+"/many")
	digest := strings.TrimSpace(v.gives([]string{at + "/many@sha256:"}, "inspect", "-f", "{{index .RepoDigests 0}}", at+"/many:1"))
	id := strings.TrimSpace(v.gives(nil, "inspect", "-f", "{{.Id}}", "toolbox"))
	v.gives([]string{"Untagged: " + at + "/many:1", "Untagged: " + at + "/many:2"}, "rmi", at+"/many:1", at+"/many:2")
	v.refuses("No such object", "inspect", at+"/many:1")
	v.gives([]string{"Digest: sha256:"}, "pull", digest)
	v.gives([]string{at + "/many", "<none>", digest[strings.Index(digest, "@")+1:]}, "images", "--digests", at+"/many")
	v.gives([]string{"hello"}, "run", "--rm", digest, "echo", "hello")
	v.gives([]string{"1: Pulling from", "2: Pulling from"}, "pull", "--all-tags", at+"/many")
	v.gives(nil, "create", "--name", "user", at+"/many:2", "true")
	v.gives([]string{"Untagged: " + at + "/many:1"}, "rmi", at+"/many:1") // another name is left
	v.refuses("must be forced", "rmi", id)                                // several names
	v.gives(nil, "rmi", digest)
	v.gives([]string{"Untagged: " + at + "/many:2"}, "rmi", "-f", at+"/many:2")
	v.gives([]string{id[7:19]}, "images", "-q", "--filter", "reference=toolbox")
	v.gives(nil, "start", "-a", "user")
	v.gives(nil, "rm", "user")
	v.refuses("manifest unknown", "pull", at+"/many:none")
	v.refuses("invalid reference format", "pull", at+"/MANY")
}

// platforms: an image of one platform where another is asked for.
func (v verbs) platforms(at string) {
	v.gives(nil, "tag", "toolbox", at+"/one:1")
	v.gives(nil, "push", "-q", at+"/one:1")
	v.gives([]string{"WARNING: image with reference " + at + "/one:1 was found but its platform (linux/"}, "pull", "--platform", "linux/s390x", at+"/one:1")
	for _, args := range [][]string{{"save", "-o", v.t.TempDir() + "/x"}, {"history"}, {"image", "inspect"}, {"push"}} {
		v.refuses("linux/s390x", append(args, "--platform", "linux/s390x", at+"/one:1")...)
	}
	v.gives(nil, "rmi", at+"/one:1")
}

// archives: several images in one archive have what they share once, and come back with all their names.
func (v verbs) archives() {
	dir := v.t.TempDir()
	for _, n := range []string{"a", "b"} {
		v.gives(nil, "create", "--name", "made-"+n, "toolbox", "true")
		v.gives(nil, "cp", dir, "made-"+n+":/own-"+n)
		v.gives([]string{"sha256:"}, "commit", "-m", "message", "-c", "ENV N="+n, "made-"+n, "saved:"+n)
		v.gives(nil, "rm", "made-"+n)
	}
	v.gives(nil, "tag", "saved:a", "saved:also")
	file := dir + "/both.tar"
	v.gives(nil, "save", "-o", file, "saved:a", "saved:b", "saved:also")
	data, err := os.ReadFile(file)
	if err != nil {
		v.t.Fatal(err)
	}
	blobs := 0
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			v.t.Fatal(err)
		}
		if strings.HasPrefix(h.Name, "blobs/") && h.Size > 1<<20 {
			blobs++
		}
	}
	if blobs != 1 {
		v.t.Errorf("the shared layer is in the archive %d times", blobs)
	}
	v.gives(nil, "rmi", "saved:a", "saved:b", "saved:also")
	v.gives([]string{"Loaded image: saved:a", "Loaded image: saved:b", "Loaded image: saved:also"}, "load", "-i", file)
	v.gives([]string{"own-b"}, "run", "--rm", "saved:b", "ls", "/")
	h := v.gives(nil, "history", "--format", "{{.Comment}}|{{.Size}}", "--human=false", "saved:b")
	if first, _, _ := strings.Cut(h, "\n"); !strings.HasPrefix(first, "message|") {
		v.t.Errorf("history: %s", h)
	}
	v.gives(nil, "rmi", "saved:a", "saved:b", "saved:also")
	v.refuses("No such image", "save", "-o", file, "saved:a")
}

// imports: from a file and from a web server, with changes; what is not there or broken off leaves nothing.
func (v verbs) imports() {
	dir := v.t.TempDir()
	layer := imagetest.Gzip(imagetest.Layer(v.t, imagetest.File{Name: "etc/"}, imagetest.File{Name: "etc/hello", Data: "hi"}))
	if err := os.WriteFile(filepath.Join(dir, "root.tgz"), layer, 0o600); err != nil {
		v.t.Fatal(err)
	}
	var l net.Listener
	var err error
	v.w.InNet(func() { l, err = net.Listen("tcp", "127.0.0.1:0") })
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { l.Close() })
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(dir)))
	mux.HandleFunc("/torn", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		w.Write(layer[:len(layer)-20])
	})
	go http.Serve(l, mux)
	url := "http://" + l.Addr().String()
	for _, from := range []string{dir + "/root.tgz", url + "/root.tgz"} {
		v.gives([]string{"sha256:"}, "import", "--change", `CMD ["/x"]`, "-c", "LABEL a=b", "-m", "mine", "--platform", "linux/s390x", from, "imported:1")
		v.gives([]string{"s390x [/x] b mine"}, "inspect", "-f", "{{.Architecture}} {{.Config.Cmd}} {{.Config.Labels.a}} {{.Comment}}", "imported:1")
		v.gives(nil, "rmi", "imported:1")
	}
	v.refuses("404", "import", url+"/none", "imported:2")
	v.refuses("unexpected EOF", "import", url+"/torn", "imported:2")
	v.refuses("FROM", "import", "-c", "FROM x", dir+"/root.tgz", "imported:2")
	v.refuses("No such object", "inspect", "imported:2")
}

// pruning: only what the filters mean goes, and nothing that a container uses.
func (v verbs) pruning() {
	commit := func(tag string, args ...string) string {
		v.gives(nil, "create", "--name", "pruned", "toolbox", "true")
		out := v.gives(nil, append(append([]string{"commit"}, args...), "pruned", tag)...)
		v.gives(nil, "rm", "pruned")
		return strings.TrimSpace(out)
	}
	commit("old:1", "-c", "LABEL keep=yes")
	dangling := commit("old:2")
	commit("old:2", "-c", "ENV A=b") // its name goes to another
	v.gives([]string{dangling[7:19]}, "images", "-q", "--filter", "dangling=true")
	v.gives([]string{dangling}, "image", "prune", "-f")
	v.gives(nil, "image", "prune", "-af", "--filter", "until=1h", "--filter", "label=keep")
	v.gives([]string{"Untagged: old:2"}, "rmi", "old:2")
	out := v.gives([]string{"old:1"}, "image", "prune", "-af", "--filter", "label=keep=yes")
	if strings.Contains(out, "toolbox") {
		v.t.Errorf("prune by label: %s", out)
	}
	v.refuses("invalid", "image", "prune", "-f", "--filter", "until=yesterday")
	v.refuses("invalid filter", "image", "prune", "-f", "--filter", "colour=red")
}

// TestCredentialHelper: credentials of a helper program reach the registry, by both command lines.
func TestCredentialHelper(t *testing.T) {
	dir := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte("s3cret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	const addr = "127.0.0.1:5000"
	for name, text := range map[string]string{"users": "ann:" + string(hash) + "\n",
		"docker-credential-shoaltest": "#!/bin/sh\n[ \"$1\" = list ] && { echo '{}'; exit; }\nread server\n[ \"$server\" = " + addr + " ] || { echo 'credentials not found in native keychain'; exit 1; }\n" +
			`echo '{"ServerURL":"` + addr + `","Username":"ann","Secret":"s3cret"}'` + "\n",
		"config/config.json": `{"credHelpers":{"` + addr + `":"shoaltest"}}`} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w := world.New(t, "--registry-listen", addr, "--registry-users", dir+"/users")
	w.Must(w.Shoal("run", "--rm", "hello"))
	for _, program := range []string{"docker", world.Bin(t, "shoal")} {
		try := func(env []string, args ...string) (string, error) {
			cmd := w.Command(program, args...)
			cmd.Env = append(slices.DeleteFunc(cmd.Env, func(v string) bool { return strings.HasPrefix(v, "DOCKER_CONFIG=") }), env...)
			out, err := cmd.CombinedOutput()
			return string(out), err
		}
		ref := addr + "/" + filepath.Base(program) + ":1"
		with := []string{"DOCKER_CONFIG=" + dir + "/config", "PATH=" + dir + ":" + os.Getenv("PATH")}
		w.Must(w.Shoal("tag", "hello", ref))
		if out, err := try([]string{"DOCKER_CONFIG=" + t.TempDir()}, "push", ref); err == nil || !strings.Contains(out, "denied") {
			t.Errorf("%s without credentials: %v %s", program, err, out)
		}
		for _, verb := range []string{"push", "pull"} {
			if out, err := try(with, verb, ref); err != nil {
				t.Errorf("%s %s with the helper: %v %s", program, verb, err, out)
			}
		}
	}
}
