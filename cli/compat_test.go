package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// recorder is a tiny engine: it answers just enough that a client goes on, and keeps what was asked.
type recorder struct {
	mu   sync.Mutex
	seen []string // METHOD path?query and body, one per request
	host string
	// special answers requests in its own way; nil or false: the usual one.
	special func(w http.ResponseWriter, req *http.Request, path string) bool
}

func newRecorder(t *testing.T, special func(w http.ResponseWriter, req *http.Request, path string) bool) *recorder {
	t.Helper()
	dir, err := os.MkdirTemp("", "shoal-cli")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{host: "unix://" + filepath.Join(dir, "s"), special: special}
	srv := &http.Server{Handler: r}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return r
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Api-Version", "1.50")
	w.Header().Set("Ostype", "linux")
	w.Header().Set("Content-Type", "application/json")
	if req.URL.Path == "/_ping" {
		return
	}
	body, _ := io.ReadAll(req.Body)
	_, path, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	if strings.HasPrefix(req.URL.Path, "/v1.") {
		path = "/" + path
	} else {
		path = req.URL.Path
	}
	line := req.Method + " " + path
	query := req.URL.Query()
	for k, v := range query {
		if len(v) == 1 && v[0] == "" {
			delete(query, k)
		}
	}
	if q := query.Encode(); q != "" {
		line += "?" + q
	}
	if len(body) > 0 {
		line += "\n" + normal(body)
	}
	// Waiting changes nothing, and Docker does it even when nobody looks at the answer.
	if !strings.HasSuffix(path, "/wait") {
		r.mu.Lock()
		r.seen = append(r.seen, line)
		r.mu.Unlock()
	}
	if r.special == nil || !r.special(w, req, path) {
		r.answer(w, req.Method, path)
	}
}

