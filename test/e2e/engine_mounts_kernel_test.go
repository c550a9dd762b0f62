//go:build kernel

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/test/world"
)

// Each option of --mount and -v does its work or is refused.
func TestMountOptions(t *testing.T) {
	w := world.New(t, "--add-runtime", "other="+foreign(t, "runc"))
	dir := t.TempDir()
	host := func(args ...string) {
		t.Helper()
		if err := unix.Mount(args[0], args[1], args[2], 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(args[1], unix.MNT_DETACH) })
	}
	host("tmpfs", dir, "tmpfs")
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	os.MkdirAll(dir+"/sub", 0o755)
	host("tmpfs", dir+"/sub", "tmpfs")
	os.WriteFile(dir+"/top", []byte("top"), 0o644)
	os.WriteFile(dir+"/sub/below", []byte("below"), 0o644)
	w.Must(w.Docker("run", "--rm", "-v", "vol:/v", "toolbox", "sh", "-c", "mkdir -p /v/a/b; echo deep > /v/a/b/f; ln -s /etc /v/out; ln -s ../../../etc /v/up; ln -s a/b /v/in"))
	w.Must(w.Docker("run", "--name", "made", "toolbox", "sh", "-c", "mkdir -p /content/dir; echo file > /content/dir/f"))
	w.Must(w.Docker("commit", "made", "content:1"))
	for _, runtime := range []string{"shoal", "other"} {
		run := func(args ...string) world.Result {
			return w.Docker(append([]string{"run", "--rm", "--network", "none", "--runtime", runtime}, args...)...)
		}
		for name, c := range map[string]struct {
			mount, command string
			out, err       string // out, or with a failure a part of the message
		}{
			"volume subpath":          {"type=volume,src=vol,dst=/m,volume-subpath=a", "cat /m/b/f; ls /m", "deep\nb", ""},
			"volume subpath, file":    {"type=volume,src=vol,dst=/m,volume-subpath=a/b/f", "cat /m", "deep", ""},
			"subpath by link inside":  {"type=volume,src=vol,dst=/m,volume-subpath=in", "ls /m", "f", ""},
			"subpath by link out":     {"type=volume,src=vol,dst=/m,volume-subpath=out", "ls /m", "", "no such file"},
			"subpath by link up":      {"type=volume,src=vol,dst=/m,volume-subpath=up", "ls /m", "", "no such file"},
			"subpath that is missing": {"type=volume,src=vol,dst=/m,volume-subpath=nope", "ls /m", "", "make it there first"},
			"subpath with dots":       {"type=volume,src=vol,dst=/m,volume-subpath=../x", "ls /m", "", "relative path within the volume"},
			"read-only volume":        {"type=volume,src=vol,dst=/m,readonly", "touch /m/x 2>/dev/null || echo ro", "ro", ""},
			"image":                   {"type=image,src=content:1,dst=/m", "cat /m/content/dir/f", "file", ""},
			"image subpath":           {"type=image,src=content:1,dst=/m,image-subpath=content/dir", "cat /m/f; touch /m/x 2>/dev/null || echo ro", "file\nro", ""},
			"image subpath, file":     {"type=image,src=content:1,dst=/m,image-subpath=content/dir/f", "cat /m", "file", ""},
			"image that is missing":   {"type=image,src=nope:1,dst=/m", "true", "", "nope:1"},
			"bind":                    {"type=bind,src=" + dir + ",dst=/m", "cat /m/top /m/sub/below", "topbelow", ""},
			"read-only all the way":   {"type=bind,src=" + dir + ",dst=/m,readonly", "touch /m/sub/x 2>/dev/null || echo ro", "ro", ""},
			"read-only at the top": {"type=bind,src=" + dir + ",dst=/m,readonly,bind-recursive=writable",
				"touch /m/x 2>/dev/null || echo ro; touch /m/sub/x && rm /m/sub/x && echo rw", "ro\nrw", ""},
			"read-only by force":       {"type=bind,src=" + dir + ",dst=/m,readonly,bind-recursive=readonly,bind-propagation=rprivate", "touch /m/sub/x 2>/dev/null || echo ro", "ro", ""},
			"not recursive":            {"type=bind,src=" + dir + ",dst=/m,bind-recursive=disabled", "ls /m/sub", "", ""},
			"missing source":           {"type=bind,src=" + dir + "/nope,dst=/m", "true", "", "bind source path does not exist"},
			"tmpfs":                    {"type=tmpfs,dst=/m,tmpfs-size=1m,tmpfs-mode=1700", "stat -c %a /m; grep -c ' /m tmpfs .*size=1024k' /proc/mounts", "1700\n1", ""},
			"shared with what is not":  {"type=bind,src=/proc,dst=/m,bind-propagation=shared", "true", "", "not a shared mount"},
			"slave":                    {"type=bind,src=" + dir + ",dst=/m,bind-propagation=rslave", "grep ' /m ' /proc/self/mountinfo | grep -c master:", "1", ""},
			"shared":                   {"type=bind,src=" + dir + ",dst=/m,bind-propagation=rshared", "grep ' /m ' /proc/self/mountinfo | grep -c shared:", "1", ""},
			"source that is no volume": {"type=volume,src=/x,dst=/m", "true", "", "volume name"},
		} {
			t.Run(runtime+"/"+name, func(t *testing.T) {
				r := run("--mount", c.mount, "toolbox", "sh", "-c", c.command)
				if c.err != "" {
					if r.Code == 0 || !strings.Contains(r.Err, c.err) {
						t.Fatalf("want a failure with %q: %+v", c.err, r)
					}
					return
				}
				if got := strings.TrimSpace(r.Out); r.Code != 0 || got != c.out {
					t.Fatalf("want %q: %+v", c.out, r)
				}
			})
		}
	}
	// "ro" of clients from before API 1.44 is for the top mount alone.
	for v, wants := range map[string]string{"1.43": "ro\nrw", "1.44": "ro\nro"} {
		r := w.Run("env", "DOCKER_API_VERSION="+v, "docker", "run", "--rm", "--network", "none", "-v", dir+":/m:ro", "toolbox", "sh", "-c",
			"for d in /m /m/sub; do if touch $d/x 2>/dev/null; then rm $d/x; echo rw; else echo ro; fi; done")
		want(t, "-v DIR:/m:ro by a client of "+v, strings.TrimSpace(r.Out+r.Err), wants)
	}
	// An empty part of a volume gets what the image has; one with content is left alone.
	w.Must(w.Docker("run", "--rm", "-v", "parts:/v", "toolbox", "sh", "-c", "mkdir -p /v/a/b /v/full; echo mine > /v/full/mine"))
	part := func(sub, options string) string {
		r := w.Docker("run", "--rm", "--network", "none", "--mount", "type=volume,src=parts,dst=/content,volume-subpath="+sub+options, "content:1", "sh", "-c", "cd /content && find . -type f")
		return strings.TrimSpace(r.Out + r.Err)
	}
	want(t, "part with nocopy", part("a/b", ",volume-nocopy"), "")
	want(t, "empty part", part("a/b", ""), "dir/f")
	want(t, "full part", part("full", ""), "mine")
	want(t, "what the volume has", w.Must(w.Docker("run", "--rm", "-v", "parts:/v", "toolbox", "sh", "-c", "find /v -type f | sort")), "/v/a/b/dir/f\n/v/full/mine")
	w.Must(w.Docker("create", "--name", "still", "--mount", "type=volume,src=vol,dst=/m,volume-subpath=a", "toolbox", "true"))
	w.Must(w.Docker("cp", "still:/m/b/f", filepath.Join(dir, "copied")))
	b, _ := os.ReadFile(dir + "/copied")
	want(t, "copied out of a part of a volume", string(b), "deep\n")
	// What is mounted in a container under a shared bind reaches the host.
	for _, runtime := range []string{"shoal", "other"} {
		w.Must(w.Docker("run", "--rm", "--runtime", runtime, "--privileged", "--mount", "type=bind,src="+dir+",dst=/m,bind-propagation=shared", "toolbox",
			"sh", "-c", "mkdir -p /m/new && mount -t tmpfs tmpfs /m/new && echo hi > /m/new/f"))
		b, _ = os.ReadFile(dir + "/new/f")
		want(t, "seen on the host, by "+runtime, string(b), "hi\n")
		unix.Unmount(dir+"/new", unix.MNT_DETACH)
	}
}

