//go:build kernel

package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

const cdiSpec = `{"cdiVersion": "0.6.0", "kind": "%KIND%",
 "containerEdits": {"env": ["VENDOR=seen"]},
 "devices": [
  {"name": "0", "containerEdits": {"env": ["PATH=/dev0:/bin"], "deviceNodes": [{"path": "/dev/vendor0", "hostPath": "/dev/full", "permissions": "rw"}],
   "mounts": [{"hostPath": "%DIR%", "containerPath": "/vendor", "options": ["ro", "bind"]}],
   "hooks": [{"hookName": "createRuntime", "path": "/bin/sh", "args": ["sh", "-c", "cat > %DIR%/hook"]}]}},
  {"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/vendor1", "hostPath": "/dev/zero"}]}},
  {"name": "all", "containerEdits": {"deviceNodes": [{"path": "/dev/vendor0", "hostPath": "/dev/full"}, {"path": "/dev/vendor1", "hostPath": "/dev/zero"}]}}]}`

func TestDescribedDevices(t *testing.T) {
	dir := t.TempDir()
	specs := dir + "/cdi"
	os.Mkdir(specs, 0o755)
	w := world.New(t, "--cdi-spec-dir", specs)
	wantIn(t, "info", w.Must(w.Docker("info", "-f", "{{.CDISpecDirs}}")), specs)
	refused := func(what string, parts []string, args ...string) {
		t.Helper()
		r := w.Docker(append(append([]string{"run", "--rm", "--network", "none"}, args...), "toolbox", "true")...)
		if r.Code == 0 {
			t.Errorf("%s: not refused", what)
		}
		wantIn(t, what, r.Err, parts...)
	}
	refused("--gpus without any", []string{"could not select device driver", "nvidia-ctk cdi generate", specs}, "--gpus", "all")
	refused("unknown device", []string{"unresolvable CDI device vendor.com/thing=0", "known are: none"}, "--device", "vendor.com/thing=0")
	write := func(kind, name string) {
		text := strings.NewReplacer("%KIND%", kind, "%DIR%", dir).Replace(cdiSpec)
		if err := os.WriteFile(specs+"/"+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("vendor.com/thing", "thing.json")
	write("nvidia.com/gpu", "nvidia.json")
	wantIn(t, "info", w.Must(w.Docker("info", "-f", "{{json .DiscoveredDevices}}")), `"vendor.com/thing=0"`, `"nvidia.com/gpu=all"`)
	os.WriteFile(dir+"/file", []byte("library"), 0o644)
	both(w, "device", func(t *testing.T, run func(...string) world.Result) {
		os.Remove(dir + "/hook")
		out := w.Must(run("run", "--rm", "--network", "none", "--device", "vendor.com/thing=0", "toolbox", "sh", "-c",
			"echo $VENDOR $PATH; cat /vendor/file; echo; stat -c %F /dev/vendor0; cat /etc/passwd 2>/dev/null > /dev/vendor0 || echo full; test -e /dev/vendor1 || echo only one"))
		want(t, "what the container has", out, "seen /dev0:/bin\nlibrary\ncharacter special file\nfull\nonly one")
		hook, _ := os.ReadFile(dir + "/hook")
		wantIn(t, "the hook's input", string(hook), `"pid"`)
		wantIn(t, "gpus", w.Must(run("run", "--rm", "--network", "none", "--gpus", "all", "toolbox", "sh", "-c", "ls /dev/vendor*")), "vendor0\nvendor1")
		want(t, "one gpu", w.Must(run("run", "--rm", "--network", "none", "--gpus", "1", "toolbox", "sh", "-c", "ls /dev/vendor*")), "vendor0")
		want(t, "a chosen gpu", w.Must(run("run", "--rm", "--network", "none", "--gpus", "device=1", "toolbox", "sh", "-c", "ls /dev/vendor*")), "vendor1")
	})
	refused("too many gpus", []string{"3 devices of nvidia.com/gpu", "there are 2"}, "--gpus", "3")
	refused("a gpu that is not there", []string{"no device nvidia.com/gpu=7", "0, 1, all"}, "--gpus", "device=7")
	refused("another driver", []string{`could not select device driver "rocket"`}, "--gpus", "driver=rocket,capabilities=gpu,count=1")
	w.Must(w.Docker("create", "--name", "late", "--device", "vendor.com/thing=1", "toolbox", "true"))
	os.WriteFile(specs+"/thing.json", []byte("{broken"), 0o644)
	if r := w.Docker("start", "late"); r.Code == 0 || !strings.Contains(r.Err, "vendor.com/thing=1") {
		t.Errorf("start with a description that broke: %+v", r)
	}
}

func TestDevices(t *testing.T) {
	w := world.New(t)
	run := func(args ...string) world.Result {
		return w.Docker(append([]string{"run", "--rm", "--network", "none"}, args...)...)
	}
	want(t, "a device by another name", w.Must(run("--device", "/dev/full:/dev/brim:rw", "toolbox", "sh", "-c", "cat /etc/passwd 2>/dev/null >/dev/brim || echo full")), "full")
	want(t, "not for reading", w.Must(run("--device", "/dev/kmsg:/dev/k:w", "toolbox", "sh", "-c", "head -c 1 /dev/k >/dev/null 2>/dev/null && echo read || echo no")), "no")
	want(t, "for reading", w.Must(run("--device", "/dev/full:/dev/k:r", "toolbox", "sh", "-c", "head -c 1 /dev/k >/dev/null && echo read")), "read")
	want(t, "a rule", w.Must(run("--device", "/dev/full:/dev/k:w", "--device-cgroup-rule", "c 1:* r", "toolbox", "sh", "-c", "head -c 1 /dev/k >/dev/null && echo read")), "read")
	want(t, "privileged", w.Must(run("--privileged", "toolbox", "sh", "-c", "test -c /dev/kmsg && echo all")), "all")
	wantIn(t, "a device that is not there", run("--device", "/dev/no-such", "toolbox", "true").Err, "/dev/no-such")
}
