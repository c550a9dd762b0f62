//go:build kernel

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/world"
)

// group reads a file of the container's own cgroup, by its names in version 1 and in version 2.
func group(v1, v2 string) string {
	return "{ cat /sys/fs/cgroup/" + v1 + " 2>/dev/null || cat /sys/fs/cgroup/" + v2 + "; }"
}

// Each option of run is compared with what the container's processes really have, under our own runtime and under runc.
func TestOptionsTakeEffect(t *testing.T) {
	w := world.New(t)
	optionsTakeEffect(t, w)
}

func TestOptionsTakeEffectUnderRunc(t *testing.T) {
	w := world.New(t, "--add-runtime", "other="+foreign(t, "runc"), "--default-runtime", "other")
	optionsTakeEffect(t, w)
}

func optionsTakeEffect(t *testing.T, w *world.World) {
	status := func(key string) string { return "grep ^" + key + ": /proc/self/status | tr -d ' \t'" }
	for name, c := range map[string]struct{ flags, command, out string }{
		"user":              {"--user 7:8 --group-add 9", "id -u; id -g; " + status("Groups"), "7\n8\nGroups:89"},
		"default caps":      {"", status("CapEff"), "CapEff:00000000a80425fb"},
		"cap-drop":          {"--cap-drop ALL --cap-add CHOWN", status("CapEff"), "CapEff:0000000000000001"},
		"cap-add":           {"--cap-add SYS_PTRACE", status("CapBnd"), "CapBnd:00000000a80c25fb"},
		"caps of a user":    {"--user 7", status("CapEff") + ";" + status("CapBnd"), "CapEff:0000000000000000\nCapBnd:00000000a80425fb"},
		"no new privileges": {"--security-opt no-new-privileges", status("NoNewPrivs"), "NoNewPrivs:1"},
		"old form":          {"--security-opt no-new-privileges:true", status("NoNewPrivs"), "NoNewPrivs:1"},
		"seccomp":           {"", status("Seccomp"), "Seccomp:2"},
		"no seccomp":        {"--security-opt seccomp=unconfined", status("Seccomp"), "Seccomp:0"},
		"label off":         {"--security-opt label=disable --security-opt apparmor=unconfined", "echo fine", "fine"},
		"masked":            {"", "wc -c < /proc/timer_list; ls /sys/firmware | wc -l; echo 1 2>/dev/null > /proc/sys/kernel/panic && echo written || echo ro", "0\n0\nro"},
		"paths unconfined":  {"--security-opt systempaths=unconfined", "grep -c ' /proc/sys ' /proc/self/mountinfo", "0"},
		"privileged":        {"--privileged", status("Seccomp") + "; grep -c ' /proc/sys ' /proc/self/mountinfo; grep ' /sys ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1", "Seccomp:0\n0\nrw"},
		"read-only":         {"--read-only --tmpfs /tmp:size=1m,mode=1777", "touch /x 2>/dev/null && echo rw || echo ro; touch /tmp/x && echo rw; grep -c ' /tmp tmpfs .*noexec.*size=1024k' /proc/mounts", "ro\nrw\n1"},
		"tmpfs exec":        {"--tmpfs /t:exec", "grep ' /t ' /proc/mounts | grep -c noexec", "0"},
		"shm-size":          {"--shm-size 3m", "grep -c ' /dev/shm .*size=3072k' /proc/mounts", "1"},
		"no ipc":            {"--ipc none", "grep -c ' /dev/shm ' /proc/mounts", "0"},
		"memory":            {"--memory 32m --memory-swap 32m", group("memory/memory.limit_in_bytes", "memory.max"), "33554432"},
		"pids":              {"--pids-limit 44", group("pids/pids.max", "pids.max"), "44"},
		// Of a weight there are two scales in use: ours and newer runtimes' is the curve, older runc's the line.
		"cpu shares":         {"--cpu-shares 512", group("cpu/cpu.shares", "cpu.weight") + " | grep -cxE '512|59|20'", "1"},
		"cpus":               {"--cpus 0.5", group("cpu/cpu.cfs_quota_us", "cpu.max") + " | cut -d' ' -f1", "50000"},
		"cpuset":             {"--cpuset-cpus 0", "nproc", "1"},
		"nofile":             {"--ulimit nofile=88:88", "grep 'Max open files' /proc/self/limits | tr -s ' ' | cut -d' ' -f4,5", "88 88"},
		"core":               {"--ulimit core=0", "grep 'Max core' /proc/self/limits | tr -s ' ' | cut -d' ' -f5,6", "0 0"},
		"oom-score-adj":      {"--oom-score-adj 321", "cat /proc/self/oom_score_adj", "321"},
		"sysctl":             {"--sysctl net.ipv4.ip_default_ttl=99 --sysctl kernel.msgmax=9000", "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax", "99\n9000"},
		"low ports and ping": {"", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /proc/sys/net/ipv4/ping_group_range | tr '\t' ' '", "0\n0 2147483647"},
		"hostname":           {"--hostname box --domainname example.net", "hostname; cat /etc/hostname; cat /proc/sys/kernel/domainname", "box\nbox\nexample.net"},
		"uts host":           {"--uts host", "hostname", hostname()},
		"hosts and dns":      {"--network bridge --add-host db:10.9.8.7 --dns 10.1.1.1 --dns-search in.example --dns-option ndots:3", "grep -c '10.9.8.7.db' /etc/hosts; grep -cE 'in.example|ndots:3' /etc/resolv.conf", "1\n2"},
		"environment":        {"-e A=b -e EMPTY= -w /etc", "echo $A.$EMPTY.$HOME; pwd", "b../root\n/etc"},
		"entrypoint":         {"--entrypoint echo", "hello", "-c hello"},
		"umask":              {"", "touch /f; mkdir /d; stat -c %a /f /d", "644\n755"},
		"init":               {"--init", "cat /proc/1/cmdline | tr '\\0' ' ' | cut -c1-16", "/sbin/docker-ini"},
		"pid 1":              {"", "cat /proc/1/cmdline | tr '\\0' ' ' | cut -c1-2", "sh"},
		"devices":            {"", "ls /dev | grep -v core | tr '\n' ' '", "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"run", "--rm"}
			if !strings.Contains(c.flags, "--network") {
				args = append(args, "--network", "none")
			}
			args = append(append(args, strings.Fields(c.flags)...), "toolbox")
			if !strings.Contains(c.flags, "--entrypoint") {
				args = append(args, "sh")
			}
			r := w.Docker(append(args, "-c", c.command)...)
			if got := strings.TrimSpace(r.Out); got != c.out {
				t.Errorf("%s\ngot  %q\nwant %q\n%s", c.flags, got, c.out, r.Err)
			}
		})
	}
}

