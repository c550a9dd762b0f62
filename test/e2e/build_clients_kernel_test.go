//go:build kernel

package e2e

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh/agent"

	"github.com/shoalhq/shoal/test/world"
)

// buildxVersion is the newest whose modules the module proxy has.
const buildxVersion = "v0.37.0"

// buildx gives the directory of docker's plug-in buildx, which is built once from the Go module proxy and kept in the user's
// cache; "" and the reason when that does not go.
func buildx() (dir, reason string) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err.Error()
	}
	dir = filepath.Join(cache, "shoal-test", "buildx-"+buildxVersion)
	if _, err := os.Stat(filepath.Join(dir, "buildx")); err == nil {
		return dir, ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "go", "install", "github.com/docker/buildx/cmd/buildx@"+buildxVersion)
	c.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=", "CGO_ENABLED=0")
	c.Dir = os.TempDir()
	if out, err := c.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return "", "go install of buildx: " + err.Error() + ": " + lines[len(lines)-1]
	}
	return dir, ""
}

const clientsDockerfile = `FROM toolbox AS base
ARG V=none
RUN echo arg $V > /arg
COPY f /f
FROM base
COPY --from=more g /g
RUN --mount=type=secret,id=s cat /run/secrets/s > /sec
RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo ssh > /ssh
CMD ["cat", "/arg", "/f", "/g", "/sec", "/ssh"]
`

// client is a command line that builds.
type client struct {
	t     *testing.T
	w     *world.World
	name  string
	args  []string // that begin a build
	prune []string
	dir   string // its files
	env   []string
}

