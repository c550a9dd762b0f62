//go:build kernel

package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func wantIn(t *testing.T, what, got string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(got, p) {
			t.Errorf("%s: %q is not in\n%s", what, p, got)
		}
	}
}

// The docker command line and ours must give the same for the same words.
func both(w *world.World, name string, f func(t *testing.T, run func(args ...string) world.Result)) {
	t := w.T.(*testing.T)
	t.Run("docker/"+name, func(t *testing.T) { f(t, w.Docker) })
	t.Run("shoal/"+name, func(t *testing.T) { f(t, w.Shoal) })
}

func TestCommandLines(t *testing.T) {
	w := world.New(t)
	both(w, "run", func(t *testing.T, run func(...string) world.Result) {
		r := run("run", "--rm", "toolbox", "echo", "hello there")
		want(t, "output", r.Out, "hello there\n")
		want(t, "errors", r.Err, "")
	})
	both(w, "exit codes", func(t *testing.T, run func(...string) world.Result) {
		for code, args := range map[int][]string{
			0:   {"toolbox", "true"},
			1:   {"toolbox", "false"},
			42:  {"toolbox", "sh", "-c", "exit 42"},
			127: {"toolbox", "no-such-program"},
			126: {"toolbox", "/etc/passwd"},
			125: {"--no-such-flag", "toolbox"},
		} {
			if r := run(append([]string{"run", "--rm"}, args...)...); r.Code != code {
				t.Errorf("%v: exit code %d, want %d: %s", args, r.Code, code, r.Err)
			}
		}
	})
	both(w, "stderr and stdout apart", func(t *testing.T, run func(...string) world.Result) {
		r := run("run", "--rm", "toolbox", "sh", "-c", "echo out; echo err >&2")
		want(t, "stdout", r.Out, "out\n")
		want(t, "stderr", r.Err, "err\n")
	})
	both(w, "detached life", func(t *testing.T, run func(...string) world.Result) {
		id := w.Must(run("run", "-d", "--name", "life", "-e", "A=b c", "--label", "x=y", "toolbox", "sh", "-c", "echo started; sleep 1000"))
		if len(id) != 64 {
			t.Fatalf("id %q", id)
		}
		wantIn(t, "ps", w.Must(run("ps", "--filter", "label=x=y", "--format", "{{.Names}} {{.Image}} {{.State}}")), "life toolbox running")
		want(t, "exec", w.Must(run("exec", "life", "sh", "-c", "echo $A")), "b c")
		want(t, "exec exit", fmt.Sprint(run("exec", "life", "sh", "-c", "exit 7").Code), "7")
		for code, program := range map[int]string{127: "no-such-program", 126: "/etc/passwd"} {
			if r := run("exec", "life", program); r.Code != code || !strings.Contains(r.Out+r.Err, program) {
				t.Errorf("exec %s: %d %s%s, want %d", program, r.Code, r.Out, r.Err, code)
			}
		}
		wantIn(t, "logs", w.Must(run("logs", "life")), "started")
		wantIn(t, "top", w.Must(run("top", "life")), "sleep 1000")
		w.Must(run("pause", "life"))
		want(t, "paused", w.Must(run("inspect", "-f", "{{.State.Status}}", "life")), "paused")
		w.Must(run("unpause", "life"))
		w.Must(run("rename", "life", "life2"))
		w.Must(run("update", "--memory", "64m", "--memory-swap", "64m", "life2"))
		want(t, "limit", w.Must(run("inspect", "-f", "{{.HostConfig.Memory}}", "life2")), "67108864")
		w.Must(run("restart", "-t", "0", "life2"))
		w.Must(run("stop", "-t", "0", "life2"))
		want(t, "code", w.Must(run("inspect", "-f", "{{.State.Status}}", "life2")), "exited")
		w.Must(run("start", "life2"))
		w.Must(run("kill", "life2"))
		want(t, "wait", w.Must(run("wait", "life2")), "137")
		w.Must(run("rm", "life2"))
		if r := run("inspect", "life2"); r.Code == 0 {
			t.Error("removed, but still there")
		}
	})
	both(w, "diff, commit, save and load", func(t *testing.T, run func(...string) world.Result) {
		w.Must(run("run", "--name", "c1", "toolbox", "sh", "-c", "echo new > /new; rm /etc/group"))
		wantIn(t, "diff", w.Must(run("diff", "c1")), "A /new", "D /etc/group", "C /etc")
		w.Must(run("commit", "-m", "why", "-c", `CMD ["cat", "/new"]`, "c1", "made:1"))
		want(t, "run of the commit", w.Must(run("run", "--rm", "made:1")), "new")
		file := filepath.Join(w.Dir, "made.tar")
		w.Must(run("save", "-o", file, "made:1"))
		w.Must(run("rmi", "-f", "made:1"))
		wantIn(t, "load", w.Must(run("load", "-i", file)), "Loaded image: made:1")
		want(t, "run of the loaded", w.Must(run("run", "--rm", "made:1")), "new")
		w.Must(run("rm", "c1"))
		w.Must(run("rmi", "made:1"))
		os.Remove(file)
	})
	both(w, "cp", func(t *testing.T, run func(...string) world.Result) {
		w.Must(run("run", "-d", "--name", "cp", "toolbox", "sleep", "1000"))
		src := filepath.Join(w.Dir, "dir")
		os.MkdirAll(src+"/sub", 0o755)
		os.WriteFile(src+"/sub/file", []byte("content"), 0o640)
		w.Must(run("cp", src, "cp:/copied"))
		want(t, "in", w.Must(run("exec", "cp", "cat", "/copied/sub/file")), "content")
		w.Must(run("cp", "cp:/copied/sub/file", w.Dir+"/back"))
		back, _ := os.ReadFile(w.Dir + "/back")
		want(t, "out", string(back), "content")
		w.Must(run("stop", "-t", "0", "cp"))
		w.Must(run("cp", "cp:/copied/sub/file", w.Dir+"/back2"))
		back, _ = os.ReadFile(w.Dir + "/back2")
		want(t, "out of a stopped one", string(back), "content")
		w.Must(run("rm", "cp"))
		os.RemoveAll(src)
	})
	both(w, "system", func(t *testing.T, run func(...string) world.Result) {
		wantIn(t, "version", w.Must(run("version")), "Server:", "linux/amd64")
		wantIn(t, "info", w.Must(run("info")), "Storage Driver: overlay2", "Logging Driver: local")
		wantIn(t, "df", w.Must(run("system", "df")), "Images", "Containers", "Local Volumes")
	})
}

