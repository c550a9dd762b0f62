//go:build kernel

package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/test/world"
)

// kernelGroup is a container's control group of version 2, as the kernel shows it.
type kernelGroup struct {
	t   *testing.T
	dir string
}

func groupOf(t *testing.T, w *world.World, c string) kernelGroup {
	t.Helper()
	b, err := os.ReadFile("/proc/" + w.Must(w.Docker("inspect", "-f", "{{.State.Pid}}", c)) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	_, path, _ := strings.Cut(strings.TrimSpace(string(b)), "::")
	return kernelGroup{t, filepath.Join("/sys/fs/cgroup", path)}
}

func (g kernelGroup) read(file string) string {
	b, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}

func (g kernelGroup) has(values map[string]string) {
	g.t.Helper()
	for file, value := range values {
		want(g.t, file, g.read(file), value)
	}
}

// number is one of a file's values: the whole, or that of a key.
func (g kernelGroup) number(file, key string) float64 {
	g.t.Helper()
	text := g.read(file)
	if key != "" {
		_, rest, _ := strings.Cut("\n"+text, "\n"+key+" ")
		text, _, _ = strings.Cut(rest, "\n")
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		g.t.Errorf("%s %s: %v", file, key, err)
	}
	return n
}

// TestCgroup2: what the docker command line limits on a host with control groups of version 2 only is what the kernel has in
// force, also after an update; ends, figures and the freezer are the kernel's.
func TestCgroup2(t *testing.T) {
	var fs unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Skip("this host has control groups of version 1; `make vm ARGS=-peer` runs this in a virtual machine with version 2")
	}
	w := world.New(t)
	info := w.Must(w.Docker("info", "--format", "{{.CgroupVersion}} {{.Warnings}}"))
	want(t, "info", info, "2 []")
	disk := diskOf(t, w.Dir)
	w.Must(w.Docker("run", "-d", "--name", "limited", "--network", "none", "--memory", "64m", "--memory-swap", "96m", "--memory-reservation", "32m", "--cpus", "0.5", "--cpu-shares", "512",
		"--pids-limit", "55", "--cpuset-cpus", "0", "--blkio-weight", "300", "--device-read-bps", disk+":1mb", "--device-write-iops", disk+":100", "--device", disk+":/dev/mine:r",
		"toolbox", "sleep", "1000"))
	g := groupOf(t, w, "limited")
	g.has(map[string]string{"memory.max": "67108864", "memory.swap.max": "33554432", "memory.low": "33554432", "cpu.max": "50000 100000", "pids.max": "55", "cpuset.cpus": "0"})
	// Of a weight there are two scales in use: ours and newer runtimes' is the curve, older runc's the line.
	wantIn(t, "cpu.weight", "59 20", g.read("cpu.weight"))
	wantIn(t, "io.weight", g.read("io.weight")+g.read("io.bfq.weight"), "default")
	wantIn(t, "io.max", g.read("io.max"), "rbps=1048576 wbps=max riops=max wiops=100")
	want(t, "devices", w.Must(w.Docker("exec", "limited", "sh", "-c", "head -c 3 /dev/mine | wc -c; (: > /dev/mine) 2>/dev/null || echo read only; mknod /dev/k b 7 0; cat /dev/k 2>/dev/null || echo none else; echo x > /dev/null && echo null")),
		"3\nread only\nnone else\nnull")
	w.Must(w.Docker("update", "--memory", "128m", "--memory-swap", "-1", "--memory-reservation", "16m", "--cpus", "0.25", "--pids-limit", "77", "--cpu-shares", "2048", "limited"))
	g.has(map[string]string{"memory.max": "134217728", "memory.swap.max": "max", "memory.low": "16777216", "cpu.max": "25000 100000", "pids.max": "77"})
	if r := w.Docker("update", "--memory", "4m", "--memory-swap", "4m", "limited"); r.Code == 0 {
		t.Errorf("a limit below the least: %+v", r)
	}
	g.has(map[string]string{"memory.max": "134217728"})

	w.Must(w.Docker("pause", "limited"))
	g.has(map[string]string{"cgroup.freeze": "1"})
	wantIn(t, "frozen", g.read("cgroup.events"), "frozen 1")
	w.Must(w.Docker("unpause", "limited"))
	wantIn(t, "thawed", g.read("cgroup.events"), "frozen 0")

	t.Run("stats", func(t *testing.T) { cgroup2Stats(t, w, g) })
	// Too many processes, too much memory.
	w.Must(w.Docker("run", "-d", "--name", "crowd", "--network", "none", "--pids-limit", "20", "toolbox", "sleep", "1000"))
	crowd := groupOf(t, w, "crowd")
	w.Docker("exec", "crowd", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 5 & done; wait")
	if n := crowd.number("pids.events", "max"); n == 0 {
		t.Error("more processes than the limit")
	}
	r := w.Docker("run", "--name", "big", "--network", "none", "--memory", "24m", "--memory-swap", "24m", "--shm-size", "200m", "toolbox", "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=100")
	want(t, "killed", fmt.Sprint(r.Code)+" "+w.Must(w.Docker("inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "big")), "137 true 137")
	wantIn(t, "events", w.Must(w.Docker("events", "--since", "1h", "--until", "0s", "--filter", "event=oom", "--format", "{{.Actor.Attributes.name}}")), "big")
	wantIn(t, "explain", w.Shoal("explain", "big").Out, "24")
	// A process that is not the first: the container lives.
	w.Must(w.Docker("run", "-d", "--name", "lives", "--network", "none", "--memory", "24m", "--memory-swap", "24m", "--shm-size", "200m", "toolbox", "sleep", "1000"))
	w.Docker("exec", "lives", "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=100")
	want(t, "only the exec is killed", w.Must(w.Docker("inspect", "-f", "{{.State.Status}}", "lives")), "running")
	dirs := []string{g.dir, groupOf(t, w, "lives").dir}
	w.Must(w.Docker("rm", "-f", "limited", "crowd", "big", "lives"))
	for _, d := range dirs {
		if _, err := os.Stat(d); err == nil {
			t.Errorf("the control group %s is left", d)
		}
	}
}

// cgroup2Stats compares the API's figures with the kernel's files of the same moment, as near as that goes.
func cgroup2Stats(t *testing.T, w *world.World, g kernelGroup) {
	w.Must(w.Docker("exec", "limited", "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=8; sync; i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done"))
	resp, err := w.Client().Get("http://docker/containers/limited/stats?stream=false&one-shot=true")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	var s struct {
		Memory struct {
			Usage, Limit float64
			Stats        map[string]float64
		} `json:"memory_stats"`
		CPU struct {
			Usage struct {
				Total float64 `json:"total_usage"`
				User  float64 `json:"usage_in_usermode"`
			} `json:"cpu_usage"`
		} `json:"cpu_stats"`
		Pids struct{ Current, Limit float64 } `json:"pids_stats"`
		IO   struct {
			Bytes []struct {
				Op    string
				Value float64
			} `json:"io_service_bytes_recursive"`
		} `json:"blkio_stats"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		t.Fatal(err)
	}
	near := func(what string, got, want, tolerance float64) {
		t.Helper()
		if math.Abs(got-want) > tolerance {
			t.Errorf("%s: %v, and the kernel says %v", what, got, want)
		}
	}
	near("memory", s.Memory.Usage, g.number("memory.current", ""), 2<<20)
	near("memory's limit", s.Memory.Limit, 128<<20, 0)
	near("inactive file pages", s.Memory.Stats["inactive_file"], g.number("memory.stat", "inactive_file"), 1<<20)
	near("processes", s.Pids.Current, g.number("pids.current", ""), 0)
	near("processes' limit", s.Pids.Limit, 77, 0)
	near("processor time", s.CPU.Usage.Total, g.number("cpu.stat", "usage_usec")*1000, 1e9)
	near("processor time of the user", s.CPU.Usage.User, g.number("cpu.stat", "user_usec")*1000, 1e9)
	if s.CPU.Usage.Total == 0 {
		t.Error("no processor time")
	}
	var written, kernel float64
	for _, b := range s.IO.Bytes {
		if strings.EqualFold(b.Op, "write") {
			written += b.Value
		}
	}
	for line := range strings.Lines(g.read("io.stat")) {
		for _, f := range strings.Fields(line) {
			if v, ok := strings.CutPrefix(f, "wbytes="); ok {
				n, _ := strconv.ParseFloat(v, 64)
				kernel += n
			}
		}
	}
	near("written", written, kernel, 1<<20)
	if kernel < 8<<20 {
		t.Errorf("the kernel counts %v bytes written", kernel)
	}
}

// diskOf is the block device below a directory.
func diskOf(t *testing.T, dir string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		t.Skip("no block device below the data root: ", err)
	}
	return "/dev/" + filepath.Base(link)
}
