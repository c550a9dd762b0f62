//go:build kernel

package ocicli

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/runtime/container"
)

func TestKernelLife(t *testing.T) {
	b := newBundle(t)
	b.spec.Annotations = map[string]string{"who": "test"}
	b.create("sh", "-c", "echo started; exec sleep 100")
	s := b.state()
	b.is(fmt.Sprint(s["status"], s["id"], s["bundle"]), "created"+b.id+b.dir)
	b.is(fmt.Sprint(s["annotations"]), "map[who:test]")
	if b.output() != "" {
		t.Errorf("ran before start: %s", b.output())
	}
	b.must("start", b.id)
	b.is(fmt.Sprint(b.state()["status"]), "running")
	_, errOut, code := b.try("start", b.id)
	b.is(fmt.Sprint(code), "1")
	b.contains(errOut, "cannot start container")
	_, errOut, code = b.try("delete", b.id)
	b.is(fmt.Sprint(code), "1")
	b.contains(errOut, "is not stopped")
	_, errOut, _ = b.try("create", b.id)
	b.contains(errOut, "already exists")
	b.contains(b.must("list"), b.id)
	b.contains(b.must("list", "-q"), b.id)

	pid := int(s["pid"].(float64))
	var pids []int
	json.Unmarshal([]byte(b.must("ps", "--format", "json", b.id)), &pids)
	if len(pids) == 0 || pids[0] != pid {
		t.Errorf("ps says %v, want %d", pids, pid)
	}
	b.contains(b.must("ps", b.id), "sleep 100")
	b.must("pause", b.id)
	b.is(fmt.Sprint(b.state()["status"]), "paused")
	_, errOut, _ = b.try("exec", b.id, "true")
	b.contains(errOut, "paused")
	b.must("resume", b.id)
	b.must("update", "--memory", "32m", "--pids-limit", "11", b.id)
	b.contains(b.must("events", "--stats", b.id), `"limit":33554432`)
	b.must("kill", b.id, "KILL")
	waitGone(t, pid)
	b.is(fmt.Sprint(b.state()["status"]), "stopped")
	_, errOut, _ = b.try("kill", b.id)
	b.contains(errOut, "not running")
	b.must("delete", b.id)
	b.gone()
	_, errOut, code = b.try("state", b.id)
	b.is(fmt.Sprint(code), "1")
	b.contains(errOut, "does not exist")
	b.must("delete", "--force", b.id)
}

func waitGone(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	if err := container.WaitPidfd(f, 10e9); err != nil {
		t.Fatal(err)
	}
}

func TestKernelStartTellsWhyNot(t *testing.T) {
	b := newBundle(t)
	b.file("etc/garbage", "garbage", 0o755)
	b.create("/etc/garbage")
	_, errOut, code := b.try("start", b.id)
	if code == 0 {
		t.Error("start succeeded")
	}
	b.contains(errOut, "exec format error")
}

func TestKernelCreatedIsDeleted(t *testing.T) {
	b := newBundle(t)
	b.create("sleep", "100")
	_, errOut, _ := b.try("delete", b.id)
	b.contains(errOut, "is not stopped: it is created")
	b.must("delete", "--force", b.id)
	b.gone()
}

func TestKernelHooks(t *testing.T) {
	b := newBundle(t)
	log := filepath.Join(b.dir, "hooks.log")
	os.WriteFile(log, nil, 0o666)
	os.WriteFile(b.path("hooks.log"), nil, 0o666)
	hook := func(name, file string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "s=$(cat); echo $0 $VALUE \"$s\" >>" + file, name}, Env: []string{"VALUE=v", "PATH=/bin:/usr/bin"}}}
	}
	b.spec.Hooks = &specs.Hooks{Prestart: hook("prestart", log), CreateRuntime: hook("createRuntime", log), CreateContainer: hook("createContainer", log),
		StartContainer: hook("startContainer", "/hooks.log"), Poststart: hook("poststart", log), Poststop: hook("poststop", log)}
	b.create("sleep", "100")
	pid := fmt.Sprint(int(b.state()["pid"].(float64)))
	b.must("start", b.id)
	b.must("delete", "--force", b.id)
	data, _ := os.ReadFile(log)
	var names []string
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(line, " ")
		names = append(names, name)
		var s specs.State
		if err := json.Unmarshal([]byte(strings.TrimPrefix(rest, "v ")), &s); err != nil {
			t.Errorf("%s: %v: %s", name, err, rest)
		}
		if s.ID != b.id || s.Bundle != b.dir || name != "poststop" && fmt.Sprint(s.Pid) != pid {
			t.Errorf("%s got %+v", name, s)
		}
	}
	b.is(strings.Join(names, " "), "prestart createRuntime createContainer poststart poststop")
	inside, _ := os.ReadFile(b.path("hooks.log"))
	b.contains(string(inside), "startContainer v")
}

