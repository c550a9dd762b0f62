package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// runtimeLatency times the OCI runtimes alone on one bundle that is like what engines make: all namespaces, the usual
// mounts, cgroups, the runtime's own default capabilities and seccomp left out, so that all do the same work. Their state is
// on a tmpfs, as it is in /run.
func runtimeLatency(r *report, o options, _ []*engine, dir, bin string) error {
	bundle, states, err := benchBundle(dir)
	if err != nil {
		return err
	}
	defer os.RemoveAll(states)
	var names []string
	var fs []func() error
	for _, rt := range benchRuntimes(bin, o.docker29) {
		n := 0
		run := func() error {
			n++
			cmd := exec.Command(rt.path, "--root", filepath.Join(states, rt.name), "run", "--bundle", bundle, fmt.Sprintf("bench-%s-%d", rt.name, n))
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %v: %s", rt.name, err, bytes.TrimSpace(out))
			}
			return nil
		}
		if err := run(); err != nil {
			r.note("left out of the runtimes: %v", err)
			continue
		}
		names, fs = append(names, rt.name), append(fs, run)
	}
	if bare, err := buildBare(dir); err == nil {
		names = append(names, "bare system calls")
		fs = append(fs, func() error { return exec.Command(bare, filepath.Join(bundle, "rootfs"), "/bin/true").Run() })
	} else {
		r.note("no bare limit: %v", err)
	}
	got, err := timed(o.runs*2, fs)
	if err != nil {
		return err
	}
	const what, target = "OCI runtime `run BUNDLE`, program /bin/true", "≤ 8 ms, ≥ 4× faster than runc"
	for i, name := range names {
		r.add(what, target, name, got[i])
	}
	return alone(r, o, what, target, names[0], fs[0])
}

type ociRuntime struct{ name, path string }

// benchRuntimes are those that are installed, ours first.
func benchRuntimes(bin, docker29 string) []ociRuntime {
	found := []ociRuntime{{"shoal-runtime", filepath.Join(bin, "shoal-runtime")}}
	for _, name := range []string{"runc", "crun"} {
		if path, err := exec.LookPath(name); err == nil {
			found = append(found, ociRuntime{name, path})
		}
	}
	if docker29 != "" {
		found = append(found, ociRuntime{"runc of docker 29", filepath.Join(docker29, "runc")})
	}
	return found
}

// benchBundle makes the bundle and a directory for the runtimes' state.
func benchBundle(dir string) (bundle, states string, err error) {
	bundle = filepath.Join(dir, "bundle")
	rootfs := filepath.Join(bundle, "rootfs")
	if err := os.MkdirAll(rootfs, 0o755); err != nil {
		return "", "", err
	}
	if out, err := exec.Command("tar", "-C", rootfs, "-xf", filepath.Join(dir, "root.tar")).CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("tar: %v: %s", err, out)
	}
	if err := writeBundle(bundle); err != nil {
		return "", "", err
	}
	states, err = os.MkdirTemp("/dev/shm", "shoal-bench-")
	return bundle, states, err
}

func writeBundle(bundle string) error {
	cmd := exec.Command("runc", "spec", "--bundle", bundle)
	os.Remove(filepath.Join(bundle, "config.json"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("runc spec: %v: %s", err, out)
	}
	path := filepath.Join(bundle, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		return err
	}
	process := m["process"].(map[string]any)
	process["terminal"] = false
	process["args"] = []string{"/bin/true"}
	delete(process, "rlimits")
	if data, err = json.Marshal(m); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

// The bare limit: the system calls that no container start can do without.
const bareSource = `
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
static char stack[65536];
static int child(void *a) {
	char **argv = a;
	mount(0, "/", 0, MS_REC | MS_PRIVATE, 0);
	mount(argv[1], argv[1], 0, MS_BIND | MS_REC, 0);
	if (chdir(argv[1])) return 1;
	mount("proc", "proc", "proc", 0, 0);
	mount("tmpfs", "dev", "tmpfs", 0, 0);
	if (syscall(SYS_pivot_root, ".", ".")) return 2;
	umount2(".", MNT_DETACH);
	execv(argv[2], argv + 2);
	return 3;
}
int main(int c, char **v) {
	int st, pid = clone(child, stack + sizeof stack, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | SIGCHLD, v);
	if (pid < 0) return 9;
	waitpid(pid, &st, 0);
	return WEXITSTATUS(st);
}
`

func buildBare(dir string) (string, error) {
	src, bin := filepath.Join(dir, "bare.c"), filepath.Join(dir, "bare")
	if err := os.WriteFile(src, []byte(bareSource), 0o644); err != nil {
		return "", err
	}
	out, err := exec.Command("gcc", "-O2", "-static", "-o", bin, src).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%v: %s", err, out)
	}
	return bin, nil
}