func hostname() string {
	name, _ := os.Hostname()
	return name
}

func TestSharedNamespaces(t *testing.T) {
	w := world.New(t)
	base := w.Must(w.Docker("run", "-d", "--name", "base", "--ipc", "shareable", "--hostname", "basis", "-v", "/data", "toolbox", "sleep", "1000"))
	ns := func(container, kind string) string {
		return w.Must(w.Docker("exec", container, "readlink", "/proc/self/ns/"+kind))
	}
	w.Must(w.Docker("run", "-d", "--name", "joined", "--network", "container:base", "--ipc", "container:base", "--pid", "container:base", "toolbox", "sleep", "1000"))
	for _, kind := range []string{"net", "ipc", "pid"} {
		want(t, kind+" namespace", ns("joined", kind), ns("base", kind))
	}
	for _, kind := range []string{"mnt"} {
		if ns("joined", kind) == ns("base", kind) {
			t.Error(kind, "namespace is shared too")
		}
	}
	w.Must(w.Docker("exec", "base", "sh", "-c", "echo shared > /dev/shm/f"))
	want(t, "shared memory", w.Must(w.Docker("exec", "joined", "cat", "/dev/shm/f")), "shared")
	want(t, "hosts file", w.Must(w.Docker("exec", "joined", "cat", "/etc/hosts")), w.Must(w.Docker("exec", "base", "cat", "/etc/hosts")))
	want(t, "mode", w.Must(w.Docker("inspect", "-f", "{{.HostConfig.NetworkMode}}", "joined")), "container:"+base)
	wantIn(t, "top", w.Must(w.Docker("exec", "joined", "ps")), "sleep")
	w.Must(w.Docker("rm", "-f", "joined"))
	w.Must(w.Docker("exec", "base", "true")) // who joined does not end whom it joined
	for _, kind := range []string{"pid", "ipc", "net", "uts", "cgroup"} {
		flag := map[string]string{"net": "--network", "cgroup": "--cgroupns"}[kind]
		if flag == "" {
			flag = "--" + kind
		}
		hosts, _ := os.Readlink("/proc/self/ns/" + kind)
		if kind == "net" { // the world has one of its own
			hosts, _ = os.Readlink(fmt.Sprintf("/proc/%d/ns/net", w.DaemonPid()))
		}
		want(t, kind+" of the host", w.Must(w.Docker("run", "--rm", flag, "host", "toolbox", "readlink", "/proc/self/ns/"+kind)), hosts)
	}
	w.Must(w.Docker("run", "-d", "--name", "private", "toolbox", "sleep", "1000"))
	for flag, part := range map[string]string{"--ipc=container:private": "non-shareable IPC", "--network=container:nobody": "No such container: nobody", "--pid=container:nobody": "No such container"} {
		wantIn(t, flag, w.Docker("run", "--rm", flag, "toolbox", "true").Err, part)
	}
	w.Must(w.Docker("stop", "-t", "0", "private"))
	wantIn(t, "join of a stopped one", w.Docker("run", "--rm", "--network", "container:private", "toolbox", "true").Err, "non running container")
	w.Must(w.Docker("run", "-d", "--name", "db", "-e", "SECRET=x", "toolbox", "sleep", "1000"))
	wantIn(t, "link", w.Must(w.Docker("run", "--rm", "--link", "db:store", "toolbox", "cat", "/etc/hosts")), "store", "db")
	wantIn(t, "link to what is not there", w.Docker("run", "--rm", "--link", "nobody:x", "toolbox", "true").Err, "nobody")
}

