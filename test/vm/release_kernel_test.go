//go:build kernel

package vm

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/vm/plan"
)

var (
	release = flag.Bool("release", false, "install, upgrade and remove the Debian package in a guest with systemd, instead of the suites")
	deb     = flag.String("deb", "", "the package to try, for amd64, as an absolute path; without it one is made")
)

// debian are the packages of the guest's system besides those that Debian calls required.
const debian = "systemd,systemd-sysv,dbus,init-system-helpers,iproute2,kmod,nftables,procps"

// runs is how the guest's init starts the steps; the machine goes off when they are done.
const runs = `[Unit]
Description=Steps of the test
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=exec
ExecStart=/bin/sh -c 'exec /usr/local/sbin/guest "$$(cat /usr/local/share/plan.json)"'
Environment=HOME=/root
`

// TestRelease does with the Debian package what users do, under a real systemd. Every step is a shell script that fails at
// its first failing command; say tells what was found.
func TestRelease(t *testing.T) {
	if !*release {
		t.Skip("asked for by -release")
	}
	need(t, append(needed, "debootstrap", "dpkg-deb")...)
	base := systemDir(t)
	older, newer := packages(t)
	root := filepath.Join(workDir(t), "release.img")
	defer os.Remove(root)
	if err := makeSystem(t, base, root, older, newer); err != nil {
		t.Fatal(err)
	}
	m := Boot(t, Config{Name: "release", Root: root, Init: "/lib/systemd/systemd", Memory: 2048})
	defer time.AfterFunc(50*time.Minute, m.Kill).Stop()
	done, failed := 0, false
	var lines []string
	for e := range m.Events {
		if e.Exit == nil {
			lines = append(lines, e.Line)
			continue
		}
		done++
		if failed = failed || *e.Exit != 0; failed {
			m.Kill() // each step builds on those before
		}
		t.Run(e.Step, func(t *testing.T) {
			t.Logf("%.1f s\n%s", e.Seconds, strings.Join(lines, "\n"))
			if *e.Exit != 0 {
				t.Errorf("ended with %d", *e.Exit)
			}
		})
		lines = nil
	}
	if done != len(scripts) && !failed {
		t.Fatalf("%d of %d steps ended; the last lines: %q; the guest's console:\n%s", done, len(scripts), lines, m.Console())
	}
}

// systemDir is a small Debian with systemd, made once.
func systemDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(workDir(t), "debian")
	if _, err := os.Stat(dir + "/debootstrap"); err == nil {
		os.RemoveAll(dir) // it broke off
	}
	if _, err := os.Stat(dir + "/lib/systemd/systemd"); err == nil {
		return dir
	}
	if _, err := run("", "debootstrap", "--variant=minbase", "--include="+debian, "bookworm", dir); err != nil {
		t.Skip("no Debian for the virtual machine:", err)
	}
	return dir
}

