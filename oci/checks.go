package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// check is one question to a runtime. section names where the runtime specification (1.3) asks for it.
type check struct {
	name, section string
	try           func(ctx context.Context, t *trial) error
}

func checks() []check {
	return []check{
		{"features", "features.md", checkFeatures},
		{"life cycle", "runtime.md, lifecycle", checkLife},
		{"kill", "runtime.md, kill", checkKill},
		{"refusals", "runtime.md, operations", checkRefusals},
		{"bad configurations", "config.md", checkBadConfigs},
		{"program not there", "runtime.md, errors", checkNoProgram},
		{"process", "config.md, process", printed("id -u; id -g; pwd; echo $NAME; cat /proc/self/oom_score_adj", "12\n34\n/bin\nvalue\n321", func(s *specs.Spec) {
			score := 321
			s.Process.User = specs.User{UID: 12, GID: 34, AdditionalGids: []uint32{56}}
			s.Process.Cwd, s.Process.OOMScoreAdj = "/bin", &score
			s.Process.Env = append(s.Process.Env, "NAME=value")
		})},
		{"supplementary groups", "config.md, user", has("cat /proc/self/status", "Groups:\t56", func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{56} })},
		{"capabilities", "config.md, capabilities", has("cat /proc/self/status", "CapEff:\t0000000000000400", func(s *specs.Spec) {
			one := []string{"CAP_NET_BIND_SERVICE"}
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: one, Effective: one, Permitted: one}
		})},
		{"bounding set", "config.md, capabilities", has("cat /proc/self/status", "CapBnd:\t0000000000000000", func(s *specs.Spec) {
			s.Process.Capabilities = &specs.LinuxCapabilities{}
		})},
		{"no new privileges", "config.md, process", has("cat /proc/self/status", "NoNewPrivs:\t1", nil)},
		{"resource limits", "config.md, rlimits", has("cat /proc/self/limits", "Max file size             1048576              2097152", func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_FSIZE", Soft: 1 << 20, Hard: 2 << 20}}
		})},
		{"host name", "config.md, hostname", printed("hostname", "tried", func(s *specs.Spec) { s.Hostname = "tried" })},
		{"namespaces", "config-linux.md, namespaces", checkNamespaces},
		{"joined namespace", "config-linux.md, namespaces", checkJoin},
		{"process numbers", "config-linux.md, namespaces", printed("echo $$", "1", nil)},
		{"read-only root", "config.md, root", printed("echo x 2>/dev/null >/new || echo refused", "refused", nil)},
		{"mounts", "config.md, mounts", checkMounts},
		{"default devices", "config-linux.md, default devices", printed("for d in null zero full random urandom tty; do test -c /dev/$d || echo $d; done; head -c 3 /dev/zero | wc -c", "3", nil)},
		{"device", "config-linux.md, devices", printed("test -c /dev/given && echo there", "there", func(s *specs.Spec) {
			mode := os.FileMode(0o666)
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/given", Type: "c", Major: 1, Minor: 3, FileMode: &mode}}
		})},
		{"masked path", "config-linux.md, maskedPaths", printed("cat /proc/version; echo end", "end", func(s *specs.Spec) {
			s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/proc/version")
		})},
		{"read-only path", "config-linux.md, readonlyPaths", printed("echo 1 2>/dev/null >/proc/sys/vm/drop_caches || echo refused", "refused", nil)},
		{"kernel parameter", "config-linux.md, sysctl", printed("cat /proc/sys/net/ipv4/ip_forward", "1", func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
		})},
		{"seccomp", "config-linux.md, seccomp", printed("mkdir /dev/shm/x 2>/dev/null; test -d /dev/shm/x || echo refused", "refused", func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow,
				Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno}}}
		})},
		{"user namespace", "config-linux.md, user namespace mappings", checkUserNamespace},
		{"process limit", "config-linux.md, cgroups", checkPids},
		{"hooks", "config.md, hooks", checkHooks},
		{"annotations", "config.md, annotations", checkAnnotations},
		{"nothing left", "runtime.md, delete", checkNothingLeft},
	}
}

// printed wants a script to print exactly that.
func printed(script, want string, change func(*specs.Spec)) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error {
		got, err := t.output(ctx, script, change)
		if err == nil && got != want {
			err = fmt.Errorf("`%s` printed %q, not %q", script, got, want)
		}
		return err
	}
}

// has wants a line that begins so.
func has(script, want string, change func(*specs.Spec)) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error {
		got, err := t.output(ctx, script, change)
		if err == nil && !strings.Contains("\n"+got, "\n"+want) {
			err = fmt.Errorf("`%s` has no line %q:\n%s", script, want, got)
		}
		return err
	}
}

func checkFeatures(ctx context.Context, t *trial) error {
	text, err := t.call(ctx, "features")
	if err != nil {
		return skip("the runtime has no features verb, which the specification leaves to it: " + err.Error())
	}
	var f struct {
		Min string `json:"ociVersionMin"`
		Max string `json:"ociVersionMax"`
	}
	if err := json.Unmarshal([]byte(text), &f); err != nil || f.Min == "" || f.Max == "" {
		return fmt.Errorf("ociVersionMin and ociVersionMax are required: %v: %s", err, text)
	}
	return nil
}

