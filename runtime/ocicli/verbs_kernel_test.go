//go:build kernel

package ocicli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// What a hook's failure or time-out ends: create and start before the program runs, nothing after it.
func TestKernelEachHookFails(t *testing.T) {
	one := 1
	for name, c := range map[string]struct {
		set          func(*specs.Hooks, []specs.Hook)
		createFails  bool
		startFails   bool
		warnsAtStart bool
	}{
		"prestart":        {func(h *specs.Hooks, l []specs.Hook) { h.Prestart = l }, true, false, false},
		"createRuntime":   {func(h *specs.Hooks, l []specs.Hook) { h.CreateRuntime = l }, true, false, false},
		"createContainer": {func(h *specs.Hooks, l []specs.Hook) { h.CreateContainer = l }, true, false, false},
		"startContainer":  {func(h *specs.Hooks, l []specs.Hook) { h.StartContainer = l }, false, true, false},
		"poststart":       {func(h *specs.Hooks, l []specs.Hook) { h.Poststart = l }, false, false, true},
		"poststop":        {func(h *specs.Hooks, l []specs.Hook) { h.Poststop = l }, false, false, false},
	} {
		for _, bad := range []struct {
			hook specs.Hook
			says string
		}{
			{specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "echo no way; exit 3"}}, "no way"},
			{specs.Hook{Path: "/bin/sleep", Args: []string{"sleep", "100"}, Timeout: &one}, "time"},
			{specs.Hook{Path: "/no/such/hook"}, "/no/such/hook"},
		} {
			t.Run(name+" "+bad.says, func(t *testing.T) {
				t.Parallel()
				b := newBundle(t)
				b.spec.Hooks = &specs.Hooks{}
				ran := filepath.Join(b.dir, "ran")
				// The next hook runs only when a failure does not matter.
				c.set(b.spec.Hooks, []specs.Hook{bad.hook, {Path: "/bin/sh", Args: []string{"sh", "-c", "echo >" + ran}}})
				b.spec.Process.Args = []string{"sleep", "100"}
				b.write()
				step := func(verb ...string) (string, bool) {
					t.Helper()
					log := filepath.Join(b.dir, "log")
					os.Remove(log)
					cmd := b.command(append([]string{"--log", log}, verb...)...)
					err := cmd.Run() // without pipes, which a created container would hold
					text, _ := os.ReadFile(log)
					return string(text), err == nil
				}
				text, ok := step("create", b.id)
				if ok == c.createFails || c.createFails && !strings.Contains(text, bad.says) {
					t.Fatalf("create: %v, %s", ok, text)
				}
				if c.createFails {
					b.gone()
					return
				}
				text, ok = step("start", b.id)
				if ok == c.startFails || (c.startFails || c.warnsAtStart) && !strings.Contains(text, bad.says) {
					t.Fatalf("start: %v, %s", ok, text)
				}
				if c.startFails {
					b.is(fmt.Sprint(b.state()["status"]), "stopped")
				} else {
					b.is(fmt.Sprint(b.state()["status"]), "running")
				}
				text, ok = step("delete", "--force", b.id)
				if !ok || name == "poststop" && !strings.Contains(text, bad.says) {
					t.Fatalf("delete: %v, %s", ok, text)
				}
				b.gone()
				if _, err := os.Stat(ran); name[:4] == "post" && err != nil {
					t.Error("the hook after the one that failed did not run")
				}
			})
		}
	}
}

func TestKernelKillAll(t *testing.T) {
	for _, pidns := range []bool{true, false} {
		b := newBundle(t)
		if !pidns {
			b.spec.Linux.Namespaces = b.spec.Linux.Namespaces[1:]
		}
		b.create("sh", "-c", "trap : TERM; sleep 100 & sleep 200 & wait; wait; sleep 300")
		b.must("start", b.id)
		init := int(b.state()["pid"].(float64))
		await(t, b, 3)
		b.must("kill", "--all", b.id, "TERM")
		await(t, b, 2) // init ignores it and goes on to its last command
		b.must("kill", "--all", b.id, "SIGKILL")
		waitGone(t, init)
		b.must("delete", b.id)
		b.gone()
	}
}

// await waits until the container has that many processes, by events of its cgroup's process list being read again.
func await(t *testing.T, b *bundle, n int) {
	t.Helper()
	var pids []int
	for range 2000 {
		json.Unmarshal([]byte(b.must("ps", "--format", "json", b.id)), &pids)
		if len(pids) == n {
			return
		}
	}
	t.Fatalf("%d processes, want %d: %v", len(pids), n, pids)
}

