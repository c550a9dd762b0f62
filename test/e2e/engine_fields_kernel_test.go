//go:build kernel

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// disk is a block device of the host, with its numbers.
func disk(t *testing.T) (path, numbers string) {
	t.Helper()
	list, _ := filepath.Glob("/sys/block/*/dev")
	for _, f := range list {
		path = "/dev/" + filepath.Base(filepath.Dir(f))
		st, err := os.Stat(path)
		if data, rerr := os.ReadFile(f); err == nil && rerr == nil && st.Mode()&os.ModeDevice != 0 {
			return path, strings.TrimSpace(string(data))
		}
	}
	t.Fatal("this host has no block device")
	return "", ""
}

// Fields of the API that no flag of TestOptionsTakeEffect stands for: what the container has of each.
func TestFieldsTakeEffect(t *testing.T) {
	w := world.New(t)
	device, numbers := disk(t)
	_, v1 := os.Stat("/sys/fs/cgroup/memory/memory.limit_in_bytes")
	either := func(old, unified string) string {
		if v1 != nil {
			return unified
		}
		return old
	}
	host := func(fields object) object { return object{"HostConfig": fields} }
	limit := []object{{"Path": device, "Rate": 1048576}}
	throttle := func(name, key, rate string) [2]string {
		return [2]string{either("cat /sys/fs/cgroup/blkio/blkio.throttle."+name, "cat /sys/fs/cgroup/io.max | tr ' ' '\n' | grep "+key),
			either(numbers+" "+rate, key+"="+rate)}
	}
	readBps, writeBps := throttle("read_bps_device", "rbps", "1048576"), throttle("write_bps_device", "wbps", "1048576")
	readIO, writeIO := throttle("read_iops_device", "riops", "1048576"), throttle("write_iops_device", "wiops", "1048576")
	for name, c := range map[string]struct {
		fields      object
		script, out string
	}{
		"MemoryReservation":    {host(object{"MemoryReservation": 33554432}), group("memory/memory.soft_limit_in_bytes", "memory.low"), "33554432"},
		"MemorySwap":           {host(object{"Memory": 33554432, "MemorySwap": 67108864}), group("memory/memory.memsw.limit_in_bytes", "memory.swap.max"), either("67108864", "33554432")},
		"MemorySwap unlimited": {host(object{"Memory": 33554432, "MemorySwap": -1}), group("memory/memory.memsw.limit_in_bytes", "memory.swap.max"), either("9223372036854771712", "max")},
		"MemorySwappiness":     {host(object{"MemorySwappiness": 7}), "cat /sys/fs/cgroup/memory/memory.swappiness", "7"},
		"OomKillDisable":       {host(object{"OomKillDisable": true, "Memory": 33554432}), "grep -c 'oom_kill_disable 1' /sys/fs/cgroup/memory/memory.oom_control", "1"},
		"CpuPeriod, CpuQuota":  {host(object{"CpuPeriod": 50000, "CpuQuota": 20000}), "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max", either("20000\n50000", "20000 50000")},
		"CpusetMems":           {host(object{"CpusetMems": "0"}), group("cpuset/cpuset.mems", "cpuset.mems"), "0"},
		"BlkioWeight":          {host(object{"BlkioWeight": 300}), "cat /sys/fs/cgroup/blkio/blkio.bfq.weight", "300"},
		"BlkioDeviceReadBps":   {host(object{"BlkioDeviceReadBps": limit}), readBps[0], readBps[1]},
		"BlkioDeviceWriteBps":  {host(object{"BlkioDeviceWriteBps": limit}), writeBps[0], writeBps[1]},
		"BlkioDeviceReadIOps":  {host(object{"BlkioDeviceReadIOps": limit}), readIO[0], readIO[1]},
		"BlkioDeviceWriteIOps": {host(object{"BlkioDeviceWriteIOps": limit}), writeIO[0], writeIO[1]},
		"CgroupParent":         {host(object{"CgroupParent": "/" + filepath.Base(w.Dir) + "/own", "CgroupnsMode": "host"}), "grep -c '/own/' /proc/self/cgroup | grep -v '^0$' >/dev/null && echo inside", "inside"},
		"CgroupnsMode":         {host(object{"CgroupnsMode": "private"}), "cut -d: -f3 /proc/self/cgroup | sort -u", "/"},
		"MaskedPaths":          {host(object{"MaskedPaths": []string{"/etc/passwd"}}), "wc -c </etc/passwd; wc -l </proc/timer_list | grep -v '^0$' >/dev/null && echo seen", "0\nseen"},
		"ReadonlyPaths":        {host(object{"ReadonlyPaths": []string{"/etc"}}), "touch /etc/x 2>/dev/null || echo ro; touch /x && echo rw", "ro\nrw"},
		"no ReadonlyPaths":     {host(object{"ReadonlyPaths": []string{}}), "grep -c ' /proc/sys ' /proc/self/mountinfo || true", "0"},
		"Umask":                {host(object{"Umask": 63}), "touch /f; stat -c %a /f", "600"},
		"Tmpfs":                {host(object{"Tmpfs": object{"/t": "size=2m,uid=7,mode=750"}}), "stat -c '%u %a' /t; grep -c ' /t tmpfs .*size=2048k' /proc/mounts", "7 750\n1"},
		"Mounts of tmpfs":      {host(object{"Mounts": []object{{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": object{"SizeBytes": 2097152, "Mode": 448}}}}), "stat -c %a /t; grep -c ' /t tmpfs .*size=2048k' /proc/mounts", "700\n1"},
		"ExtraHosts":           {host(object{"NetworkMode": "bridge", "ExtraHosts": []string{"me:host-gateway"}}), "grep me$ /etc/hosts | cut -f2", "me"},
		"NetworkDisabled":      {object{"NetworkDisabled": true}, "ls /sys/class/net", "lo"},
		"Shell":                {object{"Shell": []string{"/bin/x"}}, "echo not used for Cmd", "not used for Cmd"},
		"Volumes":              {object{"Volumes": object{"/v": object{}}}, "grep -c ' /v ' /proc/mounts", "1"},
		"ConsoleSize":          {object{"Tty": true, "HostConfig": object{"ConsoleSize": []int{33, 77}}}, "stty size", "33 77"},
		"Annotations":          {host(object{"Annotations": object{"a": "b"}}), "echo kept", "kept"},
		"Env":                  {object{"Env": []string{"A=1", "A=2", "PATH"}}, "echo $A", "2"},
		"StopSignal":           {object{"StopSignal": "SIGUSR1"}, "echo", ""},
		"CpuRealtime":          {host(object{"CpuRealtimePeriod": 1000000}), "cat /sys/fs/cgroup/cpu/cpu.rt_period_us", "1000000"},
	} {
		t.Run(name, func(t *testing.T) {
			if v1 != nil && strings.Contains("MemorySwappiness OomKillDisable BlkioWeight CpuRealtime", name) {
				t.Skip("cgroup v2 has no such setting, or this kernel's schedulers have not")
			}
			body := object{"Image": "toolbox", "Cmd": []string{"sh", "-c", c.script}}
			for k, v := range c.fields {
				body[k] = v
			}
			hc, _ := body["HostConfig"].(object)
			if hc == nil {
				hc = object{}
				body["HostConfig"] = hc
			}
			if hc["NetworkMode"] == nil && body["NetworkDisabled"] == nil {
				hc["NetworkMode"] = "none"
			}
			var made struct {
				ID       string
				Warnings []string
			}
			if err := w.API("POST", "/containers/create", body).Into(&made); err != nil {
				t.Fatal(err)
			}
			r := w.Docker("start", "-a", made.ID)
			if got := strings.TrimSpace(strings.ReplaceAll(r.Out, "\r", "")); got != c.out {
				t.Errorf("got  %q\nwant %q\n%s %v", got, c.out, r.Err, made.Warnings)
			}
		})
	}
}

// A user that is not there is told when the exec is made, as by Docker 29. Of one that cannot start, the docker command line shows
// only what comes in its stream, and takes the exit code afterwards.
func TestExecThatCannotStart(t *testing.T) {
	w := world.New(t)
	w.Must(w.Docker("run", "-d", "--name", "box", "--network", "none", "toolbox", "sleep", "1000"))
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{1, "unable to find user nobodyhere", []string{"-u", "nobodyhere", "box", "true"}},
		{126, "/nosuch", []string{"-w", "/nosuch", "box", "true"}},
		{127, "executable file not found", []string{"box", "nosuch"}},
		{126, "permission denied", []string{"box", "/etc"}},
	} {
		if r := w.Docker(append([]string{"exec"}, c.args...)...); r.Code != c.code || !strings.Contains(r.Out+r.Err, c.says) || strings.Contains(r.Err, "upgrade") {
			t.Errorf("exec %v: exit code %d, want %d: %s%s", c.args, r.Code, c.code, r.Out, r.Err)
		}
	}
	wantIn(t, "a signal that is none", w.Docker("commit", "--change", "STOPSIGNAL NOPE", "box").Err, "invalid signal: NOPE")
}