func checkLife(ctx context.Context, t *trial) error {
	c, err := t.bundle("echo ran", nil)
	if err != nil {
		return err
	}
	if err := c.create(ctx); err != nil {
		return err
	}
	s, err := c.state(ctx)
	switch {
	case err != nil:
		return err
	case s.ID != c.id || s.Status != specs.StateCreated || s.Pid <= 0 || s.Bundle != c.dir || s.Version == "":
		return fmt.Errorf("after create the state is %+v; want id, status created, pid, bundle %s and ociVersion", s, c.dir)
	case c.output() != "":
		return fmt.Errorf("the program ran before start: %q", c.output())
	}
	if _, err := t.call(ctx, "start", c.id); err != nil {
		return err
	}
	if err := c.ended(ctx, s.Pid); err != nil {
		return err
	}
	if c.output() != "ran" {
		return fmt.Errorf("the output is %q", c.output())
	}
	if _, err := t.call(ctx, "delete", c.id); err != nil {
		return err
	}
	return t.refused(ctx, "state of a deleted container", "state", c.id)
}

func checkKill(ctx context.Context, t *trial) error {
	for _, started := range []bool{true, false} {
		c, err := t.bundle("sleep 60", nil)
		if err != nil {
			return err
		}
		if err := c.create(ctx); err != nil {
			return err
		}
		s, err := c.state(ctx)
		if err != nil {
			return err
		}
		if started {
			if _, err := t.call(ctx, "start", c.id); err != nil {
				return err
			}
		}
		if _, err := t.call(ctx, "kill", c.id, "KILL"); err != nil {
			return err
		}
		if err := c.ended(ctx, s.Pid); err != nil {
			return err
		}
		if err := t.refused(ctx, "kill of a stopped container", "kill", c.id, "KILL"); err != nil {
			return err
		}
		if _, err := t.call(ctx, "delete", c.id); err != nil {
			return err
		}
	}
	return nil
}

func checkRefusals(ctx context.Context, t *trial) error {
	for _, verb := range []string{"state", "start", "delete"} {
		if err := t.refused(ctx, verb+" of a container that never was", verb, "shoal-oci-never"); err != nil {
			return err
		}
	}
	c, err := t.bundle("sleep 60", nil)
	if err != nil {
		return err
	}
	if err := c.create(ctx); err != nil {
		return err
	}
	if err := t.refused(ctx, "a second create with the same ID", "create", "--bundle", c.dir, c.id); err != nil {
		return err
	}
	s, err := c.state(ctx)
	if err != nil {
		return err
	}
	if _, err := t.call(ctx, "start", c.id); err != nil {
		return err
	}
	if err := t.refused(ctx, "start of a running container", "start", c.id); err != nil {
		return err
	}
	if err := t.refused(ctx, "delete of a running container", "delete", c.id); err != nil {
		return err
	}
	if _, err := t.call(ctx, "kill", c.id, "KILL"); err != nil {
		return err
	}
	if err := c.ended(ctx, s.Pid); err != nil {
		return err
	}
	_, err = t.call(ctx, "delete", c.id)
	return err
}

func checkBadConfigs(ctx context.Context, t *trial) error {
	for what, change := range map[string]func(*specs.Spec){
		"no ociVersion":       func(s *specs.Spec) { s.Version = "" },
		"no root":             func(s *specs.Spec) { s.Root.Path = "/does/not/exist" },
		"a relative cwd":      func(s *specs.Spec) { s.Process.Cwd = "tmp" },
		"an unknown rlimit":   func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NONE", Soft: 1, Hard: 1}} },
		"a missing namespace": func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "/does/not/exist" },
	} {
		c, err := t.bundle("true", change)
		if err != nil {
			return err
		}
		if c.create(ctx) == nil {
			return fmt.Errorf("a configuration with %s was accepted", what)
		}
		if err := t.refused(ctx, "state of a container with "+what+", whose create failed,", "state", c.id); err != nil {
			return err
		}
	}
	return nil
}

func checkNoProgram(ctx context.Context, t *trial) error {
	c, err := t.bundle("", func(s *specs.Spec) { s.Process.Args = []string{"/bin/does-not-exist"} })
	if err != nil {
		return err
	}
	if c.create(ctx) != nil {
		return nil // it may look early
	}
	if err := t.refused(ctx, "start of a program that is not there", "start", c.id); err != nil {
		return err
	}
	_, err = t.call(ctx, "delete", "--force", c.id)
	return err
}

var namespaceFiles = map[specs.LinuxNamespaceType]string{specs.PIDNamespace: "pid", specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc",
	specs.UTSNamespace: "uts", specs.MountNamespace: "mnt", specs.CgroupNamespace: "cgroup"}

