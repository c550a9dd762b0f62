package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const image = "shoal-bench"

// engine is one container engine under measurement.
type engine struct {
	name    string
	version string
	client  []string // command line with the flags that reach it
	env     []string
	daemon  *exec.Cmd // nil: none
	dir     string    // its files; tells its processes apart
}

func (e *engine) cmd(args ...string) *exec.Cmd {
	if e.name == "podman" && args[0] == "rm" { // unlike the others' it first waits ten seconds for the container to stop
		args = append([]string{"rm", "-t", "0"}, args[1:]...)
	}
	all := append(append([]string{}, e.client...), args...)
	c := exec.Command(all[0], all[1:]...)
	c.Env = append(os.Environ(), e.env...)
	return c
}

func (e *engine) run(args ...string) (string, error) {
	var out, errOut bytes.Buffer
	c := e.cmd(args...)
	c.Stdout, c.Stderr = &out, &errOut
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %v: %s", e.name, strings.Join(args, " "), err, errOut.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// startEngines starts every engine that is installed and imports the image; one that does not work is left out, with a
// word about why.
func startEngines(dir, bin, docker29, tar string) ([]*engine, func()) {
	var up []*engine
	docker := func(dir, _ string) (*engine, error) { return startDocker(dir, docker29) }
	for _, start := range []func(string, string) (*engine, error){startShoal, docker, startPodman} {
		e, err := start(dir, bin)
		if err == nil {
			_, err = e.run("import", tar, image)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench: left out:", err)
			if e != nil {
				e.stop()
			}
			continue
		}
		up = append(up, e)
	}
	return up, func() {
		for _, e := range up {
			e.stop()
		}
	}
}

func (e *engine) stop() {
	if ids, err := e.run("ps", "-aq"); err == nil && ids != "" {
		e.run(append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
	}
	if e.daemon == nil {
		return
	}
	e.daemon.Process.Signal(syscall.SIGTERM)
	e.daemon.Wait()
	unix.Unmount(e.dir+"/exec/names", unix.MNT_DETACH)
	unix.Unmount(e.dir+"/exec", unix.MNT_DETACH) // a tmpfs of shoald's; others have none
}

func (e *engine) socket() string { return filepath.Join(e.dir, "sock") }

// restart ends the daemon with a signal and starts it again; it gives the time from its start to the served API.
func (e *engine) restart(end syscall.Signal) (time.Duration, error) {
	e.daemon.Process.Signal(end)
	e.daemon.Wait()
	e.daemon = exec.Command(e.daemon.Args[0], e.daemon.Args[1:]...)
	if err := e.daemon.Start(); err != nil {
		e.daemon = nil
		return 0, err
	}
	return answers("unix", e.socket())
}

func (e *engine) startDaemon(path string, args ...string) error {
	log, err := os.Create(filepath.Join(e.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	e.daemon = exec.Command(path, args...)
	e.daemon.Stdout, e.daemon.Stderr = log, log
	if err := e.daemon.Start(); err != nil {
		e.daemon = nil
		return err
	}
	for range 600 {
		if _, err = e.run("version"); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	text, _ := os.ReadFile(log.Name())
	return fmt.Errorf("%w\n%s", err, text)
}

func engineDir(dir, name string) (string, error) {
	d := filepath.Join(dir, name)
	return d, os.MkdirAll(d, 0o755)
}

func startShoal(dir, bin string) (*engine, error) {
	d, err := engineDir(dir, "shoal")
	if err != nil {
		return nil, err
	}
	sock := "unix://" + d + "/sock"
	e := &engine{name: "shoal", dir: d, client: []string{filepath.Join(bin, "shoal")}, env: []string{"DOCKER_HOST=" + sock}}
	err = e.startDaemon(filepath.Join(bin, "shoald"), "-H", sock, "--data-root", d+"/data", "--exec-root", d+"/exec",
		"--pidfile", d+"/pid", "--config-file", "/dev/null")
	e.version, _ = e.run("version", "--format", "{{.Server.Version}}")
	return e, err
}

// startDocker starts the installed dockerd, or that of a directory, with the containerd and runc beside it. There is only one
// at a time: two would change each other's rules.
func startDocker(dir, bin string) (*engine, error) {
	dockerd, err := exec.LookPath("dockerd")
	if bin != "" {
		dockerd, err = filepath.Join(bin, "dockerd"), nil
	}
	if err != nil {
		return nil, err
	}
	d, err := engineDir(dir, "docker")
	if err != nil {
		return nil, err
	}
	sock := "unix://" + d + "/sock"
	e := &engine{name: "docker", dir: d, client: []string{"docker"}, env: []string{"DOCKER_HOST=" + sock, "DOCKER_CONFIG=" + d}}
	empty := d + "/daemon.json"
	if err := os.WriteFile(empty, []byte("{}"), 0o600); err != nil {
		return nil, err
	}
	err = e.startDaemon("env", "PATH="+strings.TrimPrefix(bin+":"+os.Getenv("PATH"), ":"), dockerd, "-H", sock, "--data-root", d+"/data", "--exec-root", d+"/exec", "--pidfile", d+"/pid", "--config-file", empty)
	e.version, _ = e.run("version", "--format", "{{.Server.Version}}")
	return e, err
}

func startPodman(dir, _ string) (*engine, error) {
	podman, err := exec.LookPath("podman")
	if err != nil {
		return nil, err
	}
	d, err := engineDir(dir, "podman")
	if err != nil {
		return nil, err
	}
	// podman's own default raises limits, which root may not do on every machine, and which --ulimit only adds to.
	conf := d + "/containers.conf"
	if err := os.WriteFile(conf, []byte("[containers]\ndefault_ulimits = []\n"), 0o600); err != nil {
		return nil, err
	}
	e := &engine{name: "podman", dir: d, env: []string{"CONTAINERS_CONF=" + conf},
		client: []string{podman, "--root", d + "/data", "--runroot", d + "/run", "--cgroup-manager=cgroupfs", "--runtime=runc", "--events-backend=file"}}
	out, err := e.run("--version")
	e.version = strings.TrimPrefix(out, "podman version ")
	return e, err
}
