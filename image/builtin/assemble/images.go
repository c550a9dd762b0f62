package assemble

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

const (
	module      = "github.com/shoalhq/shoal/images/"
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Epoch is the time of everything in the images: fixed, so that the digests depend on nothing but the content.
var Epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// users are the two accounts that images with a user database have.
var users = map[string]string{
	"/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
	"/etc/group":  "root:x:0:\nnobody:x:65534:\n",
}

// Images are the built-in images. applets are the names under which the toolbox's program answers.
func Images(applets, tiny []string) []Image {
	return []Image{hello(), whoami(), toolbox(applets, tiny)}
}

func hello() Image {
	img := Image{Name: "hello", About: "tells what happened when a container ran", Programs: map[string]string{"/hello": module + "hello"}}
	img.Config.Cmd = []string{"/hello"}
	img.Config.Env = []string{defaultPath}
	return img
}

func whoami() Image {
	img := Image{Name: "whoami", About: "a web server that tells who answered, and misbehaves on request", Files: users,
		Programs: map[string]string{"/whoami": module + "whoami"}, Dirs: map[string]int64{"/tmp": 0o1777}}
	img.Config.Entrypoint = []string{"/whoami"}
	img.Config.Env = []string{defaultPath}
	img.Config.ExposedPorts = map[string]struct{}{"80/tcp": {}}
	img.Config.StopSignal = "SIGTERM"
	img.Config.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"CMD", "/whoami", "-check"}, Interval: 30 * time.Second,
		Timeout: 5 * time.Second, StartPeriod: 10 * time.Second, StartInterval: time.Second, Retries: 3}
	return img
}

func toolbox(applets, tiny []string) Image {
	img := Image{Name: "toolbox", About: "a shell and small tools to look around with", Programs: map[string]string{
		"/bin/toolbox": module + "toolbox", "/bin/tiny": module + "toolbox/tiny"},
		Links: map[string]string{"/usr/bin": "../bin", "/sbin": "bin", "/usr/sbin": "../bin"},
		Dirs:  map[string]int64{"/tmp": 0o1777, "/var/tmp": 0o1777, "/root": 0o700, "/home": 0o755, "/run": 0o755}}
	for _, a := range applets {
		img.Links["/bin/"+a] = "toolbox"
	}
	for _, a := range tiny { // these start faster
		img.Links["/bin/"+a] = "tiny"
	}
	img.Files = map[string]string{"/etc/nsswitch.conf": "hosts: files dns\n",
		"/etc/profile": "# read by the shell at an interactive start\n"}
	for name, content := range users {
		img.Files[name] = content
	}
	img.Config.Cmd = []string{"/bin/sh"}
	img.Config.Env = []string{defaultPath}
	return img
}

// Applets asks the compiled multi-call programs for the names they answer to, so that there is one list of them.
func Applets(pkg string, o Options) ([]string, error) {
	work, err := os.MkdirTemp("", "build-images-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	program := filepath.Join(work, "program")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", program, module+pkg)
	cmd.Dir = o.Module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=") // for this machine, whatever the images are for
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, &exec.Error{Name: "go build " + pkg + ": " + string(text), Err: err}
	}
	list := exec.Command(program, "--list")
	out, err := list.Output()
	return strings.Fields(string(out)), err
}
