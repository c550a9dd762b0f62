//go:build kernel

package e2e

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// Options of the daemon that are about containers do what they say. Those about networks: TestNetworkFlags; TLS: TestMutualTLS.
func TestDaemonOptions(t *testing.T) {
	dir := t.TempDir()
	profile := filepath.Join(dir, "seccomp.json")
	os.WriteFile(profile, []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}`), 0o600)
	w := world.New(t, "--default-ulimit", "nofile=123:456", "--log-driver", "json-file", "--log-opt", "max-size=3m", "--label", "rack=7", "--default-shm-size", "9m",
		"--no-new-privileges", "--seccomp-profile", profile, "--default-ipc-mode", "shareable", "--default-cgroupns-mode", "private", "--init",
		"--max-concurrent-downloads", "2", "--insecure-registry", "registry.test:5000", "--registry-mirror", "https://mirror.test", "--dns", "192.0.2.53",
		"--dns-search", "inner.test", "--dns-opt", "timeout:1", "--https-proxy", "http://me:secret@proxy.test:3128", "--no-proxy", "registry.test",
		"--exec-opt", "native.cgroupdriver=cgroupfs", "--live-restore", "--oom-score-adjust", "-500", "--node-generic-resource", "gpu=1", "--raw-logs",
		"--containerd", "/run/containerd.sock", "--feature", "cdi=true", "--shutdown-timeout", "3", "--default-pids-limit", "77")
	out := w.Must(w.Docker("run", "--name", "probe", "toolbox", "sh", "-c",
		"grep files /proc/self/limits; df /dev/shm | tail -1; grep NoNewPrivs /proc/self/status; mkdir /x; cat /etc/resolv.conf; cat /proc/1/comm; cat /proc/self/cgroup; cat /proc/self/oom_score_adj"))
	wantIn(t, "inside", out, "456                  files", "9216", "NoNewPrivs:\t1", "inner.test", "timeout:1")
	wantIn(t, "the daemon's oom score is not inherited", "\n"+out, "\n0")
	want(t, "host configuration", w.Must(w.Docker("inspect", "-f",
		"{{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config \"max-size\"}} {{.HostConfig.IpcMode}} {{.HostConfig.CgroupnsMode}} {{.HostConfig.ShmSize}}", "probe")),
		"json-file 3m shareable private 9437184")
	wantIn(t, "the profile", w.Docker("logs", "probe").Err, "not supported")
	info := w.Must(w.Docker("info", "--format", "{{json .}}"))
	wantIn(t, "info", info, `"rack=7"`, `"https://mirror.test"`, `"registry.test:5000"`, `http://xxxxx:xxxxx@proxy.test:3128`, `"NoProxy":"registry.test"`)
	if strings.Contains(info, "secret") {
		t.Error("info shows the proxy's password")
	}
	for _, option := range []string{"oom-score-adjust", "node-generic-resource", "raw-logs", "containerd", "feature"} {
		wantIn(t, "the log warns", w.DaemonLog(), option+" has no effect")
	}
	w.Must(w.Docker("rm", "probe"))
	for _, bad := range [][]string{{"--log-driver", "awslogs"}, {"--log-opt", "max-size=abc"}} {
		args := append([]string{"--data-root", dir + "/d", "--exec-root", dir + "/e", "--pidfile", dir + "/p", "-H", "unix://" + dir + "/s", "--config-file", "/dev/null", "--validate"}, bad...)
		if r := w.Run(world.Bin(t, "shoald"), args...); r.Code == 0 || !strings.Contains(r.Err, strings.TrimPrefix(bad[0], "--")) {
			t.Errorf("%v: code %d, %q", bad, r.Code, r.Err+r.Out)
		}
	}
}

// Two daemons on one host, with bridges of their own, do not meet.
func TestTwoDaemons(t *testing.T) {
	w := world.New(t)
	w.Must(w.Docker("run", "-d", "--name", "one", "--hostname", "one", "-p", "8081:80", "whoami"))
	dir := w.Dir + "/other"
	cmd := w.Command(world.Bin(t, "shoald"), "--data-root", dir+"/d", "--exec-root", dir+"/e", "--pidfile", dir+".pid", "-H", "unix://"+dir+".sock", "--bridge", "other0",
		"--config-file", "/dev/null", "--shutdown-containers", "--cgroup-parent", "/"+filepath.Base(w.Dir))
	var err error
	w.InNet(func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		syscall.Unmount(dir+"/e/names", 0)
		syscall.Unmount(dir+"/e", 0)
	}()
	docker := func(args ...string) string {
		return strings.TrimSpace(w.Must(w.Docker(append([]string{"-H", "unix://" + dir + ".sock"}, args...)...)))
	}
	eventually(t, "the second daemon serves", func() bool { return w.Docker("-H", "unix://"+dir+".sock", "version").Code == 0 })
	docker("run", "-d", "--rm", "--name", "two", "--hostname", "two", "-p", "8082:80", "whoami")
	for port, name := range map[string]string{"8081": "one", "8082": "two"} {
		eventually(t, name+" answers on its port", func() bool { return strings.Contains(readPage(w, "http://127.0.0.1:"+port), "Hostname: "+name) })
	}
	const subnet = "{{(index .IPAM.Config 0).Subnet}}"
	if a, b := w.Must(w.Docker("network", "inspect", "-f", subnet, "bridge")), docker("network", "inspect", "-f", subnet, "bridge"); strings.TrimSpace(a) == b {
		t.Errorf("both default networks have %s", b)
	}
	docker("rm", "-f", "two")
	wantIn(t, "the first is untouched", readPage(w, "http://127.0.0.1:8081"), "Hostname: one")
}

func readPage(w *world.World, url string) string {
	resp, err := w.WebClient().Get(url)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}