func TestBindModes(t *testing.T) {
	w := world.New(t)
	dir := t.TempDir()
	os.WriteFile(dir+"/f", []byte("x"), 0o644)
	for mode, writable := range map[string]bool{"ro": false, "rw": true, "z": true, "ro,Z": false, "cached": true, "delegated": true,
		"consistent,ro": false, "rprivate": true, "private,ro": false} {
		r := w.Docker("run", "--rm", "-v", dir+":/m:"+mode, "toolbox", "sh", "-c", "cat /m/f; touch /m/g")
		if r.Out != "x" || (r.Code == 0) != writable {
			t.Errorf("mode %s: %+v", mode, r)
		}
	}
	for mode, text := range map[string]string{"what": "unknown mode", "nocopy": "volumes only", "ro,rw": "contradicts"} {
		if r := w.Docker("run", "--rm", "-v", dir+":/m:"+mode, "toolbox", "true"); r.Code == 0 || !strings.Contains(r.Err, text) && !strings.Contains(r.Err, "invalid") {
			t.Errorf("mode %s: %+v", mode, r)
		}
	}
	w.Must(w.Docker("run", "--rm", "-v", "none:/etc:nocopy", "toolbox", "sh", "-c", "! test -e /etc/passwd"))
	w.Must(w.Docker("run", "--rm", "-v", "some:/etc", "toolbox", "test", "-e", "/etc/passwd"))
	w.Must(w.Docker("run", "--rm", "-v", dir+"/made/by/v:/m", "toolbox", "true"))
	if _, err := os.Stat(dir + "/made/by/v"); err != nil {
		t.Error("-v does not make a missing directory:", err)
	}
	// A later container takes the volumes of an earlier one.
	w.Must(w.Docker("run", "-d", "--name", "first", "-v", "shared:/data", "-v", dir+":/host:ro", "toolbox", "sh", "-c", "echo one > /data/f; sleep 1000"))
	eventually(t, "data", func() bool {
		return w.Docker("run", "--rm", "--volumes-from", "first", "toolbox", "cat", "/data/f", "/host/f").Out == "one\nx"
	})
	if r := w.Docker("run", "--rm", "--volumes-from", "first:ro", "toolbox", "touch", "/data/g"); r.Code == 0 {
		t.Error("--volumes-from :ro can write")
	}
	if r := w.Docker("run", "--rm", "--volumes-from", "first", "toolbox", "touch", "/host/g"); r.Code == 0 {
		t.Error("a read-only mount became writable by --volumes-from")
	}
}