// packages makes our package, and the same with another version.
func packages(t *testing.T) (older, newer string) {
	t.Helper()
	dir := t.TempDir()
	older, newer = *deb, dir+"/newer.deb"
	if older == "" {
		commit, err := run(repository(), "git", "rev-parse", "--short=12", "HEAD")
		if err == nil {
			_, err = run(repository(), "env", "ARCHES=amd64", "DIST="+dir+"/dist", "VERSION=0.1.0", "COMMIT="+commit, "STAMP=1970-01-01T00:00:00Z", "scripts/dist")
		}
		if err != nil {
			t.Fatal(err)
		}
		older = dir + "/dist/shoal_0.1.0_amd64.deb"
	}
	for _, args := range [][]string{{"dpkg-deb", "-R", older, dir + "/tree"}, {"sed", "-i", "s/^Version: .*/&+newer/", dir + "/tree/DEBIAN/control"},
		{"dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", dir + "/tree", newer}} {
		if _, err := run("", args[0], args[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	return older, newer
}

// makeSystem makes the image: Debian, the kernel's modules, the packages, and the unit that runs the steps.
func makeSystem(t *testing.T, base, image, older, newer string) error {
	root := filepath.Join(t.TempDir(), "root")
	if _, err := run("", "cp", "-a", base, root); err != nil {
		return err
	}
	if _, err := run("", "cp", "-a", kernelDir(t)+"/lib/modules", root+"/usr/lib/"); err != nil {
		return err
	}
	// kmod's programs read only the indices that its own depmod makes.
	if _, err := run("", "chroot", root, "depmod", filepath.Base(glob(root + "/usr/lib/modules/*")[0])); err != nil {
		return err
	}
	guest := filepath.Join(workDir(t), "guest")
	if _, err := run(repository(), "go", "build", "-ldflags", "-s -w", "-o", guest, "./test/vm/guest"); err != nil {
		return err
	}
	text, err := json.Marshal(plan.Plan{Steps: releaseSteps()})
	if err != nil {
		return err
	}
	for from, to := range map[string]string{older: "/opt/older.deb", newer: "/opt/newer.deb", guest: "/usr/local/sbin/guest"} {
		if _, err := run("", "cp", from, root+to); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{"/usr/local/share/plan.json": string(text), "/etc/systemd/system/steps.service": runs,
		"/etc/machine-id": strings.Repeat("5", 32) + "\n", "/etc/hostname": "guest\n", "/etc/hosts": "127.0.0.1 localhost guest\n"} {
		if err := os.WriteFile(root+name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	wants := root + "/etc/systemd/system/multi-user.target.wants"
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	if err := os.Symlink("../steps.service", wants+"/steps.service"); err != nil {
		return err
	}
	// Without udev nobody would say that the terminal is there.
	if err := os.Symlink("/dev/null", root+"/etc/systemd/system/serial-getty@ttyS0.service"); err != nil {
		return err
	}
	return makeDisk(image, "ext4", "3G", root)
}

func releaseSteps() (out []plan.Step) {
	for _, s := range scripts {
		out = append(out, plan.Step{Name: s.name, Dir: "/", Seconds: 1500, Args: []string{"/bin/sh", "-euc", prelude + s.text},
			Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive"}})
	}
	return out
}

// prelude are the words of the steps. The container "work" counts into its log, and "web" has a published port.
const prelude = `
is() { [ "$2" = "$3" ] || { echo "$1: have '$2', want '$3'"; systemctl status --no-pager shoald.service || true; journalctl -u shoald --no-pager | tail -30; exit 1; }; }
active() { is "$1" "$(systemctl is-active $1 || true)" "$2"; }
enabled() { is "$1" "$(systemctl is-enabled $1 2>/dev/null || true)" "$2"; }
daemon() { systemctl show -P MainPID shoald.service; }
pid() { shoal inspect -f '{{.State.Pid}}' $1; }
born() { cut -d' ' -f22 /proc/$1/stat; }
answers() { shoal run --rm --network host toolbox wget -qO- http://127.0.0.1:8080/ | head -3; }
# The service's control group has the daemon alone, and systemd never found another process in it.
apart() {
	is "processes of the service" "$(cat /sys/fs/cgroup/system.slice/shoald.service/cgroup.procs)" "$(daemon)"
	is "supervisors" "$(wc -l </sys/fs/cgroup/shoal-supervisors/cgroup.procs)" 3 # one waits
	is "what systemd found" "$(journalctl -u shoald | grep -c left-over || true)" 0
}
# Whoever runs, runs on: same process, no hole in what it wrote, takes execs, and is reached.
unharmed() {
	is "processes" "$(pid work) $(pid web) $(born $(pid work))" "$(cat /var/tmp/pids)"
	shoal logs work >/var/tmp/log
	seq 0 $(($(wc -l </var/tmp/log) - 1)) | cmp - /var/tmp/log
	is "exec" "$(shoal exec work echo in)" in
	answers
}
`

var scripts = []struct{ name, text string }{
	{"system", `systemctl --version | head -1; uname -r; stat -fc %T /sys/fs/cgroup; dpkg-query -W -f '${Package} ${Version}\n' systemd init-system-helpers`},
	{"install", `dpkg -i /opt/older.deb; active shoald.service active; active shoald.socket active; enabled shoald.service enabled; enabled shoald.socket enabled
		shoal version; dpkg-query -W -f '${Package} ${Version}\n' shoal; ls -l /run/shoal/shoal.sock
		is "the socket's owner and mode" "$(stat -c '%U:%G %a' /run/shoal/shoal.sock)" "root:root 660"`},
	{"containers", `shoal run -d --name work --restart always toolbox sh -c 'i=0; while :; do echo $i; i=$((i+1)); sleep 0.2; done'
		shoal run -d --name web --restart always -p 8080:80 whoami; answers; cat /proc/$(pid work)/cgroup; apart
		echo "$(pid work) $(pid web) $(born $(pid work))" >/var/tmp/pids; unharmed; shoal doctor || true`},
	{"upgrade", `before=$(daemon); dpkg -i /opt/newer.deb; active shoald.service active; case "$(dpkg-query -W -f '${Version}' shoal)" in *+newer) ;; *) exit 1;; esac
		[ "$(daemon)" != "$before" ]; unharmed`},
	{"restart", `before=$(daemon); systemctl restart shoald.service; [ "$(daemon)" != "$before" ]; unharmed`},
	{"killed", `before=$(daemon); kill -9 $before; for i in $(seq 100); do [ "$(daemon)" != "$before" ] && [ "$(systemctl is-active shoald.service)" = active ] && break; sleep 0.2; done
		active shoald.service active; unharmed`},
	{"reload", `before=$(daemon); systemctl reload shoald.service; is "the daemon" "$(daemon)" "$before"; unharmed`},
	{"stopped", `systemctl stop shoald.service; active shoald.service inactive; active shoald.socket active; is "containers' processes" "$(born $(cut -d' ' -f1 /var/tmp/pids))" "$(cut -d' ' -f3 /var/tmp/pids)"
		shoal ps >/dev/null; active shoald.service active; unharmed # the socket starts it
		journalctl -u shoald -o short-monotonic --no-pager | tail -12 | cut -c1-160`},
	{"disabled", `systemctl disable shoald.service; dpkg -i /opt/older.deb; enabled shoald.service disabled; systemctl enable shoald.service; unharmed; apart`},
	{"removed", `sysctl net.ipv4.ip_forward; dpkg -r shoal; is "files that are left" "$(ls /run/shoal/shoal.sock /usr/bin/shoald 2>/dev/null || true)" ""; active shoald.service inactive; active shoald.socket inactive
		is "processes that are left" "$(pgrep -af '^([^ ]*/)?(shoal|whoami|toolbox)' || true)" ""; is "mounts that are left" "$(grep -c /shoal /proc/self/mounts || true)" 0
		is "links and tables that are left" "$(ip -br link | grep -v '^lo' || true)$(nft list tables)" ""; is "forwarding" "$(cat /proc/sys/net/ipv4/ip_forward)" 0
		is "groups" "$(find /sys/fs/cgroup -name '*shoal*')" ""; is "files in /run" "$(find /run -name '*shoal*')" ""; ls /var/lib/shoal`},
	{"again", `dpkg -i /opt/newer.deb; active shoald.service active; enabled shoald.service enabled; enabled shoald.socket enabled
		for i in $(seq 50); do [ "$(shoal inspect -f '{{.State.Status}}' web)" = running ] && break; sleep 0.2; done; answers`},
	{"purged", `dpkg -P shoal; is "state of units" "$(find /etc/systemd /var/lib/systemd -name 'shoal*')" ""; is "the package" "$(dpkg-query -W -f '${Status}' shoal 2>/dev/null || true)" ""
		is "files" "$(find /usr -name 'shoal*')" ""; is "data" "$([ -d /var/lib/shoal/containers ] && echo kept)" kept; systemctl --failed --no-legend; systemctl is-system-running || true`},
}