func TestVolumesAndMounts(t *testing.T) {
	w := world.New(t)
	both(w, "named volume", func(t *testing.T, run func(...string) world.Result) {
		w.Must(run("volume", "create", "data"))
		w.Must(run("run", "--rm", "-v", "data:/d", "toolbox", "sh", "-c", "echo kept > /d/f"))
		want(t, "kept", w.Must(run("run", "--rm", "--mount", "type=volume,src=data,dst=/d,readonly", "toolbox", "cat", "/d/f")), "kept")
		w.Must(run("volume", "rm", "data"))
	})
	both(w, "bind", func(t *testing.T, run func(...string) world.Result) {
		dir := filepath.Join(w.Dir, "bind")
		os.MkdirAll(dir, 0o755)
		os.WriteFile(dir+"/f", []byte("host"), 0o644)
		want(t, "read", w.Must(run("run", "--rm", "-v", dir+":/b:ro", "toolbox", "cat", "/b/f")), "host")
		if r := run("run", "--rm", "-v", dir+":/b:ro", "toolbox", "sh", "-c", "echo x > /b/f"); r.Code == 0 {
			t.Error("wrote to a read-only mount")
		}
		if r := run("run", "--rm", "--mount", "type=bind,src=/does/not/exist,dst=/b", "toolbox", "true"); r.Code != 125 || !strings.Contains(r.Err, "/does/not/exist") {
			t.Errorf("missing source: %d %s", r.Code, r.Err)
		}
	})
	both(w, "tmpfs and read-only root", func(t *testing.T, run func(...string) world.Result) {
		r := run("run", "--rm", "--read-only", "--tmpfs", "/t:size=1m", "toolbox", "sh", "-c", "echo ok > /t/f && cat /t/f; echo no > /f")
		want(t, "tmpfs", r.Out, "ok\n")
		if r.Code == 0 {
			t.Error("wrote to a read-only root")
		}
	})
}

func TestImportAndExport(t *testing.T) {
	w := world.New(t)
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	tw.WriteHeader(&tar.Header{Name: "only", Typeflag: tar.TypeReg, Size: 4, Mode: 0o644})
	io.WriteString(tw, "file")
	tw.Close()
	file := filepath.Join(w.Dir, "root.tar")
	os.WriteFile(file, b.Bytes(), 0o644)
	w.Must(w.Docker("import", file, "imported:1"))
	id := w.Must(w.Docker("create", "imported:1", "/x"))
	out := w.Docker("export", id)
	names := []string{}
	for tr := tar.NewReader(strings.NewReader(out.Out)); ; {
		h, err := tr.Next()
		if err != nil {
			break
		}
		names = append(names, h.Name)
	}
	wantIn(t, "export", strings.Join(names, " "), "only")
	w.Must(w.Docker("rm", id))
}

