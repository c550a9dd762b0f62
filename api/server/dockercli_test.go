package server

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// docker runs the unmodified docker command line against the fake.
func docker(t *testing.T, sock, stdin string, args ...string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+sock, "DOCKER_CONFIG="+t.TempDir(), "TZ=UTC")
	cmd.Stdin = strings.NewReader(stdin)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	cmd.Run()
	return b.String(), cmd.ProcessState.ExitCode()
}

// The docker command line works against the server: one line per verb.
func TestDockerCommandLine(t *testing.T) {
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("the docker command line is not installed")
	}
	f := newFake()
	_, sock := serve(t, f)
	for _, c := range []struct {
		args  string
		stdin string
		want  string // regular expression
		code  int
	}{
		{"version --format {{.Server.Version}}/{{.Server.APIVersion}}", "", `^0.0-test/1\.56`, 0},
		{"info --format {{.Containers}}/{{.Driver}}", "", "^6/overlay2", 0},
		{"version", "", "API version: +1.56 .minimum version 1.24", 0},
		{"info", "", "Storage Driver: overlay2", 0},
		{"run -i --name a whoami say hello", "typed\n", "say hello\nto stderr\ntyped\n", 7},
		{"ps -a --format {{.Names}}:{{.Command}}:{{.Status}}", "", `^a:"say hello":Exited \(7\)`, 0},
		{"inspect a --format {{.Name}}-{{.State.ExitCode}}", "", "^/a-7", 0},
		{"run -d --name b whoami serve", "", `[0-9a-f]{64}\n$`, 0},
		{"exec b ls -l", "", "ls -l\nto stderr\n", 3},
		{"exec -d b ls -l", "", "^$", 0},
		{"logs --tail 3 b", "", "out 999\n", 0},
		{"top b", "", "PID +CMD\n1 +x", 0},
		{"stats --no-stream b", "", "b +[0-9.]+% +1MiB / 1GiB", 0},
		{"diff b", "", "A /a\nD /b", 0},
		{"cp b:/etc/motd -", "", "motd", 0},
		{"rename b c", "", "^$", 0},
		{"pause c", "", "c", 0},
		{"update --memory 1g --memory-swap 2g c", "", "c", 0},
		{"stop c", "", "c", 0},
		{"wait c", "", "7", 0},
		{"commit c d:e", "", "sha256:c0ffee", 0},
		{"rm c", "", "c", 0},
		{"rm nobody", "", "No such container: nobody", 1},
		{"run missing x", "", "pull of docker.io/library/missing:latest is not supported yet", 125},
		{"images", "", `whoami(:| +)latest`, 0},
		{"image history whoami", "", "built in", 0},
		{"tag whoami x:y", "", "^$", 0},
		{"rmi whoami", "", "Untagged: whoami", 0},
		{"load", string(tarOf("a", strings.Repeat("x", 600))), "Loaded image: whoami:latest", 0},
		{"import - a:b", "tar", "sha256:imported", 0},
		{"network ls --format {{.Name}}", "", "own", 0},
		{"network inspect own", "", `"10.0.0.0/24"`, 0},
		{"network create --subnet 10.1.0.0/16 x", "", "netid", 0},
		{"network connect --ip 10.0.0.9 own a", "", "^$", 0},
		{"volume ls", "", "local +data", 0},
		{"volume create xy", "", "xy", 0},
		{"system df", "", "Images +1 +1 +1kB", 0},
		{"container prune -f", "", "x", 0},
		{"volume prune -f -a", "", "data", 0},
		{"system prune -f", "", "Total reclaimed space", 0},
		{"node ls", "", "not a swarm manager", 1},
		{"plugin ls", "", "ID", 0},
	} {
		out, code := docker(t, sock, c.stdin, strings.Fields(c.args)...)
		if ok, _ := regexp.MatchString("(?s)"+c.want, out); !ok || code != c.code {
			t.Errorf("docker %s: exit code %d, want %d; output, want %q:\n%s", c.args, code, c.code, c.want, out)
		}
	}
}