// Poststart hooks find the program executed, those before it do not.
func TestKernelHooksAndTheExecution(t *testing.T) {
	b := newBundle(t)
	hook := func(name string) []specs.Hook {
		script := `pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/'); tr '\0' ' ' <"/proc/$pid/cmdline" >` + filepath.Join(b.dir, name)
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}}}
	}
	b.spec.Hooks = &specs.Hooks{CreateRuntime: hook("before"), Poststart: hook("after")}
	b.create("sleep", "100")
	b.must("start", b.id)
	said := func(name string) string {
		text, _ := os.ReadFile(filepath.Join(b.dir, name))
		return string(text)
	}
	b.contains(said("before"), "shoal-init")
	b.is(said("after"), "sleep 100 ")
	b.must("delete", "--force", b.id)
}

func TestKernelHookFailures(t *testing.T) {
	one := 1
	for want, hook := range map[string]specs.Hook{
		"it printed: no way":            {Path: "/bin/sh", Args: []string{"sh", "-c", "echo no way; exit 3"}},
		"did not end within its timeou": {Path: "/bin/sleep", Args: []string{"sleep", "100"}, Timeout: &one},
		"no such file or directory":     {Path: "/no/such/hook"},
	} {
		b := newBundle(t)
		b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{hook}}
		b.fails(want)
		b = newBundle(t)
		b.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{hook}}
		b.fails(want)
	}
}

func TestKernelExec(t *testing.T) {
	for _, user := range []bool{false, true} {
		b := newBundle(t)
		if user {
			b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
			b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings = maps, maps
		}
		b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		b.chown(100000 * btoi(user))
		b.create("sleep", "100")
		b.must("start", b.id)
		pid := strconv.Itoa(int(b.state()["pid"].(float64)))
		got := b.must("exec", "--env", "A=b c", "--cwd", "/etc", b.id, "sh", "-c", "echo $A; pwd; for n in pid net ipc uts mnt cgroup time user; do readlink /proc/self/ns/$n; done; id -u; grep -E 'CapEff|NoNew' /proc/self/status; ls /proc/self/fd; cat /proc/self/cgroup")
		b.contains(got, "b c\n/etc\n")
		for _, n := range []string{"pid", "net", "ipc", "uts", "mnt", "cgroup", "time", "user"} {
			of, _ := os.Readlink("/proc/" + pid + "/ns/" + n)
			b.contains(got, of)
		}
		b.contains(got, "CapEff:\t0000000020000420\nNoNewPrivs:\t1\n0\n1\n2\n3\n")
		if got := strings.ReplaceAll(got, "0::/\n", ""); strings.Contains(got, "0::") || strings.Contains(got, "memory:") && !strings.Contains(got, "memory:/\n") {
			t.Errorf("its control groups are not roots:\n%s", got)
		}
		if _, _, code := b.try("exec", b.id, "sh", "-c", "exit 7"); code != 7 {
			t.Errorf("exit code %d, want 7", code)
		}
		b.contains(b.must("exec", "--user", "5:6", "--cap", "CAP_SYS_PTRACE", b.id, "id"), "uid=5 gid=6")
		_, errOut, code := b.try("exec", b.id, "nope")
		b.is(fmt.Sprint(code), "255")
		b.contains(errOut, "executable file not found in $PATH")
		os.WriteFile(filepath.Join(b.dir, "p.json"), []byte(`{"cwd":"/","args":["sh","-c","exit 9"],"user":{"uid":0,"gid":0},"env":["PATH=/bin"]}`), 0o644)
		if _, _, code := b.try("exec", "--process", "p.json", b.id); code != 9 {
			t.Errorf("exit code %d, want 9", code)
		}
		if err := b.command("exec", "--detach", "--pid-file", "exec.pid", b.id, "sleep", "50").Run(); err != nil {
			t.Fatal(err)
		}
		data, _ := os.ReadFile(filepath.Join(b.dir, "exec.pid"))
		var pids []int
		json.Unmarshal([]byte(b.must("ps", "--format", "json", b.id)), &pids)
		b.contains(fmt.Sprint(pids), string(data))
		b.must("delete", "--force", b.id)
		b.gone()
	}
}