func TestKernelDeleteForceInEachState(t *testing.T) {
	for _, s := range []string{"created", "running", "paused", "stopped"} {
		b := newBundle(t)
		b.create("sleep", "100")
		if s != "created" {
			b.must("start", b.id)
		}
		switch s {
		case "paused":
			b.must("pause", b.id)
		case "stopped":
			pid := int(b.state()["pid"].(float64))
			b.must("kill", b.id, "9")
			waitGone(t, pid)
		}
		b.is(fmt.Sprint(b.state()["status"]), s)
		b.must("delete", "--force", b.id)
		b.gone()
	}
}

func TestKernelEventsAndLists(t *testing.T) {
	b := newBundle(t)
	b.create("sleep", "100")
	b.must("start", b.id)
	pid := int(b.state()["pid"].(float64))
	cmd := b.command("events", "--interval", "20ms", b.id)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range 2 {
		var e struct {
			Type, ID string
			Data     struct{ Pids struct{ Current int } }
		}
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &e) != nil || e.Type != "stats" || e.ID != b.id || e.Data.Pids.Current != 1 {
			t.Fatalf("event %q", lines.Text())
		}
	}
	var list []struct {
		ID, Status, Bundle, Owner string
		Pid                       int
	}
	if err := json.Unmarshal([]byte(b.must("list", "-f", "json")), &list); err != nil || len(list) != 1 || list[0].ID != b.id || list[0].Status != "running" ||
		list[0].Pid != pid || list[0].Bundle != b.dir || list[0].Owner != "root" {
		t.Errorf("list: %v, %+v", err, list)
	}
	b.is(b.must("list", "--quiet"), b.id+"\n")
	b.contains(b.must("ps", b.id, "-o", "pid,comm"), strconv.Itoa(pid)+" sleep")
	for _, wrong := range [][]string{{"list", "-f", "xml"}, {"ps", "-f", "xml", b.id}, {"ps", b.id, "-o", "comm"}, {"kill", b.id, "SIGNOPE"}, {"kill", b.id, "99"},
		{"pause"}, {"events", "--interval", "x", b.id}, {"exec", "--user", "bob", b.id, "id"}, {"exec", b.id}, {"exec", "--cgroup", "x", b.id, "id"},
		{"update", "--memory", "x", b.id}, {"update", "--l3-cache-schema", "x", b.id}, {"update", "-r", "/no/file", b.id}, {"create", "../x"}} {
		if out, errOut, code := b.try(wrong...); code == 0 || errOut == "" {
			t.Errorf("%v: exit code %d, %s%s", wrong, code, out, errOut)
		}
	}
	b.must("kill", b.id, "KILL")
	for lines.Scan() { // it ends with the container
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// Each limit arrives where the kernel keeps it, from flags and from a file or standard input; what is refused changes nothing.
func TestKernelUpdateEach(t *testing.T) {
	b := newBundle(t)
	b.create("sleep", "100")
	b.must("start", b.id)
	read := func(v1, v2 string) string {
		for _, p := range []string{"/sys/fs/cgroup/" + strings.Split(v1, ".")[0] + b.spec.Linux.CgroupsPath + "/" + v1, "/sys/fs/cgroup" + b.spec.Linux.CgroupsPath + "/" + v2} {
			if data, err := os.ReadFile(p); err == nil {
				return strings.TrimSpace(string(data))
			}
		}
		t.Fatalf("neither %s nor %s is there", v1, v2)
		return ""
	}
	all := func(want string) {
		t.Helper()
		b.is(strings.Join([]string{read("memory.limit_in_bytes", "memory.max"), read("memory.soft_limit_in_bytes", "memory.low"), read("pids.max", "pids.max"),
			read("cpuset.cpus", "cpuset.cpus")}, " "), want)
	}
	b.must("update", "--memory", "64m", "--memory-swap", "128m", "--memory-reservation", "32m", "--pids-limit", "44", "--cpuset-cpus", "0", "--cpuset-mems", "0",
		"--cpu-share", "300", "--cpu-quota", "20000", "--cpu-period", "50000", b.id)
	all("67108864 33554432 44 0")
	if quota := read("cpu.cfs_quota_us", "cpu.max"); quota != "20000" && quota != "20000 50000" {
		t.Errorf("quota %s", quota)
	}
	file := filepath.Join(b.dir, "r.json")
	os.WriteFile(file, []byte(`{"memory":{"limit":33554432,"swap":33554432,"reservation":16777216},"cpu":{"shares":200,"quota":-1,"cpus":"0","mems":"0"},"pids":{"limit":33}}`), 0o600)
	b.must("update", "-r", "r.json", b.id)
	all("33554432 16777216 33 0")
	cmd := b.command("update", "-r", "-", b.id)
	cmd.Stdin = strings.NewReader(`{"pids":{"limit":22}}`)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	all("33554432 16777216 22 0")
	refused := [][]string{{"--cpuset-cpus", "4000"}, {"--cpu-idle", "5"}, {"--blkio-weight", "5"}, {"--pids-limit", "x"}}
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err == nil { // v2 takes a limit below what is used, and ends processes for it
		refused = append(refused, []string{"--memory", "1k"})
	}
	for _, wrong := range refused {
		if _, errOut, code := b.try(append(append([]string{"update"}, wrong...), b.id)...); code != 1 || errOut == "" {
			t.Errorf("%v: %d %s", wrong, code, errOut)
		}
		all("33554432 16777216 22 0")
	}
}

// exec with a terminal, descriptors, a process file with settings of its own.
func TestKernelExecSettings(t *testing.T) {
	b := newBundle(t)
	b.create("sleep", "100")
	b.must("start", b.id)
	f, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := b.command("exec", "--preserve-fds", "1", b.id, "sh", "-c", "head -c 4 <&3; ls /proc/self/fd | wc -l")
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.Output()
	if err != nil || !strings.HasPrefix(string(out), "root") {
		t.Errorf("%v %q", err, out)
	}
	process := specs.Process{Terminal: false, Cwd: "/tmp", Args: []string{"sh", "-c", "pwd; id; umask; grep -E 'NoNew|CapEff|Groups' /proc/self/status; grep 'open files' /proc/self/limits; cat /proc/self/oom_score_adj"},
		Env: []string{"PATH=/bin"}, User: specs.User{UID: 5, GID: 6, AdditionalGids: []uint32{9}, Umask: new(uint32)},
		NoNewPrivileges: true, Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}, Effective: []string{"CAP_CHOWN"}, Permitted: []string{"CAP_CHOWN"}, Inheritable: []string{"CAP_CHOWN"}, Ambient: []string{"CAP_CHOWN"}},
		Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 88}}, OOMScoreAdj: new(int)}
	*process.User.Umask, *process.OOMScoreAdj = 0o027, 444
	data, err := json.Marshal(process)
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(b.dir, "p.json"), data, 0o600)
	got := b.must("exec", "--process", "p.json", b.id)
	for _, want := range []string{"/tmp\n", "uid=5 gid=6 groups=9", "0027\n", "NoNewPrivs:\t1", "CapEff:\t0000000000000001", "77                   88", "444\n"} {
		b.contains(got, want)
	}
	for want, flags := range map[string][]string{"AppArmor": {"--apparmor", "x"}, "SELinux": {"--process-label", "a:b:c:d"}, "absolute": {"--cwd", "tmp"}, "--cgroup": {"--cgroup", "x"}} {
		_, errOut, code := b.try(append(append([]string{"exec"}, flags...), b.id, "true")...)
		if code != 255 || !strings.Contains(errOut, want) {
			t.Errorf("%v: %d %s", flags, code, errOut)
		}
	}
	b.contains(b.must("exec", "--no-new-privs", "-c", "CAP_SYS_PTRACE", b.id, "grep", "NoNewPrivs", "/proc/self/status"), "1")
	b.must("pause", b.id)
	wait := b.command("exec", "--ignore-paused", b.id, "echo", "thawed")
	pipe, err := wait.StdoutPipe()
	if err != nil || wait.Start() != nil {
		t.Fatal(err)
	}
	b.must("resume", b.id)
	line, _ := bufio.NewReader(pipe).ReadString('\n')
	b.is(line, "thawed\n")
	if err := wait.Wait(); err != nil {
		t.Error(err)
	}
}