func checkNamespaces(ctx context.Context, t *trial) error {
	for kind, file := range namespaceFiles {
		host, err := os.Readlink("/proc/self/ns/" + file)
		if err != nil {
			continue // a kernel without it
		}
		own, err := t.output(ctx, "readlink /proc/self/ns/"+file, nil)
		if err != nil {
			return err
		}
		if own == host {
			return fmt.Errorf("the %s namespace is the host's", kind)
		}
	}
	return nil
}

func checkJoin(ctx context.Context, t *trial) error {
	host, err := os.Readlink("/proc/self/ns/uts")
	if err != nil {
		return skip(err.Error())
	}
	return printed("readlink /proc/self/ns/uts", host, func(s *specs.Spec) {
		s.Hostname = ""
		for i := range s.Linux.Namespaces {
			if s.Linux.Namespaces[i].Type == specs.UTSNamespace {
				s.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/uts", os.Getpid())
			}
		}
	})(ctx, t)
}

func checkMounts(ctx context.Context, t *trial) error {
	source := filepath.Join(t.dir, "bound")
	if err := os.WriteFile(source, []byte("from outside"), 0o644); err != nil {
		return err
	}
	return printed("cat /dev/shm/in; echo; echo x 2>/dev/null >/dev/shm/in || echo refused; echo y >/dev/mqueue2/f && cat /dev/mqueue2/f", "from outside\nrefused\ny", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/dev/shm/in", Type: "bind", Source: source, Options: []string{"bind", "ro"}},
			specs.Mount{Destination: "/dev/mqueue2", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "size=64k"}})
	})(ctx, t)
}

func checkUserNamespace(ctx context.Context, t *trial) error {
	if _, err := os.Stat("/proc/self/ns/user"); err != nil {
		return skip("this kernel has no user namespaces")
	}
	return printed("id -u; set -- $(cat /proc/self/uid_map); echo $1 $2 $3", "0\n0 100000 65536", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
		s.Linux.GIDMappings = s.Linux.UIDMappings
	})(ctx, t)
}

func checkPids(ctx context.Context, t *trial) error {
	c, err := t.bundle("sleep 60", func(s *specs.Spec) {
		n := int64(321)
		s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &n}}
	})
	if err != nil {
		return err
	}
	if err := c.create(ctx); err != nil {
		return err
	}
	got := ""
	for _, p := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		if data, err := os.ReadFile(filepath.Join(p, c.id, "pids.max")); err == nil {
			got = strings.TrimSpace(string(data))
		}
	}
	if _, err := t.call(ctx, "delete", "--force", c.id); err != nil {
		return err
	}
	switch got {
	case "321":
		return nil
	case "":
		return skip("no pids.max was found where cgroupsPath leads")
	}
	return fmt.Errorf("pids.max is %s, not 321", got)
}

func checkHooks(ctx context.Context, t *trial) error {
	log := filepath.Join(t.dir, "hooks-"+fmt.Sprint(len(t.live)))
	hook := func(name string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "state=$(cat); case $state in *'\"status\"'*) echo " + name + " >>" + log + ";; *) echo no state on stdin of " + name + " >>" + log + ";; esac"}}}
	}
	_, err := t.output(ctx, "true", func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{Prestart: hook("prestart"), CreateRuntime: hook("createRuntime"), Poststart: hook("poststart"), Poststop: hook("poststop")} //nolint:staticcheck // still allowed
	})
	if err != nil {
		return err
	}
	data, err := os.ReadFile(log)
	if got, want := strings.Join(strings.Fields(string(data)), " "), "prestart createRuntime poststart poststop"; err != nil || got != want {
		return fmt.Errorf("the hooks ran as %q, not %q (%v)", got, want, err)
	}
	return nil
}

func checkAnnotations(ctx context.Context, t *trial) error {
	c, err := t.bundle("true", func(s *specs.Spec) { s.Annotations = map[string]string{"com.example.key": "value"} })
	if err != nil {
		return err
	}
	if err := c.create(ctx); err != nil {
		return err
	}
	s, err := c.state(ctx)
	if err == nil && s.Annotations["com.example.key"] != "value" {
		err = fmt.Errorf("the state has annotations %v", s.Annotations)
	}
	if _, derr := t.call(ctx, "delete", "--force", c.id); err == nil {
		err = derr
	}
	return err
}

func checkNothingLeft(ctx context.Context, t *trial) error {
	c, err := t.bundle("true", nil)
	if err != nil {
		return err
	}
	if _, err := c.lives(ctx); err != nil {
		return err
	}
	left, _ := filepath.Glob("/sys/fs/cgroup/*/" + c.id)
	if unix.Access("/sys/fs/cgroup/"+c.id, unix.F_OK) == nil {
		left = append(left, "/sys/fs/cgroup/"+c.id)
	}
	if state, _ := filepath.Glob(filepath.Join(t.dir, "state", c.id)); len(state) > 0 {
		left = append(left, state...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), c.id) {
		left = append(left, "mounts")
	}
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("after delete there is still %s", strings.Join(left, ", "))
	}
	return err
}
