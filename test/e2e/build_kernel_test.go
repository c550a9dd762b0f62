//go:build kernel

package e2e

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/world"
)

// write makes files below dir and gives dir.
func write(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const wideDockerfile = `FROM toolbox AS base
ARG WHO=nobody
RUN --mount=type=cache,target=/cache echo x >> /cache/c; wc -l < /cache/c > /count
RUN --mount=type=secret,id=s cat /run/secrets/s > /got
RUN --mount=type=tmpfs,target=/t --mount=type=bind,target=/ctx,source=. ls /ctx > /listed && echo > /t/x
RUN <<EOF
echo "here $WHO" > /here
EOF
COPY <<EOF /inline
text
EOF
COPY --chmod=600 --chown=12:13 f /f
COPY --link f /linked
FROM scratch AS out
COPY --from=base /got /inline /f /
FROM base
LABEL kind=wide
WORKDIR /w
RUN grep CapBnd /proc/self/status > /caps; grep Seccomp: /proc/self/status > /filter; cat /proc/self/cgroup > /cgroup
CMD ["cat", "/here", "/got", "/inline", "/f", "/listed"]
`

// TestBuild builds with shoal build what uses most of the syntax, and runs the result.
func TestBuild(t *testing.T) {
	w := world.New(t)
	dir := write(t, t.TempDir(), map[string]string{"Dockerfile": wideDockerfile, "f": "data\n", "ignored": "no", ".dockerignore": "ignored\n.dockerignore\n", "sec": "hush\n"})
	build := func(args ...string) world.Result {
		return w.Shoal(append([]string{"build", "--progress", "plain", "--secret", "id=s,src=" + dir + "/sec", "--build-arg", "WHO=me"}, append(args, dir)...)...)
	}
	results := t.TempDir()
	id := filepath.Join(results, "id")
	w.Must(build("-t", "wide", "-t", "team/wide:2", "--iidfile", id, "--label", "more=1"))
	if out := w.Must(w.Shoal("run", "--rm", "--user", "0", "wide")); out != "here me\nhush\ntext\ndata\nDockerfile\nf\nsec" {
		t.Errorf("the image's program: %q", out)
	}
	text, _ := os.ReadFile(id)
	if got := w.Must(w.Shoal("inspect", "-f", "{{.Id}} {{.Config.Labels.kind}} {{.Config.Labels.more}} {{.Config.WorkingDir}}", "team/wide:2")); got != string(text)+" wide 1 /w" {
		t.Errorf("inspect: %s, --iidfile %s", got, text)
	}
	step := w.Must(w.Shoal("run", "--rm", "wide", "cat", "/caps", "/filter", "/cgroup", "/count"))
	for _, want := range []string{"CapBnd:\t00000000a80425fb", "Seccomp:\t2"} {
		if !strings.Contains(step, want) {
			t.Errorf("a step's confinement: want %q in\n%s", want, step)
		}
	}
	if left := w.Must(w.Shoal("run", "--rm", "wide", "ls", "-a", "/")); strings.Contains(left, "ctx") || strings.Contains(left, "cache") {
		t.Errorf("mount points of steps are in the image: %s", left)
	}
	if again := build("-t", "wide"); again.Code != 0 || strings.Count(again.Err, "CACHED") < 8 {
		t.Errorf("a second build does not use the cache: %s", again.Err)
	}
	out := filepath.Join(results, "out")
	w.Must(build("--target", "out", "-o", out))
	if got, _ := os.ReadFile(filepath.Join(out, "got")); string(got) != "hush\n" {
		t.Errorf("-o DIRECTORY: %q", got)
	}
	for _, kind := range []string{"oci", "docker", "tar"} {
		archive := filepath.Join(results, kind+".tar")
		w.Must(build("-t", "saved:"+kind, "-o", "type="+kind+",dest="+archive))
		if kind != "tar" {
			w.Must(w.Shoal("load", "-i", archive))
			w.Must(w.Shoal("run", "--rm", "saved:"+kind, "true"))
		}
	}
	w.Must(w.Shoal("rmi", "-f", "wide", "team/wide:2", "saved:oci", "saved:docker"))
	if du := w.Must(w.Shoal("builder", "du")); !strings.Contains(du, "exec.cachemount") {
		t.Errorf("builder du: %s", du)
	}
	w.Must(w.Shoal("builder", "prune", "-af"))
	if du := w.Must(w.Shoal("builder", "du")); strings.Contains(du, "regular") {
		t.Errorf("after prune: %s", du)
	}
	w.Must(build("-q"))
}

// TestClassicBuild is what the docker command line does without buildx, in words that scripts look for.
func TestClassicBuild(t *testing.T) {
	w := world.New(t)
	r := w.Build("t=one:1&labels={\"a\":\"b\"}&buildargs={\"V\":\"7\",\"unused\":\"x\"}", world.Archive(map[string]string{
		"Dockerfile": "FROM toolbox\nARG V\nRUN echo made $V > /made\nCOPY f /f\nCMD [\"cat\",\"/made\",\"/f\"]\n", "f": "copied\n"}))
	for _, want := range []string{"Step 2/3 : RUN echo made 7", "Successfully built ", "Successfully tagged one:1", `"aux":{"ID":"sha256:`} {
		if r.Code != 200 || !strings.Contains(string(r.Body), want) {
			t.Errorf("want %q in %d %s", want, r.Code, r.Body)
		}
	}
	if out := w.Must(w.Docker("run", "--rm", "one:1")); out != "made 7\ncopied" {
		t.Error(out)
	}
	dir := write(t, t.TempDir(), map[string]string{"Dockerfile": "FROM one:1\nRUN cat /made\n"})
	cmd := w.Command("/usr/local/bin/docker", "build", "-t", "two", dir)
	cmd.Env = append(cmd.Env, "DOCKER_BUILDKIT=0")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "Successfully tagged two:latest") {
		t.Errorf("docker build: %v %s", err, out)
	}
	if df := w.Must(w.Docker("system", "df", "--format", "{{.Type}} {{.TotalCount}}")); strings.Contains(df, "Build Cache 0") {
		t.Errorf("system df: %s", df)
	}
}

