package cli

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// spy is an engine that remembers headers and bodies.
type spy struct {
	mu   sync.Mutex
	seen []string
}

func (s *spy) serve(w http.ResponseWriter, req *http.Request, path string) bool {
	auth, _ := base64.URLEncoding.DecodeString(req.Header.Get("X-Registry-Auth"))
	s.mu.Lock()
	s.seen = append(s.seen, fmt.Sprintf("%s %s %s team=%s auth=%s", req.Method, path, req.URL.Query().Get("filters"), req.Header.Get("X-Team"), auth))
	s.mu.Unlock()
	switch {
	case path == "/auth":
		fmt.Fprint(w, `{"Status":"Login Succeeded"}`)
	case path == "/images/create":
		fmt.Fprint(w, `{"status":"done"}`)
	case path == "/containers/json" || path == "/images/json" || path == "/networks" || path == "/volumes":
		return completable(w, req, path)
	default:
		return false
	}
	return true
}

func (s *spy) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.seen = nil }()
	return strings.Join(s.seen, "\n")
}

// credentialHelper is a program as docker's protocol wants it, which keeps one file per server.
const credentialHelper = `#!/bin/sh
dir=${0%/*}/kept; mkdir -p "$dir"; name() { printf %s "$1" | tr -c 'a-zA-Z0-9.\n' _; }
case $1 in
store) in=$(cat); url=$(printf %s "$in" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/'); printf %s "$in" >"$dir/$(name "$url")" ;;
get) read -r url; f=$dir/$(name "$url"); [ -e "$f" ] || { echo "credentials not found in native keychain"; exit 1; }; cat "$f" ;;
erase) read -r url; rm -f "$dir/$(name "$url")" ;;
list) echo '{}' ;;
esac
`

