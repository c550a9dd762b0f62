//go:build kernel

package conformance

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// dockerd, through containerd's shim, drives shoal-runtime in runc's place.
func TestInRuncsPlaceForDockerd(t *testing.T) {
	d := startDockerd(t)
	shoal := func(args ...string) []string {
		return append([]string{"run", "--runtime", "shoal", "--network", "none"}, args...)
	}
	d.want(0, "hello", shoal("--rm", "base:1", "echo", "hello")...)
	d.want(7, "", shoal("--rm", "base:1", "sh", "-c", "exit 7")...)
	d.want(127, `exec: "/nosuch": stat /nosuch: no such file or directory`, shoal("--rm", "base:1", "/nosuch")...)
	d.want(126, "permission denied", shoal("--rm", "base:1", "/etc")...)
	d.want(0, "/dev/pts/0", shoal("--rm", "-t", "base:1", "tty")...)
	d.want(0, "NoNewPrivs:\t1", shoal("--rm", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", "5",
		"--tmpfs", "/x", "base:1", "grep", "NoNewPrivs", "/proc/self/status")...)
	d.want(0, "", shoal("--rm", "--privileged", "--pid", "host", "--ipc", "host", "--uts", "host", "base:1", "true")...)
	d.want(0, "docker-init", shoal("--rm", "--init", "base:1", "ps")...)

	d.want(0, "", shoal("-d", "--name", "live", "-m", "64m", "--health-cmd", "true", "--health-interval", "1s", "base:1", "sleep", "1000")...)
	d.want(0, "uid=0(root)", "exec", "live", "id")
	d.want(0, "/dev/pts/0", "exec", "-t", "live", "tty")
	d.want(5, "", "exec", "live", "sh", "-c", "exit 5")
	d.want(126, "executable file not found in $PATH", "exec", "live", "nosuch") // as with runc: dockerd makes it 126
	d.want(0, "64MiB", "stats", "--no-stream", "live")
	d.want(0, "sleep 1000", "top", "live")
	d.want(0, "", "pause", "live")
	d.want(0, "paused", "inspect", "-f", "{{.State.Status}}", "live")
	d.want(0, "", "unpause", "live")
	d.want(0, "", "update", "-m", "128m", "--memory-swap", "128m", "live")
	d.want(0, "128MiB", "stats", "--no-stream", "live")
	d.wait("health", func() bool { return d.docker("inspect", "-f", "{{.State.Health.Status}}", "live").out == "healthy" })
	d.want(0, "", "kill", "-s", "USR1", "live")
	d.want(0, "", "restart", "-t", "0", "live")
	d.want(0, "", "stop", "-t", "0", "live")
	d.want(0, "137 exited", "inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", "live")
	d.want(0, "", "rm", "live")

	d.want(137, "", shoal("--name", "hungry", "-m", "20m", "base:1", "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")...)
	// containerd forgets the news of a container whose control group is gone before it got to read them: so one that lives on.
	d.want(0, "", shoal("-d", "--name", "eats", "-m", "20m", "base:1", "sh", "-c", "dd if=/dev/zero of=/dev/null bs=100M count=1; sleep 1000")...)
	d.wait("that memory ran out", func() bool {
		return d.docker("events", "--since", "1", "--until", time.Now().Format(time.RFC3339Nano), "--filter", "event=oom", "--filter", "container=eats").out != ""
	})
	d.want(0, "", "kill", "eats")
	d.want(0, "true", "inspect", "-f", "{{.State.OOMKilled}}", "eats")
}

// A container that Docker makes looks the same to its program with shoal-runtime as with runc.
func TestLooksAsWithRunc(t *testing.T) {
	d := startDockerd(t)
	const look = `cd /proc/self
grep -E '^(Cap|NoNewPrivs|Seccomp|Groups|Uid|Gid|SigBlk|SigIgn|Umask)' status
echo limits; grep -v -E 'pending signals|processes' limits
echo mounts; cut -d' ' -f5- mountinfo | sed 's/^/ /' | sed -e 's/[0-9a-f]\{64\}/ID/g' | grep -v overlay
echo masks; for f in /proc/kcore /proc/keys /proc/timer_list /proc/acpi /proc/scsi /sys/firmware; do ls -ld $f | awk '{ print $1, $5, $6, $NF }'; wc -c < $f 2>&1 | head -c 80; done
echo write; for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq /sys/kernel; do test -w $f && echo $f; done
echo dev; ls -l /dev | awk '{ print $1, $3, $4, $5, $6 ~ /[0-9]/ ? $6 : "", $NF }'
echo fds; ls /proc/self/fd | wc -l
echo devices; cat /sys/fs/cgroup/devices/devices.list 2>/dev/null | sort
echo env; env | grep -v HOSTNAME | sort; readlink exe; cat oom_score_adj`
	for _, flags := range [][]string{
		nil,
		{"--cap-drop", "ALL", "--cap-add", "NET_BIND_SERVICE", "--user", "1000:1000", "--read-only", "--security-opt", "no-new-privileges"},
		{"--ulimit", "nofile=100:200", "--group-add", "7", "--shm-size", "2m", "--tmpfs", "/t:size=1m", "--oom-score-adj", "100", "--device", "/dev/fuse"},
		{"--cgroupns", "private", "--security-opt", "seccomp=unconfined"},
	} {
		seen := map[string]string{}
		for _, rt := range []string{"runc", "shoal"} {
			args := append([]string{"run", "--rm", "--runtime", rt, "--network", "none"}, flags...)
			a := d.docker(append(args, "base:1", "sh", "-c", look)...)
			if a.code != 0 {
				t.Fatalf("%v with %s: %v", flags, rt, a)
			}
			seen[rt] = a.out
		}
		if d := difference(intended.ReplaceAllString(seen["runc"], ""), intended.ReplaceAllString(seen["shoal"], "")); d != "" {
			t.Errorf("%v: what differs (- runc, + shoal):\n%s", flags, d)
		}
	}
}

// intended are the lines in which shoal-runtime is stricter than runc 1.1, or only words differ; docs/conformance.md says
// why. A line is taken out where it matches.
var intended = regexp.MustCompile(`(?m)^(` + strings.Join([]string{
	` / r[ow],relatime (master:\d+ )?- ext4 .*`,
	` /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs r[ow]`,
	` /sys/fs/cgroup r[ow],nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755`,
	` /sys/fs/cgroup/systemd ro,nosuid,nodev,noexec,relatime - cgroup (systemd|cgroup) rw,name=systemd`,
	` (/proc/acpi|/proc/scsi|/sys/firmware) ro,(nosuid,nodev,noexec,)?relatime - tmpfs tmpfs r.*`,
	`(drwxrwxrwt|dr-xr-xr-x) 40 \w+ (/proc/acpi|/proc/scsi|/sys/firmware)`,
	`c 10:200 rwm`,
}, "|") + `)$`)

// difference lists the lines that only one of two texts has.
func difference(a, b string) string {
	var out strings.Builder
	only := func(mark, a, b string) {
		have := map[string]int{}
		for l := range strings.Lines(b) {
			have[strings.TrimSpace(l)]++
		}
		for l := range strings.Lines(a) {
			l = strings.TrimSpace(l)
			if have[l]--; have[l] < 0 && l != "" {
				out.WriteString(mark + l + "\n")
			}
		}
	}
	only("- ", a, b)
	only("+ ", b, a)
	return out.String()
}
