//go:build kernel

package e2e

import (
	"archive/tar"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// serveFiles serves a directory by HTTP on the world's loopback and gives the URL.
func serveFiles(t *testing.T, w *world.World, dir string) string {
	t.Helper()
	var l net.Listener
	var err error
	w.InNet(func() { l, err = net.Listen("tcp", "127.0.0.1:0") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go http.Serve(l, http.FileServer(http.Dir(dir)))
	return "http://" + l.Addr().String()
}

// shoalIn runs shoal with a standard input.
func shoalIn(w *world.World, in []byte, args ...string) (int, string) {
	cmd := w.Command(world.Bin(w.T, "shoal"), args...)
	cmd.Stdin = strings.NewReader(string(in))
	out, _ := cmd.CombinedOutput()
	return cmd.ProcessState.ExitCode(), string(out)
}

// TestBuildContexts: a context comes from standard input, a web server, a git repository, an OCI layout.
func TestBuildContexts(t *testing.T) {
	w := world.New(t)
	dir := t.TempDir()
	file := "FROM toolbox\nCOPY g /g\nRUN echo \"<$(cat /g)>\"\n"
	archive := world.Archive(map[string]string{"Dockerfile": file, "other": "FROM toolbox\nRUN echo '<other>'\n", "g": "tar"})
	plain := func(args ...string) []string { return append([]string{"build", "--progress", "plain"}, args...) }
	expect := func(what string, code int, out, want string) {
		t.Helper()
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("%s: exit code %d, want %q in %s", what, code, want, out)
		}
	}
	code, out := shoalIn(w, []byte("FROM toolbox\nRUN echo '<alone>'\n"), plain("-")...)
	expect("a Dockerfile from standard input", code, out, "<alone>")
	code, out = shoalIn(w, []byte(file), plain("-f", "-", write(t, t.TempDir(), map[string]string{"g": "dir"}))...)
	expect("a Dockerfile from standard input with a context", code, out, "<dir>")
	code, out = shoalIn(w, archive, plain("-")...)
	expect("an archive from standard input", code, out, "<tar>")
	code, out = shoalIn(w, archive, plain("-f", "other", "-")...)
	expect("an archive from standard input, another Dockerfile", code, out, "<other>")

	url := serveFiles(t, w, dir)
	if err := os.WriteFile(dir+"/ctx.tar", archive, 0o644); err != nil {
		t.Fatal(err)
	}
	r := w.Shoal(plain("--no-cache", url+"/ctx.tar")...)
	expect("an archive from a web server", r.Code, r.Err, "<tar>")
	if a := w.Build("nocache=1&remote="+url+"/ctx.tar", nil); !strings.Contains(string(a.Body), `\u003ctar\u003e`) {
		t.Errorf("classic, an archive from a web server: %s", a.Body)
	}
	if r := w.Shoal("build", url+"/missing.tar"); r.Code == 0 || !strings.Contains(r.Err, "404") {
		t.Errorf("an archive that is not there: %+v", r)
	}
	t.Run("git", func(t *testing.T) { gitContexts(t, w, dir, url) })
	t.Run("layout", func(t *testing.T) { layoutContexts(t, w) })
}

// gitContexts builds from branches and directories of a repository.
func gitContexts(t *testing.T, w *world.World, dir, url string) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not on this machine; the daemon fetches repositories with it")
	}
	repo := filepath.Join(dir, "repo")
	file := "FROM toolbox\nCOPY g /g\nRUN echo \"<$(cat /g)>\"\n"
	write(t, repo, map[string]string{"Dockerfile": file, "g": "root", "sub/Dockerfile": file, "sub/g": "sub"})
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", repo, "-c", "user.name=n", "-c", "user.email=n@test"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v %s", args, err, out)
		}
	}
	git("init", "-q", "-b", "main")
	git("add", "-A")
	git("commit", "-qm", "one")
	git("checkout", "-qb", "other")
	write(t, repo, map[string]string{"g": "branch"})
	git("commit", "-qam", "two")
	git("checkout", "-q", "main")
	git("update-server-info")
	for suffix, want := range map[string]string{"": "<root>", "#other": "<branch>", "#main:sub": "<sub>"} {
		if r := w.Shoal("build", "--progress", "plain", "--no-cache", url+"/repo/.git"+suffix); r.Code != 0 || !strings.Contains(r.Err, want) {
			t.Errorf("git context %q: %+v", suffix, r)
		}
	}
	if r := w.Shoal("build", url+"/repo/.git#nosuch"); r.Code == 0 || !strings.Contains(r.Err, "nosuch") {
		t.Errorf("a branch that is not there: %+v", r)
	}
}