// run gives the exit code and all output.
func (c *client) run(args ...string) (int, string) {
	cmd := c.w.Command(args[0], args[1:]...)
	cmd.Env = append(cmd.Env, c.env...)
	out, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		c.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// build must go well; args come before the context.
func (c *client) build(args ...string) string {
	c.t.Helper()
	code, out := c.run(append(append(append([]string{}, c.args...), args...), filepath.Join(c.dir, "context"))...)
	if code != 0 {
		c.t.Fatalf("%v: exit code %d\n%s", args, code, out)
	}
	return out
}

// full has what the Dockerfile needs.
func (c *client) full(args ...string) string {
	c.t.Helper()
	return c.build(append([]string{"--progress", "plain", "--build-arg", "V=7", "--secret", "id=s,src=" + c.dir + "/secret", "--ssh", "default",
		"--build-context", "more=" + c.dir + "/more"}, args...)...)
}

const clientsWant = "arg 7\nfile\nmore\nhush\nssh"

// TestBuildClients: what shoal build and docker buildx offer, each through the whole way, with a registry for images and caches.
func TestBuildClients(t *testing.T) {
	w := world.New(t, "--registry-listen", "127.0.0.1:5000")
	shoal := world.Bin(t, "shoal")
	for _, c := range []*client{
		{name: "shoal", args: []string{shoal, "build"}, prune: []string{shoal, "builder", "prune", "-af"}},
		{name: "buildx", args: []string{"docker", "buildx", "build"}, prune: []string{"docker", "buildx", "prune", "-af"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.t, c.w = t, w
			c.setUp()
			c.outputs()
			c.caches()
			if c.name == "buildx" {
				c.buildxOnly()
			}
		})
	}
}

// setUp makes the client's files: context, secret, named context, an agent for ssh.
func (c *client) setUp() {
	t := c.t
	c.dir = write(t, t.TempDir(), map[string]string{"context/Dockerfile": clientsDockerfile, "context/f": "file\n", "secret": "hush\n", "more/g": "more\n"})
	keys := agent.NewKeyring()
	_, key, _ := ed25519.GenerateKey(nil)
	if err := keys.Add(agent.AddedKey{PrivateKey: &key}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(c.w.Dir, c.name+".agent"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go agent.ServeAgent(keys, conn)
		}
	}()
	c.env = append(c.env, "SSH_AUTH_SOCK="+l.Addr().String())
	if c.name != "buildx" {
		return
	}
	dir, reason := buildx()
	if dir == "" {
		t.Skip(reason)
	}
	plugins := write(t, t.TempDir(), map[string]string{"config.json": "{}"})
	if err := os.Mkdir(plugins+"/cli-plugins", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir+"/buildx", plugins+"/cli-plugins/docker-buildx"); err != nil {
		t.Fatal(err)
	}
	c.env = append(c.env, "DOCKER_CONFIG="+plugins, "BUILDX_CONFIG="+plugins+"/buildx")
}

// says runs an image, pulled anew when it is a registry's.
func (c *client) says(image, want string) {
	c.t.Helper()
	if got := c.w.Must(c.w.Shoal("run", "--rm", image)); got != want {
		c.t.Errorf("%s says %q, want %q", image, got, want)
	}
}

func (c *client) outputs() {
	t, w, dir := c.t, c.w, c.dir
	meta := filepath.Join(dir, "metadata")
	c.full("--load", "-t", "loaded", "--metadata-file", meta)
	c.says("loaded", clientsWant)
	var m map[string]any
	if text, _ := os.ReadFile(meta); json.Unmarshal(text, &m) != nil || !strings.HasPrefix(m["containerimage.digest"].(string), "sha256:") {
		t.Errorf("--metadata-file: %v", m)
	}
	pushed := "127.0.0.1:5000/" + c.name + "/pushed:1"
	c.full("--push", "-t", pushed, "--provenance", "mode=max")
	w.Must(w.Shoal("rmi", "-f", pushed, "loaded"))
	c.says(pushed, clientsWant)
	if code, raw := c.run("docker", "manifest", "inspect", "--insecure", pushed); code == 0 && !strings.Contains(raw, "attestation-manifest") {
		t.Errorf("no provenance was pushed: %s", raw)
	}
	c.full("-o", "type=oci,dest="+dir+"/proven.tar", "--provenance", "mode=max")
	if out, err := exec.Command("sh", "-c", "tar -xOf "+dir+"/proven.tar | tr -d ' \\n'").Output(); err != nil || !strings.Contains(string(out), `"secrets":[{"id":"s"`) {
		t.Errorf("the provenance does not say which secret was used: %v", err)
	}
	c.full("-o", "type=local,dest="+dir+"/local")
	if text, _ := os.ReadFile(dir + "/local/sec"); string(text) != "hush\n" {
		t.Errorf("-o type=local: %q", text)
	}
	for _, kind := range []string{"oci", "docker"} {
		c.full("-t", "saved:"+kind, "-o", "type="+kind+",dest="+dir+"/"+kind+".tar")
		w.Must(w.Shoal("load", "-i", dir+"/"+kind+".tar"))
		c.says("saved:"+kind, clientsWant)
		w.Must(w.Shoal("rmi", "-f", "saved:"+kind))
	}
	c.full("-o", "type=tar,dest="+dir+"/rootfs.tar")
	if out, err := exec.Command("tar", "-xOf", dir+"/rootfs.tar", "g").Output(); err != nil || string(out) != "more\n" {
		t.Errorf("-o type=tar: %v %s", err, out)
	}
	if out := c.full("--progress", "rawjson"); !strings.Contains(out, `{"vertexes":[{"digest":"sha256:`) {
		t.Errorf("--progress rawjson: %s", out)
	}
	if code, out := c.run(append(append([]string{}, c.args...), "--attest", "type=sbom", filepath.Join(dir, "context"))...); code == 0 || !strings.Contains(out, "name another by --attest type=sbom,generator=IMAGE") {
		t.Errorf("a bill of materials without its scanner: %d %s", code, out)
	}
	c.scanned()
}

const scanner = `FROM toolbox
COPY <<'EOF' /scan
printf '{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://spdx.dev/Document","predicate":{"name":"%s","found":"%s"}}' \
    "$BUILDKIT_SCAN_IMAGE_NAME" "$(cat $BUILDKIT_SCAN_SOURCE/g)" > $BUILDKIT_SCAN_DESTINATION/one.spdx.json
EOF
ENTRYPOINT ["sh", "-e", "/scan"]
`

// scanned: a bill of materials by a scanner that is here, and by one that must be pulled.
func (c *client) scanned() {
	t, w := c.t, c.w
	there := "127.0.0.1:5000/" + c.name + "/scanner:1"
	c.build("-t", "scanner", "-f", write(t, t.TempDir(), map[string]string{"Dockerfile": scanner})+"/Dockerfile")
	file, billed := c.dir+"/billed.tar", "127.0.0.1:5000/"+c.name+"/billed:1"
	c.full("--attest", "type=sbom,generator=scanner", "-o", "type=oci,dest="+file)
	if out, err := exec.Command("tar", "-xOf", file).Output(); err != nil || !strings.Contains(string(out), `"found":"more"`) || !strings.Contains(string(out), "https://spdx.dev/Document") {
		t.Errorf("no bill of materials in the archive: %v", err)
	}
	w.Must(w.Docker("tag", "scanner", there))
	w.Must(w.Docker("push", "-q", there))
	w.Must(w.Docker("rmi", there, "scanner"))
	c.full("--attest", "type=sbom,generator="+there, "--push", "-t", billed)
	c.says(billed, clientsWant) // the attestation is no platform to run
}

// caches: kept in a registry, in a directory and in an image, each is enough for a build without any step.
func (c *client) caches() {
	t, dir, repo := c.t, c.dir, "127.0.0.1:5000/"+c.name
	c.full("--cache-to", "type=registry,ref="+repo+"/cache:1,mode=max")
	c.full("--cache-to", "type=local,dest="+dir+"/cache,mode=max")
	c.full("--cache-to", "type=inline", "--push", "-t", repo+"/inline:1")
	for _, from := range []string{"type=registry,ref=" + repo + "/cache:1", "type=local,src=" + dir + "/cache", repo + "/inline:1"} {
		if code, out := c.run(c.prune...); code != 0 || !strings.Contains(out, "Total") {
			t.Errorf("prune: %d %s", code, out)
		}
		if out := c.full("--cache-from", from, "-t", "again"); !strings.Contains(out, "CACHED") || strings.Contains(out, "#8 0.") {
			t.Errorf("--cache-from %s did not help: %s", from, out)
		}
		c.says("again", clientsWant)
	}
}

func (c *client) buildxOnly() {
	t := c.t
	if code, out := c.run("docker", "buildx", "du"); code != 0 || !strings.Contains(out, "Reclaimable") {
		t.Errorf("du: %d %s", code, out)
	}
	if code, out := c.run("docker", "buildx", "ls"); code != 0 || !strings.Contains(out, "running") || !strings.Contains(out, "v0.") || strings.Contains(out, "unknown") {
		t.Errorf("ls: %d %s", code, out)
	}
	pushed := "127.0.0.1:5000/" + c.name + "/pushed:1"
	for _, v := range []struct {
		want string
		args []string
	}{
		{"org.mobyproject.buildkit.worker.executor", []string{"inspect"}},
		{"Completed", []string{"history", "ls"}},
		{"naming to docker.io/library/again", []string{"history", "logs"}},
		{"Build Steps:", []string{"history", "inspect"}},
		{"attestation-manifest", []string{"imagetools", "inspect", pushed}},
		{"pushing sha256:", []string{"imagetools", "create", "-t", pushed + "-copy", pushed}},
		{"buildDefinition", []string{"imagetools", "inspect", "--format", "{{json .Provenance}}", pushed + "-copy"}},
		{"", []string{"history", "rm", "--all"}},
		{"Total", []string{"prune", "-f", "--filter", "type=exec.cachemount"}},
	} {
		var code int
		var out string
		c.w.InNet(func() { code, out = c.run(append([]string{"docker", "buildx"}, v.args...)...) })
		if code != 0 || !strings.Contains(out, v.want) {
			t.Errorf("buildx %v: %d, want %q in %s", v.args, code, v.want, out)
		}
	}
	write(t, c.dir, map[string]string{"docker-bake.hcl": `group "default" { targets = ["one", "two"] }
target "one" {
  dockerfile-inline = "FROM toolbox\nRUN echo one > /n\nCMD cat /n"
  tags = ["bake:one"]
}
target "two" {
  contexts = { first = "target:one" }
  dockerfile-inline = "FROM first\nRUN echo two >> /n"
  tags = ["bake:two"]
}
`})
	cmd := c.w.Command("docker", "buildx", "bake", "--progress", "plain", "--load")
	cmd.Dir, cmd.Env = c.dir, append(cmd.Env, c.env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("bake: %v %s", err, out)
	}
	c.says("bake:one", "one")
	c.says("bake:two", "one\ntwo")
}