// Each key of config.json that means something here does the same with both command lines.
func TestConfigFile(t *testing.T) {
	s := &spy{}
	r := newRecorder(t, s.serve)
	bin := t.TempDir()
	files := map[string]string{"docker-credential-pretend": credentialHelper, "extra/docker-hello": "#!/bin/sh\n[ \"$1\" = docker-cli-plugin-metadata ] && echo '{\"SchemaVersion\":\"0.1.0\",\"Vendor\":\"x\",\"Version\":\"v1\"}' && exit\necho plugin \"$@\"\n"}
	files["extra/docker-buildx"] = files["extra/docker-hello"]
	for name, text := range files {
		path := filepath.Join(bin, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	extra := filepath.Join(bin, "extra")
	for _, tt := range []struct {
		name, config string
		env          []string
		args, in     string
		out, asked   string // what must be printed, what the engine must have been asked
		shoalOnly    bool
	}{
		{name: "psFormat", config: `{"psFormat":"{{.Names}} is {{.State}}"}`, args: "ps", out: "web is running\nworker is exited\nice is paused\n"},
		{name: "the flag beats psFormat", config: `{"psFormat":"{{.Names}}"}`, args: "ps --format {{.ID}}", out: "1\n2\n3\n"},
		{name: "quiet beats psFormat", config: `{"psFormat":"{{.Names}}"}`, args: "ps -q", out: "1\n2\n3\n"},
		{name: "imagesFormat", config: `{"imagesFormat":"{{.Repository}}"}`, args: "images", out: "registry.test:5000/app\n"},
		{name: "networksFormat", config: `{"networksFormat":"{{.Name}}"}`, args: "network ls", out: "bridge\ninner\n"},
		{name: "volumesFormat", config: `{"volumesFormat":"{{.Name}}"}`, args: "volume ls", out: "data\n"},
		{name: "HttpHeaders", config: `{"HttpHeaders":{"X-Team":"blue"}}`, args: "ps -q", asked: "team=blue"},
		{name: "DOCKER_CUSTOM_HEADERS", config: `{"HttpHeaders":{"X-Team":"blue"}}`, env: []string{"DOCKER_CUSTOM_HEADERS=X-Team=red"}, args: "ps -q", asked: "team=red"},
		{name: "proxies", config: `{"proxies":{"default":{"httpProxy":"http://p:1","noProxy":"a,b"}}}`, args: "create img", asked: `"HTTP_PROXY=http://p:1"`},
		{name: "proxies of one engine", config: `{"proxies":{"default":{"httpProxy":"http://p:1"},"` + r.host + `":{"httpProxy":"http://q:1"}}}`, args: "create img", asked: `"http_proxy=http://q:1"`},
		{name: "pruneFilters", config: `{"pruneFilters":["label!=keep"]}`, args: "container prune -f", asked: `{"label!":{"keep":true}}`, shoalOnly: true},
		{name: "cliPluginsExtraDirs", config: `{"cliPluginsExtraDirs":["` + extra + `"]}`, args: "hello there", out: "plugin hello there\n"},
		{name: "aliases", config: `{"aliases":{"builder":"hello"},"cliPluginsExtraDirs":["` + extra + `"]}`, args: "builder ls -x", out: "plugin hello ls -x\n"},
		{name: "aliases of build", config: `{"aliases":{"builder":"buildx"},"cliPluginsExtraDirs":["` + extra + `"]}`, args: "build -t x .", out: "plugin buildx build -t x .\n", shoalOnly: true},
		{name: "auths", config: `{"auths":{"registry.test:5000":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("me:pass")) + `"}}}`, args: "pull registry.test:5000/app", asked: `"username":"me","password":"pass"`},
		{name: "credsStore", config: `{"credsStore":"pretend"}`, args: "login -u me --password-stdin registry.test:5000", in: "secret", asked: `"password":"secret"`},
		{name: "credsStore keeps it", config: `{"credsStore":"pretend","auths":{"registry.test:5000":{}}}`, args: "pull registry.test:5000/app", asked: `"username":"me","password":"secret"`},
		{name: "login again", config: `{"credsStore":"pretend","auths":{"registry.test:5000":{}}}`, args: "login registry.test:5000", asked: `"password":"secret"`, out: "Login Succeeded"},
		{name: "credHelpers", config: `{"credHelpers":{"registry.test:5000":"pretend"}}`, args: "push registry.test:5000/app", asked: `"username":"me","password":"secret"`},
		{name: "logout", config: `{"credHelpers":{"registry.test:5000":"pretend"}}`, args: "logout registry.test:5000", out: "Removing login credentials for registry.test:5000\n"},
		{name: "forgotten", config: `{"credHelpers":{"registry.test:5000":"pretend"}}`, args: "pull registry.test:5000/app", asked: "POST /images/create"},
		{name: "DOCKER_AUTH_CONFIG", config: `{}`, env: []string{`DOCKER_AUTH_CONFIG={"auths":{"registry.test:5000":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("env:pass")) + `"}}}`},
			args: "pull registry.test:5000/app", asked: `"username":"env","password":"pass"`, shoalOnly: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, program := range []string{"docker", "shoal"} {
				if _, err := exec.LookPath(program); err != nil || program == "docker" && tt.shoalOnly {
					continue
				}
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(tt.config), 0o600); err != nil {
					t.Fatal(err)
				}
				cmd := exec.Command(program, words(tt.args)...)
				cmd.Env = append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + dir, "DOCKER_CONFIG=" + dir, "DOCKER_HOST=" + r.host}, tt.env...)
				cmd.Stdin = strings.NewReader(tt.in)
				var out, errOut bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &errOut
				err := cmd.Run()
				asked := s.take() + "\n" + strings.ReplaceAll(strings.Join(r.take(), "\n"), `": `, `":`)
				if err != nil || !strings.Contains(out.String(), tt.out) || !strings.Contains(asked, tt.asked) {
					t.Errorf("%s: %v\nprinted %s%s\nasked %s", program, err, &out, &errOut, asked)
				}
				if tt.name == "forgotten" && strings.Contains(asked, "secret") {
					t.Errorf("%s: what was forgotten is sent: %s", program, asked)
				}
				if b, _ := os.ReadFile(filepath.Join(dir, "config.json")); strings.Contains(tt.name, "cred") && strings.Contains(string(b), "secret") {
					t.Errorf("%s: the password is in config.json: %s", program, b)
				}
			}
		})
	}
}