// layoutContexts builds on an image of an OCI layout directory.
func layoutContexts(t *testing.T, w *world.World) {
	saved, dir := filepath.Join(t.TempDir(), "oci.tar"), filepath.Join(t.TempDir(), "layout")
	first := write(t, t.TempDir(), map[string]string{"Dockerfile": "FROM toolbox\nRUN echo laid > /laid\n"})
	w.Must(w.Shoal("build", "-q", "-t", "laid:v1", "-o", "type=oci,dest="+saved, first))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-xf", saved, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	file := []byte("FROM base\nRUN cat /laid\n")
	for _, ref := range []string{dir, dir + ":v1"} {
		if code, out := shoalIn(w, file, "build", "--progress", "plain", "--no-cache", "--build-context", "base=oci-layout://"+ref, "-"); code != 0 || !strings.Contains(out, "laid\n") || strings.Contains(out, "level=") {
			t.Errorf("oci-layout://%s: %d %s", ref, code, out)
		}
	}
	if code, out := shoalIn(w, file, "build", "--build-context", "base=oci-layout://"+dir+":nosuch", "-"); code == 0 || !strings.Contains(out, "nosuch") {
		t.Errorf("a tag that is not in the layout: %d %s", code, out)
	}
}

// TestBuildIgnore: .dockerignore by its corner cases, from a directory; the file beside another Dockerfile counts before it.
func TestBuildIgnore(t *testing.T) {
	w := world.New(t)
	files := map[string]string{
		"Dockerfile": "FROM toolbox\nCOPY . /c\nRUN cd /c && echo \"<$(find . -type f | sort | tr '\\n' ' ')>\"\n",
		"a.log":      "", "keep.log": "", "d/a.log": "", "d/e/x.tmp": "", "node/mod/x": "", "node/keep/x": "", "#odd": "", "sp ace": "", "dir/one": "", "dir/two": "",
		".dockerignore": "# comment\n\n  *.log  \n!keep.log\n**/*.tmp\nnode/*\n!node/keep\n\\#odd\n/dir/one/\nnot-there\n.dockerignore\nDockerfile*\nOther*\n",
	}
	list := func(dir string, args ...string) string {
		t.Helper()
		r := w.Shoal(append(append([]string{"build", "--progress", "plain", "--no-cache"}, args...), dir)...)
		for line := range strings.Lines(r.Err) {
			if i := strings.Index(line, "<"); i >= 0 && strings.HasSuffix(line, ">\n") && !strings.Contains(line, "RUN") {
				return strings.ReplaceAll(strings.Trim(line[i:], "< >\n"), "./", "")
			}
		}
		t.Fatalf("%+v", r)
		return ""
	}
	dir := write(t, t.TempDir(), files)
	if got, want := list(dir), "d/a.log dir/two keep.log node/keep/x sp ace"; got != want {
		t.Errorf("files of the context:\n%s, want\n%s", got, want)
	}
	write(t, dir, map[string]string{"Other": files["Dockerfile"], "Other.dockerignore": "*\n!dir\n!#odd\n"})
	if got, want := list(dir, "-f", filepath.Join(dir, "Other")), "#odd dir/one dir/two"; got != want {
		t.Errorf("files of the context with Other.dockerignore:\n%s, want\n%s", got, want)
	}
	write(t, dir, map[string]string{".dockerignore": "[\n"})
	if r := w.Shoal("build", dir); r.Code == 0 || !strings.Contains(r.Err, "syntax error in pattern") {
		t.Errorf("a pattern that is none: %+v", r)
	}
}

// TestBuildPlatforms: an index of several platforms when nothing has to run; a step that cannot run says what is missing.
func TestBuildPlatforms(t *testing.T) {
	w := world.New(t)
	both := "linux/amd64,linux/s390x"
	dir := write(t, t.TempDir(), map[string]string{"f-amd64": "a", "f-s390x": "s",
		"Dockerfile": "FROM --platform=$BUILDPLATFORM toolbox AS b\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\nFROM scratch\nARG TARGETARCH\nCOPY f-$TARGETARCH /f\nCOPY --from=b /arch /arch\n"})
	w.Must(w.Shoal("build", "-q", "--platform", both, "-t", "both", dir))
	if tree := w.Must(w.Shoal("images", "--tree", "both")); !strings.Contains(tree, "linux/amd64") || !strings.Contains(tree, "linux/s390x") {
		t.Errorf("platforms: %s", tree)
	}
	out := filepath.Join(t.TempDir(), "fs.tar")
	w.Must(w.Shoal("build", "-q", "--platform", both, "-o", "type=tar,dest="+out, dir))
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := map[string]bool{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		seen[strings.TrimPrefix(h.Name, "./")] = true
	}
	if !seen["linux_amd64/arch"] || !seen["linux_s390x/f"] {
		t.Errorf("files of both platforms: %v", seen)
	}
	if _, err := os.Stat("/proc/sys/fs/binfmt_misc/qemu-s390x"); err == nil {
		t.Skip("this machine emulates s390x")
	}
	write(t, dir, map[string]string{"Dockerfile": "FROM both\nRUN [\"/f\"]\n"})
	r := w.Shoal("build", "--platform", "linux/s390x", dir)
	if r.Code == 0 || !strings.Contains(r.Err, "no handler qemu-s390x") || !strings.Contains(r.Err, ">>> RUN") {
		t.Errorf("a step for another platform: %+v", r)
	}
}