func TestHealthChecks(t *testing.T) {
	w := world.New(t)
	health := func(name string) string {
		return w.Must(w.Docker("inspect", "-f", "{{.State.Health.Status}} {{.State.Health.FailingStreak}}", name))
	}
	w.Must(w.Docker("run", "-d", "--name", "well", "--network", "none", "--health-cmd", "test -e /ok", "--health-interval", "100ms", "--health-retries", "2", "toolbox",
		"sh", "-c", "touch /ok; sleep 1000"))
	eventually(t, "healthy", func() bool { return health("well") == "healthy 0" })
	w.Must(w.Docker("exec", "well", "rm", "/ok"))
	eventually(t, "unhealthy", func() bool { return strings.HasPrefix(health("well"), "unhealthy") })
	wantIn(t, "ps", w.Must(w.Docker("ps", "--filter", "health=unhealthy", "--format", "{{.Names}} {{.Status}}")), "well", "(unhealthy)")
	w.Must(w.Docker("exec", "well", "touch", "/ok"))
	w.KillDaemon()
	w.StartDaemon()
	eventually(t, "healthy again, with another daemon", func() bool { return health("well") == "healthy 0" })
	w.Must(w.Docker("run", "-d", "--name", "slow", "--network", "none", "--health-cmd", "echo thinking; sleep 1000", "--health-interval", "100ms", "--health-timeout", "200ms",
		"--health-retries", "1", "toolbox", "sleep", "1000"))
	eventually(t, "too slow", func() bool { return strings.HasPrefix(health("slow"), "unhealthy") })
	wantIn(t, "reason", w.Must(w.Docker("inspect", "-f", "{{json .State.Health.Log}}", "slow")), "exceeded timeout")
	w.Must(w.Docker("exec", "slow", "sh", "-c", "! pidof thinking"))
}

func TestMemoryEndsAContainer(t *testing.T) {
	w := world.New(t)
	since := time.Now().Add(-time.Second).Format(time.RFC3339)
	w.Docker("run", "--name", "big", "--network", "none", "--memory", "16m", "--memory-swap", "16m", "toolbox", "sh", "-c", "dd if=/dev/zero of=/dev/null bs=100M count=1")
	killed := w.Must(w.Docker("inspect", "-f", "{{.State.OOMKilled}}", "big"))
	want(t, "killed for lack of memory", killed, "true")
	wantIn(t, "event", w.Must(w.Docker("events", "--since", since, "--until", time.Now().Add(time.Second).Format(time.RFC3339), "--filter", "event=oom", "--format", "{{.Actor.Attributes.name}}")), "big")
}