// The example for users without root works for one: uid 1234 without any capability.
func TestKernelRootless(t *testing.T) {
	b := newBundle(t)
	b.must("spec", "--rootless", "--bundle", b.dir)
	data, err := os.ReadFile(filepath.Join(b.dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s specs.Spec
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1234, Size: 1}}
	s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1234, Size: 1}}
	s.Process.Terminal, s.Process.Args = false, []string{"sh", "-c", "id -u; touch /tmp/x && echo wrote; hostname"}
	s.Root.Readonly = false
	s.Linux.CgroupsPath = ""
	b.spec = &s
	b.write()
	b.chown(1234)
	os.Chown(b.dir, 1234, 1234)
	as := func(args ...string) string {
		t.Helper()
		cmd := b.command(append([]string{"--root", filepath.Join(b.dir, "own"), "--log", filepath.Join(b.dir, "log")}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 1234}}
		out, err := os.Create(filepath.Join(b.dir, "output"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		cmd.Stdout, cmd.Stderr = out, out
		err = cmd.Run()
		text, _ := os.ReadFile(out.Name())
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, text)
		}
		return string(text)
	}
	b.is(as("run", b.id), "0\nwrote\n"+s.Hostname+"\n")
	s.Process.Args = []string{"sleep", "100"}
	b.write()
	as("run", "--detach", b.id)
	b.is(as("exec", b.id, "id", "-u"), "0\n")
	b.contains(as("list"), "running")
	as("kill", b.id, "CONT")
	as("delete", "--force", b.id)
	if left, _ := os.ReadDir(filepath.Join(b.dir, "own")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