// TestBuildBadInput: each refusal names the thing, and nothing is left.
func TestBuildBadInput(t *testing.T) {
	w := world.New(t)
	file := func(text string) []byte { return world.Archive(map[string]string{"Dockerfile": text, "f": "x"}) }
	link := "FROM toolbox\nCOPY f /\n"
	for _, c := range []struct {
		name, query string
		archive     []byte
		code        int
		want        string
	}{
		{"unknown instruction", "", file("FROM toolbox\nRUNN 1\n"), 400, "Dockerfile:2"},
		{"failing step", "", file("FROM toolbox\nRUN exit 3\n"), 200, "exit code: 3"},
		{"program that is not there", "", file("FROM toolbox\nRUN [\"/nosuch\"]\n"), 200, "nosuch"},
		{"no Dockerfile", "dockerfile=other", file("FROM toolbox\n"), 0, "other"},
		{"empty body", "", nil, 400, "context"},
		{"no archive", "", []byte("garbage that is no archive"), 0, ""},
		{"missing stage", "target=nosuch", file("FROM toolbox\n"), 0, "nosuch"},
		{"file outside the context", "", file("FROM toolbox\nCOPY ../../etc/passwd /p\nRUN cat /p\n"), 0, "passwd"},
		{"bad name", "t=UPPER", file(link), 400, "UPPER"},
		{"network of a user", "networkmode=mine", file(link), 501, "mine"},
		{"squash without an image", "squash=1&outputs=[{\"Type\":\"tar\"}]", file(link), 0, "no layers"},
		{"host that is none", "extrahosts=a:b", file(link), 400, "not an IP address"},
		{"privileged step", "", file("FROM toolbox\nRUN --security=insecure id\n"), 0, "not allowed"},
		{"session without", "version=2", file(link), 400, "session"},
		{"platform with too many parts", "platform=foo/bar/baz/qux", file(link), 400, "foo/bar/baz/qux"},
		{"platform that is none", "platform=nope", file(link), 400, "nope"},
		{"output that is none", "outputs=[{\"Type\":\"nope\"}]", file(link), 0, "nope"},
		{"bad JSON", "buildargs={", file(link), 400, "buildargs"},
	} {
		r := w.Build(c.query, c.archive)
		if c.code != 0 && r.Code != c.code || c.code == 0 && !strings.Contains(string(r.Body), "essage") || !strings.Contains(string(r.Body), c.want) {
			t.Errorf("%s: %d %s %v", c.name, r.Code, r.Body, r.Err)
		}
	}
	if list := w.Must(w.Shoal("images", "-q", "--filter", "dangling=true")); list != "" {
		t.Errorf("failed builds left images: %s", list)
	}
}