func TestLimitsChangeWhileItRuns(t *testing.T) {
	w := world.New(t)
	w.Must(w.Docker("run", "-d", "--name", "live", "--network", "none", "toolbox", "sleep", "1000"))
	w.Must(w.Docker("update", "--memory", "48m", "--memory-swap", "48m", "--pids-limit", "33", "--cpus", "0.25", "--restart", "on-failure:3", "live"))
	for what, c := range map[string][2]string{
		"memory": {group("memory/memory.limit_in_bytes", "memory.max"), "50331648"}, "pids": {group("pids/pids.max", "pids.max"), "33"},
		"cpus": {group("cpu/cpu.cfs_quota_us", "cpu.max") + " | cut -d' ' -f1", "25000"},
	} {
		want(t, what, w.Must(w.Docker("exec", "live", "sh", "-c", c[0])), c[1])
	}
	want(t, "policy", w.Must(w.Docker("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}", "live")), "on-failure:3")
	w.Must(w.Docker("restart", "-t", "0", "live"))
	want(t, "after a restart", w.Must(w.Docker("exec", "live", "sh", "-c", group("memory/memory.limit_in_bytes", "memory.max"))), "50331648")
	if r := w.Docker("update", "--memory", "1k", "live"); r.Code == 0 {
		t.Error("a limit below the minimum was taken")
	}
	r := w.Docker("exec", "live", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40; do sleep 5 & done; wait")
	if !strings.Contains(r.Err, "esource temporarily unavailable") && !strings.Contains(r.Err, "errno=11") {
		t.Errorf("more processes than the limit: %+v", r)
	}
}

func TestInitReaps(t *testing.T) {
	w := world.New(t)
	script := "(sleep 0.1 &) ; (sleep 0.1 &) ; sleep 1; cat /proc/[0-9]*/status | grep -c ^State:.Z; sleep 1000"
	w.Must(w.Docker("run", "-d", "--name", "reaped", "--init", "--network", "none", "toolbox", "sh", "-c", script))
	eventually(t, "output", func() bool { return w.Docker("logs", "reaped").Out != "" })
	want(t, "zombies", strings.TrimSpace(w.Docker("logs", "reaped").Out), "0")
	// Init passes SIGTERM on to a program that is not number 1 and so dies of it; if it did not, SIGKILL would follow.
	w.Must(w.Docker("stop", "reaped"))
	want(t, "exit code", w.Must(w.Docker("inspect", "-f", "{{.State.ExitCode}}", "reaped")), "143")
}

func TestLogDrivers(t *testing.T) {
	w := world.New(t)
	run := func(name string, flags ...string) {
		args := append([]string{"run", "--name", name, "--network", "none", "--label", "team=red", "-e", "ROLE=db"}, flags...)
		w.Must(w.Docker(append(args, "toolbox", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do echo line $i of the output of this container; done; sleep 0.3; echo err >&2")...))
	}
	run("local")
	wantIn(t, "local", w.Must(w.Docker("logs", "local")), "line 1 of", "line 20 of")
	want(t, "tail", w.Must(w.Docker("logs", "--tail", "2", "local")), "line 20 of the output of this container")
	want(t, "errors", w.Docker("logs", "--tail", "1", "local").Err, "err\n")
	run("json", "--log-driver", "json-file", "--log-opt", "labels=team", "--log-opt", "env=ROLE")
	path := w.Must(w.Docker("inspect", "-f", "{{.LogPath}}", "json"))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wantIn(t, "json-file", string(b), `"log":"line 1 of the output of this container\n"`, `"stream":"stderr"`, `"team":"red"`, `"ROLE":"db"`)
	wantIn(t, "details", w.Must(w.Docker("logs", "--details", "json")), "team=red")
	run("rotated", "--log-driver", "json-file", "--log-opt", "max-size=1k", "--log-opt", "max-file=2")
	out := w.Must(w.Docker("logs", "rotated"))
	if !strings.Contains(out, "line 20 of") || strings.Contains(out, "line 1 of") {
		t.Errorf("two files of 1 kB hold:\n%s", out)
	}
	run("none", "--log-driver", "none")
	wantIn(t, "none", w.Docker("logs", "none").Err, "keeps nothing to read")
	for _, bad := range [][]string{{"--log-driver", "nope"}, {"--log-opt", "max-size=x"}, {"--log-opt", "colour=red"}, {"--log-driver", "none", "--log-opt", "max-size=1m"}} {
		if r := w.Docker(append(append([]string{"run", "--rm"}, bad...), "toolbox", "true")...); r.Code != 125 {
			t.Errorf("%v: taken, or refused with code %d: %s", bad, r.Code, r.Err)
		}
	}
}

// The writable layer of a container that is removed at its end is not written back, and a restart mounts it again.
func TestRestartOfOneThatIsRemovedAtItsEnd(t *testing.T) {
	w := world.New(t)
	w.Must(w.Docker("run", "-d", "--rm", "--name", "brief", "toolbox", "sh", "-c", "echo line >>/written; exec sleep 1000"))
	lines := func(want string) {
		t.Helper()
		eventually(t, "a line of each run: "+want, func() bool {
			return strings.TrimSpace(w.Docker("exec", "brief", "sh", "-c", "wc -l </written").Out) == want
		})
	}
	lines("1")
	for _, n := range []string{"2", "3"} {
		w.Must(w.Docker("restart", "-t", "0", "brief"))
		lines(n)
	}
	w.Must(w.Docker("stop", "-t", "0", "brief"))
	w.Must(w.Docker("run", "--rm", "--name", "brief", "toolbox", "true"))
}