func TestPublishedPort(t *testing.T) {
	w := world.New(t)
	w.Must(w.Docker("run", "-d", "--name", "web", "-p", "127.0.0.1:8088:80", "whoami"))
	want(t, "port", w.Must(w.Docker("port", "web")), "80/tcp -> 127.0.0.1:8088")
	var body []byte
	eventually(t, "the web server answers", func() bool { // it listens some time after it was started
		resp, err := w.WebClient().Get("http://127.0.0.1:8088/")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body, err = io.ReadAll(resp.Body)
		return err == nil
	})
	id := w.Must(w.Docker("ps", "-q", "--filter", "name=web"))
	wantIn(t, "answer", string(body), id)
	r := w.Docker("run", "--rm", "-p", "127.0.0.1:8088:80", "whoami")
	if r.Code != 125 || !strings.Contains(r.Err, "8088") || !strings.Contains(r.Err, `container "web"`) {
		t.Errorf("port twice: %d %s", r.Code, r.Err)
	}
	want(t, "containers", w.Must(w.Docker("ps", "-aq", "--filter", "status=created")), "")
	w.Must(w.Docker("rm", "-f", "web"))
	if _, err := w.WebClient().Get("http://127.0.0.1:8088/"); err == nil {
		t.Error("the port answers after the container is gone")
	}
}

func TestRefusalsSayWhy(t *testing.T) {
	w := world.New(t)
	for name, tc := range map[string]struct {
		args []string
		want []string
	}{
		"no image":         {[]string{"run", "--rm", "--pull", "never", "nothing-like-it"}, []string{"nothing-like-it"}},
		"no such name":     {[]string{"start", "nobody"}, []string{"No such container", "nobody"}},
		"bad mount":        {[]string{"run", "--rm", "-v", "relative/path:/x:bogus", "toolbox"}, []string{"bogus"}},
		"bad memory":       {[]string{"run", "--rm", "--memory", "1m", "toolbox"}, []string{"6"}},
		"bad cpuset":       {[]string{"run", "--rm", "--cpuset-cpus", "999", "toolbox", "true"}, []string{"999"}},
		"bad user":         {[]string{"run", "--rm", "--user", "nosuchuser", "toolbox", "true"}, []string{"nosuchuser"}},
		"bad capability":   {[]string{"run", "--rm", "--cap-add", "CAP_NONSENSE", "toolbox", "true"}, []string{"NONSENSE"}},
		"bad network":      {[]string{"run", "--rm", "--network", "nosuchnet", "toolbox", "true"}, []string{"nosuchnet"}},
		"bad runtime":      {[]string{"run", "--rm", "--runtime", "nosuchrt", "toolbox", "true"}, []string{"nosuchrt"}},
		"bad log driver":   {[]string{"run", "--rm", "--log-driver", "nosuchlog", "toolbox", "true"}, []string{"nosuchlog"}},
		"bad sysctl":       {[]string{"run", "--rm", "--sysctl", "kernel.panic=1", "toolbox", "true"}, []string{"kernel.panic"}},
		"missing device":   {[]string{"run", "--rm", "--device", "/dev/nosuchdev", "toolbox", "true"}, []string{"/dev/nosuchdev"}},
		"newline hostname": {[]string{"run", "--rm", "--hostname", "a\nb", "toolbox", "true"}, []string{"hostname"}},
	} {
		r := w.Docker(tc.args...)
		if r.Code == 0 {
			t.Errorf("%s: accepted: %s", name, r.Out)
		}
		wantIn(t, name, r.Err+r.Out, tc.want...)
	}
	want(t, "nothing half-made is left", w.Must(w.Docker("ps", "-aq")), "")
}

func TestNameConflict(t *testing.T) {
	w := world.New(t)
	w.Must(w.Docker("create", "--name", "one", "toolbox"))
	r := w.Docker("create", "--name", "one", "toolbox")
	wantIn(t, "conflict", r.Err, `"/one" is already in use`)
}

func TestRawAPI(t *testing.T) {
	w := world.New(t)
	c := w.Client()
	for path, wantCode := range map[string]int{
		"/v1.24/containers/json": 200, "/v1.40/info": 200, "/containers/json": 200, "/v1.99/info": 400, "/v1.12/info": 400,
		"/containers/nobody/json": 404, "/images/nothing/json": 404, "/nonsense": 404, "/swarm": 503,
		"/containers/json?filters=notjson": 400, "/containers/json?limit=x": 400,
	} {
		resp, err := c.Get("http://shoal" + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != wantCode {
			t.Errorf("%s: status %d, want %d: %s", path, resp.StatusCode, wantCode, body)
		}
		if wantCode >= 400 {
			var m struct{ Message string }
			if json.Unmarshal(body, &m) != nil || m.Message == "" {
				t.Errorf("%s: no message: %s", path, body)
			}
		}
	}
	for _, body := range []string{"", "{", `{"Image":1}`, "[]", `{"Image":"toolbox"} trailing`, strings.Repeat("[", 100000)} {
		resp, err := c.Post("http://shoal/containers/create", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("create with %.20q: status %d", body, resp.StatusCode)
		}
	}
}