func (r *recorder) answer(w http.ResponseWriter, method, path string) {
	switch {
	case path == "/containers/create":
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"Id":"abc","Warnings":[]}`)
	case strings.HasSuffix(path, "/exec"):
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"Id":"exec1"}`)
	case path == "/networks/create" || path == "/volumes/create":
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"Id":"net1","Name":"vol1"}`)
	case path == "/containers/json" || path == "/images/json" || path == "/networks":
		fmt.Fprint(w, `[]`)
	case strings.HasSuffix(path, "/json"):
		fmt.Fprint(w, `{"Id":"abc","Name":"/abc","State":{"Running":true},"Config":{"Tty":true},"HostConfig":{}}`)
	case strings.HasSuffix(path, "/wait"):
		fmt.Fprint(w, `{"StatusCode":0}`)
	case method == http.MethodPost && !strings.HasSuffix(path, "/prune") && !strings.HasSuffix(path, "/update"):
		w.WriteHeader(http.StatusNoContent)
	case method == http.MethodDelete && !strings.HasPrefix(path, "/images"):
		w.WriteHeader(http.StatusNoContent)
	case method == http.MethodDelete:
		fmt.Fprint(w, `[]`)
	default:
		fmt.Fprint(w, `{}`)
	}
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.seen
	r.seen = nil
	return s
}

// normal gives a JSON body in a form that does not depend on who wrote it: sorted keys, nothing that is empty (the API
// takes absent, null, false, 0 and empty for the same, but for the few fields named here), and sets sorted.
func normal(body []byte) string {
	var v any
	if json.Unmarshal(body, &v) != nil {
		return fmt.Sprintf("%q", body)
	}
	v = prune("", v)
	out, _ := json.MarshalIndent(v, "", " ")
	return string(out)
}

func prune(key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			p := prune(k, e)
			// [0,0] is no terminal; the engine does not look at Detach when an exec is created.
			if k == "ConsoleSize" && fmt.Sprint(e) == "[0 0]" || key == "" && k == "Detach" && v["Cmd"] != nil {
				p = nil
			}
			// 1.44 and newer have it per endpoint; the old command line sends it twice.
			if p == nil || key == "" && k == "MacAddress" {
				delete(v, k)
			} else {
				v[k] = p
			}
		}
		if len(v) == 0 && key != "Volumes" && key != "ExposedPorts" && !strings.Contains(key, "/") {
			return nil
		}
	case []any:
		if len(v) == 0 {
			if key == "MaskedPaths" || key == "ReadonlyPaths" {
				return v
			}
			return nil
		}
		for i := range v {
			if p := prune("", v[i]); p != nil {
				v[i] = p
			}
		}
		if key == "Binds" || key == "Config" || key == "Env" || key == "CapAdd" || key == "CapDrop" {
			slices.SortFunc(v, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		}
	case string:
		if v == "" {
			return nil
		}
	case float64:
		if v == 0 {
			return nil
		}
	case bool:
		if !v {
			return nil
		}
	case nil:
		return nil
	}
	return v
}

type outcome struct {
	requests []string
	code     int
	stderr   string
	stdout   string
}

func (r *recorder) docker(t *testing.T, bin, dir string, args []string) outcome {
	t.Helper()
	cmd := exec.Command(bin, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+r.host, "DOCKER_CONFIG="+t.TempDir(), "FROM_ENV=outside", "SHOAL_HOST=")
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	_ = cmd.Run()
	return outcome{r.take(), cmd.ProcessState.ExitCode(), errb.String(), out.String()}
}

func (r *recorder) shoal(t *testing.T, args []string) outcome {
	t.Helper()
	var out, errb bytes.Buffer
	code := Main(args, Streams{In: strings.NewReader(""), Out: &out, Err: &errb})
	return outcome{r.take(), code, errb.String(), out.String()}
}

// dockerCLI finds the command line to compare with: version 28, whose words and flags these tables were made with.
func dockerCLI(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts docker's command line hundreds of times")
	}
	bin, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("no docker command line to compare with")
	}
	if out, err := exec.Command(bin, "--version").Output(); err != nil || !strings.Contains(string(out), "version 28.") {
		t.Skipf("the docker command line here is %q; these tables are for 28", bytes.TrimSpace(out))
	}
	return bin
}

// TestSameAsDocker gives the same arguments to Docker's command line and to ours and compares what the engine is asked.
func TestSameAsDocker(t *testing.T) {
	docker := dockerCLI(t)
	dir := t.TempDir()
	files := map[string]string{
		"env.list":     "# comment\nA=1\nB=two words\nFROM_ENV\n\nEMPTY=\n",
		"label.list":   "l1=one\nl2\n",
		"seccomp.json": "{\n  \"defaultAction\": \"SCMP_ACT_ALLOW\"\n}\n",
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	r := newRecorder(t, nil)
	t.Setenv("DOCKER_HOST", r.host)
	t.Setenv("SHOAL_HOST", "")
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	t.Setenv("FROM_ENV", "outside")
	for _, line := range readTable(t, "compat.txt") {
		t.Run(line, func(t *testing.T) {
			changes, less := strings.CutPrefix(line, "~")
			args := words(changes)
			want := r.docker(t, docker, dir, args)
			_ = os.Remove("new.cid")
			got := r.shoal(t, args)
			if less {
				look := func(s string) bool { return strings.HasPrefix(s, "GET ") }
				want.requests, got.requests = slices.DeleteFunc(want.requests, look), slices.DeleteFunc(got.requests, look)
			}
			slices.Sort(want.requests)
			slices.Sort(got.requests)
			if d := cmp.Diff(want.requests, got.requests); d != "" {
				t.Errorf("requests differ (-docker +shoal):\n%s\ndocker said: %s\nshoal said: %s", d, want.stderr, got.stderr)
			}
			if (want.code == 0) != (got.code == 0) || want.code >= 125 && want.code != got.code {
				t.Errorf("exit code: docker %d, shoal %d\ndocker said: %s\nshoal said: %s", want.code, got.code, want.stderr, got.stderr)
			}
		})
	}
}

// readTable reads the lines of a file of testdata, without comments.
func readTable(t *testing.T, name string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(testdataDir, name))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.SplitSeq(string(data), "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}

var testdataDir = func() string {
	d, _ := filepath.Abs("testdata")
	return d
}()

// words splits a line at spaces; '...' keeps spaces.
func words(line string) []string {
	var out []string
	var cur strings.Builder
	quoted, any := false, false
	for _, c := range line {
		switch {
		case c == '\'':
			quoted, any = !quoted, true
		case c == ' ' && !quoted:
			if any || cur.Len() > 0 {
				out = append(out, cur.String())
				cur.Reset()
				any = false
			}
		default:
			cur.WriteRune(c)
		}
	}
	if any || cur.Len() > 0 {
		out = append(out, cur.String())
	}
	return out
}