// TestBuildHostileContext: entries of a context stay inside it, and links in it are those of the image.
func TestBuildHostileContext(t *testing.T) {
	w := world.New(t)
	secret := filepath.Join(t.TempDir(), "secret")
	os.WriteFile(secret, []byte("host's own"), 0o600)
	dir := write(t, t.TempDir(), map[string]string{"Dockerfile": "FROM toolbox\nCOPY . /c\nRUN cat /c/link 2>&1 | head -1; cat /c/up/* 2>&1 | head -1\n"})
	os.Symlink(secret, filepath.Join(dir, "link"))
	os.Symlink("../../../../../../../../../../"+filepath.Dir(secret), filepath.Join(dir, "up"))
	r := w.Shoal("build", "--progress", "plain", dir)
	if r.Code != 0 || strings.Contains(r.Err, "host's own") {
		t.Errorf("a link in the context leads to the host: %s", r.Err)
	}
	write(t, dir, map[string]string{"Dockerfile": "FROM toolbox\nCOPY link /l\n"})
	if r := w.Shoal("build", dir); r.Code == 0 {
		t.Errorf("a link out of the context was followed: %s", r.Err)
	}
}

// TestBuildCancelled: when the client leaves, the step ends and nothing stays.
func TestBuildCancelled(t *testing.T) {
	w := world.New(t)
	before := w.Count()
	cancelAt(t, w, `stream":"begun`)
	same(t, w, before)
	w.Must(w.Shoal("run", "--rm", "toolbox", "true"))
}

// cancelAt leaves a build when it has said the word.
func cancelAt(t *testing.T, w *world.World, word string) {
	t.Helper()
	buildUntil(t, w, "FROM toolbox\nRUN echo begun; sleep 1000\n", word)()
}

// buildUntil begins a build and returns when it has said the word, with what ends the connection.
func buildUntil(t *testing.T, w *world.World, dockerfile, word string) context.CancelFunc {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	req, _ := http.NewRequestWithContext(ctx, "POST", "http://shoal/build", bytes.NewReader(world.Archive(map[string]string{"Dockerfile": dockerfile})))
	resp, err := w.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<16)
	for all := ""; !strings.Contains(all, word); {
		n, err := resp.Body.Read(buf)
		if err != nil {
			t.Fatalf("the build ended before it said %q: %v: %s", word, err, all)
		}
		all += string(buf[:n])
	}
	return func() {
		cancel()
		resp.Body.Close()
	}
}

// TestBuildDaemonKilled: what a killed daemon's build left is gone after the next start, and the build works again.
func TestBuildDaemonKilled(t *testing.T) {
	w := world.New(t)
	before := w.Count()
	leave := buildUntil(t, w, "FROM toolbox\nRUN --mount=type=secret,id=none echo begun; sleep 1000\n", `stream":"begun`)
	defer leave()
	w.KillDaemon()
	<-w.Ended()
	w.StartDaemon()
	same(t, w, before)
	if r := w.Build("t=after", world.Archive(map[string]string{"Dockerfile": "FROM toolbox\nRUN echo fine\n"})); !strings.Contains(string(r.Body), "Successfully tagged after:latest") {
		t.Errorf("%d %s", r.Code, r.Body)
	}
}

// same waits until the world has no more than before.
func same(t *testing.T, w *world.World, before world.Counts) {
	t.Helper()
	var now world.Counts
	if !world.Await(func() bool {
		now = w.Count()
		return now.Mounts <= before.Mounts && now.Links <= before.Links && now.Cgroups <= before.Cgroups && now.Processes <= before.Processes
	}) {
		t.Fatalf("left over: %+v, before %+v", now, before)
	}
}