// receiveConsole accepts one terminal on a console socket.
func receiveConsole(t *testing.T, socket string) <-chan *os.File {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	got := make(chan *os.File, 1)
	go func() {
		defer close(got)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		name, oob := make([]byte, 100), make([]byte, 100)
		_, oobn, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(name, oob)
		if err != nil {
			return
		}
		msgs, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for i := range msgs {
			if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil {
				got <- os.NewFile(uintptr(fds[0]), "console")
			}
		}
	}()
	return got
}

func TestKernelTerminal(t *testing.T) {
	b := newBundle(t)
	b.spec.Process.Terminal = true
	b.spec.Process.ConsoleSize = &specs.Box{Height: 33, Width: 77}
	b.spec.Process.Args = []string{"sh", "-c", "tty; ls -l /dev/console; test -t 0 && test -t 2 && echo terminal; sleep 100"}
	b.write()
	_, errOut, code := b.try("create", b.id)
	b.is(fmt.Sprint(code), "1")
	b.contains(errOut, "--console-socket")
	socket := filepath.Join(b.dir, "console.sock")
	got := receiveConsole(t, socket)
	b.must("create", "--console-socket", socket, b.id)
	console := <-got
	if console == nil {
		t.Fatal("no terminal came")
	}
	defer console.Close()
	if size, err := unix.IoctlGetWinsize(int(console.Fd()), unix.TIOCGWINSZ); err != nil || size.Row != 33 || size.Col != 77 {
		t.Errorf("size %+v, %v", size, err)
	}
	b.must("start", b.id)
	var text string
	buf := make([]byte, 1000)
	for !strings.Contains(text, "terminal") {
		n, err := console.Read(buf)
		if err != nil {
			t.Fatal(err, text)
		}
		text += string(buf[:n])
	}
	b.contains(text, "/dev/pts/0")
	b.contains(text, "136,   0")

	socket2 := filepath.Join(b.dir, "console2.sock")
	got = receiveConsole(t, socket2)
	b.must("exec", "--tty", "--detach", "--console-socket", socket2, b.id, "sh", "-c", "tty; sleep 100")
	if console = <-got; console == nil {
		t.Fatal("no terminal came for exec")
	}
	defer console.Close()
	n, _ := console.Read(buf)
	b.contains(string(buf[:n]), "/dev/pts/1")
}

func TestKernelJoin(t *testing.T) {
	a := newBundle(t)
	a.create("sleep", "100")
	pid := int(a.state()["pid"].(float64))
	b := newBundle(t)
	for i, n := range b.spec.Linux.Namespaces {
		switch n.Type {
		case specs.NetworkNamespace:
			b.spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/net", pid)
		case specs.PIDNamespace:
			b.spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/pid", pid)
		case specs.IPCNamespace:
			b.spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/ipc", pid)
		}
	}
	got := b.sh("for n in net pid ipc uts; do readlink /proc/self/ns/$n; done; ps")
	for _, n := range []string{"net", "pid", "ipc"} {
		of, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, n))
		b.contains(got, of)
	}
	b.contains(got, "shoal-init")
	for i, n := range b.spec.Linux.Namespaces {
		if n.Type == specs.NetworkNamespace {
			b.spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/uts", pid)
		}
	}
	b.fails("is a uts namespace")
}

func TestKernelLogAndPidFile(t *testing.T) {
	b := newBundle(t)
	b.spec.Process.Args = []string{"nope"}
	b.write()
	b.try("--log", "log.json", "--log-format", "json", "run", b.id)
	data, _ := os.ReadFile(filepath.Join(b.dir, "log.json"))
	var line struct{ Level, Msg, Time string }
	if err := json.Unmarshal(data, &line); err != nil || line.Level != "error" || !strings.Contains(line.Msg, "not found in $PATH") {
		t.Errorf("log: %s, %v", data, err)
	}
	b.spec.Process.Args = []string{"sleep", "100"}
	b.write()
	cmd := b.command("run", "--detach", "--pid-file", "pid", b.id)
	cmd.Stdout, cmd.Stderr = nil, nil
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	pid, _ := os.ReadFile(filepath.Join(b.dir, "pid"))
	b.is(string(pid), fmt.Sprint(int(b.state()["pid"].(float64))))
	_, errOut, code := b.try("--systemd-cgroup", "list")
	b.is(fmt.Sprint(code), "1")
	b.contains(errOut, "systemd")
	_, errOut, _ = b.try("checkpoint", b.id)
	b.contains(errOut, "criu")
	b.contains(b.must("features"), `"ociVersionMax"`)
}
