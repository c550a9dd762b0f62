package convert

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
)

// requests are the bodies that clients send.
var requests = []reflect.Type{
	reflect.TypeFor[container.Config](), reflect.TypeFor[container.HostConfig](), reflect.TypeFor[container.UpdateConfig](),
	reflect.TypeFor[container.ExecCreateRequest](), reflect.TypeFor[container.ExecStartRequest](), reflect.TypeFor[network.NetworkingConfig](),
	reflect.TypeFor[network.CreateRequest](), reflect.TypeFor[network.ConnectRequest](), reflect.TypeFor[network.DisconnectRequest](),
	reflect.TypeFor[volume.CreateRequest](),
}

// fieldsOf lists the fields of a request and of all that it holds: "HostConfig.LogConfig.Type".
func fieldsOf(t reflect.Type, at string, out map[string]bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map || t.Kind() == reflect.Array {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || !strings.Contains(t.PkgPath(), "moby/api/types") || t == reflect.TypeFor[network.Port]() {
		out[at] = true
		return
	}
	for i := range t.NumField() {
		f := t.Field(i)
		switch name, _, _ := strings.Cut(f.Tag.Get("json"), ","); {
		case !f.IsExported() || name == "-":
		case f.Anonymous && name == "":
			fieldsOf(f.Type, at, out)
		default:
			if name == "" {
				name = f.Name
			}
			fieldsOf(f.Type, at+"."+name, out)
		}
	}
}

var (
	swaggerPath   = regexp.MustCompile(`^  (/\S*):`)
	swaggerMethod = regexp.MustCompile(`^    (get|head|post|put|delete):`)
	swaggerName   = regexp.MustCompile(`^        - name: "?([A-Za-z_-]+)"?`)
	swaggerIn     = regexp.MustCompile(`^          in: "?(\w+)"?`)
)

// others are the parts of the API that are refused as a whole, or decided upon in rooms of their own.
var others = []string{"build", "session", "grpc", "swarm", "services", "nodes", "tasks", "secrets", "configs", "plugins"}

// parametersOf lists the query parameters of the published API: "GET /containers/json all".
func parametersOf(t *testing.T, out map[string]bool) {
	t.Helper()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/moby/moby/api").Output()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "swagger.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	at, method, name := "", "", ""
	for line := range strings.Lines(string(text)) {
		if m := swaggerPath.FindStringSubmatch(line); m != nil {
			at = m[1]
		} else if m := swaggerMethod.FindStringSubmatch(line); m != nil {
			method = strings.ToUpper(m[1])
		} else if m := swaggerName.FindStringSubmatch(line); m != nil {
			name = m[1]
		} else if m := swaggerIn.FindStringSubmatch(line); m != nil && m[1] == "query" && !slices.Contains(others, strings.SplitN(at, "/", 3)[1]) {
			out[method+" "+at+" "+name] = true
		}
	}
}

// Everything that a request can say is decided upon in testdata/fields.txt: it works, is refused, or has no meaning here. What
// a newer API module adds fails here until somebody decides.
func TestEveryFieldIsDecided(t *testing.T) {
	all := map[string]bool{}
	for _, r := range requests {
		fieldsOf(r, path.Base(r.PkgPath())+"."+r.Name(), all)
	}
	parametersOf(t, all)
	text, err := os.ReadFile("testdata/fields.txt")
	if err != nil {
		t.Fatal(err)
	}
	decided := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		name, verdict, _ := strings.Cut(line, ": ")
		word, reason, _ := strings.Cut(verdict, " ")
		switch {
		case !slices.Contains([]string{"works", "refused", "warned", "ignored"}, word):
			t.Errorf("%s: the verdict %q is none of works, refused, warned, ignored", name, word)
		case word != "works" && reason == "":
			t.Errorf("%s: %s, but why?", name, word)
		case decided[name]:
			t.Errorf("%s stands twice in the list", name)
		case !all[name]:
			t.Errorf("%s: the API has no such field or parameter (any more)", name)
		}
		decided[name] = true
	}
	for name := range all {
		if !decided[name] {
			t.Errorf("%s: new in the API; decide what to do with it, and write it into testdata/fields.txt", name)
		}
	}
}
