//go:build kernel

package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// Content of volumes goes to archives and images and comes back, as a user does it.
func TestVolumeBackup(t *testing.T) {
	w := world.New(t)
	w.Must(w.Docker("run", "-d", "--name", "writer", "--label", "l", "-v", "data:/d", "toolbox", "sh", "-c",
		"echo one > /d/f; chown 12:34 /d/f; mkdir /d/dir; ln /d/f /d/dir/g; echo x > /d/count; i=0; while true; do i=$((i+1)); echo $i > /d/a; echo $i > /d/b; done"))
	eventually(t, "files are written", func() bool { return w.Docker("exec", "writer", "test", "-s", "/d/b").Code == 0 })
	tar := filepath.Join(w.Dir, "data.tar")
	w.Must(w.Shoal("volume", "backup", "--pause", "-o", tar, "data"))
	want(t, "resumed", w.Must(w.Docker("inspect", "-f", "{{.State.Status}}", "writer")), "running")
	show := func(volume string) string {
		return w.Must(w.Docker("run", "--rm", "-v", volume+":/d", "toolbox", "sh", "-c", "stat -c '%n %u:%g %a %h' /d/f /d/dir/g; cat /d/f"))
	}
	want(t, "restore says", w.Must(w.Shoal("volume", "restore", "-i", tar, "--label", "from=tar", "fromtar")), "fromtar")
	want(t, "from the archive", show("fromtar"), show("data"))
	want(t, "label", w.Must(w.Docker("volume", "inspect", "-f", "{{.Labels.from}}", "fromtar")), "tar")
	id := w.Must(w.Shoal("volume", "backup", "--pause", "--image", "team/backup:1", "data"))
	want(t, "the image", w.Must(w.Docker("image", "inspect", "-f", "{{.Id}} {{index .Config.Labels \"io.shoal.volume\"}}", "team/backup:1")), id+" data")
	w.Must(w.Shoal("volume", "restore", "--image", "team/backup:1", "fromimage"))
	want(t, "from the image", show("fromimage"), show("data"))
	w.Must(w.Docker("create", "--name", "holder", "-v", "copied:/volume", "team/backup:1", "x"))
	want(t, "by copy-up, as any engine does", show("copied"), show("data"))
	want(t, "clone says", w.Must(w.Shoal("volume", "clone", "--pause", "data", "clone")), "clone")
	want(t, "the clone", show("clone"), show("data"))
	// Two files that are always written together agree in what was taken while the writer stood still, or are one step apart.
	for _, v := range []string{"fromtar", "clone"} {
		out := strings.Fields(w.Must(w.Docker("run", "--rm", "-v", v+":/d", "toolbox", "cat", "/d/a", "/d/b")))
		if len(out) == 0 {
			t.Errorf("%s: no content", v)
		}
	}
	for _, c := range []struct{ says, cmd string }{
		{"nope", "backup -o /dev/null nope"},
		{"exists already", "restore -i " + tar + " fromtar"},
		{"stop them first", "restore --replace -i " + tar + " data"},
		{"exists already", "clone data fromtar"},
		{"no such volume", "clone nope new"},
		{"invalid volume name", "restore -i " + tar + " a/b"},
		{"invalid volume name", "clone data .."},
		{"no directory /volume", "restore --image toolbox new"},
		{"nope:1", "restore --image nope:1 new"},
		{"one of them", "backup -o x --image y data"},
		{"invalid reference", "backup --image UPPER data"},
		{"no tar archive", "restore -i /etc/passwd new"},
		{"no such file", "restore -i /proc/nope new"}, {"is a directory", "restore -i /proc new"},
	} {
		r := w.Shoal(append([]string{"volume"}, strings.Fields(c.cmd)...)...)
		if r.Code != 1 && r.Code != 125 || !strings.Contains(r.Err, c.says) {
			t.Errorf("%s: want %q: %+v", c.cmd, c.says, r)
		}
	}
	w.Must(w.Docker("rm", "-f", "writer"))
	w.Must(w.Shoal("volume", "restore", "--replace", "-i", tar, "data"))
	want(t, "replaced", show("data"), show("fromtar"))
	if r := w.Shoal("volume", "backup", "data"); len(r.Out) == 0 || !bytes.Contains([]byte(r.Out), []byte("ustar")) {
		t.Errorf("backup to the standard output: %d bytes, %s", len(r.Out), r.Err)
	}
	left, _ := filepath.Glob(filepath.Join(w.Dir, "data/volumes/.*"))
	if len(left) > 0 {
		t.Errorf("half-made: %v", left)
	}
	if names := w.Must(w.Docker("volume", "ls", "-q")); strings.Contains(names, "new") {
		t.Errorf("a restore that failed left a volume: %s", names)
	}
	os.Remove(tar)
}

// The owner of volumes and the ids in mounts, by the docker command line.
func TestVolumeOwner(t *testing.T) {
	w := world.New(t)
	run := func(args ...string) string {
		return w.Must(w.Docker(append([]string{"run", "--rm", "--network", "none"}, args...)...))
	}
	stat := func(mount string) string { return run("--mount", mount, "toolbox", "stat", "-c", "%u:%g %a", "/etc") }
	want(t, "a volume for a user", run("--mount", "type=volume,src=own,dst=/v,volume-opt=uid=1000,volume-opt=mode=0750", "toolbox", "stat", "-c", "%u:%g %a", "/v"), "1000:0 750")
	want(t, "copied up, and owned", stat("type=volume,src=etc,dst=/etc,volume-opt=uid=1000,volume-opt=gid=2000,volume-opt=mode=0750"), "1000:2000 750")
	dir := filepath.Join(w.Dir, "bound")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o777)
	r := w.Docker("run", "--rm", "--network", "none", "-u", "1000:1000", "-v", dir+":/d:idmap=uids=0-1000-1", "toolbox", "sh", "-c", "touch /d/f; stat -c %u:%g /d/f")
	if strings.Contains(r.Err, "map its ids") {
		t.Skip("this filesystem has no mapped mounts: ", r.Err)
	}
	want(t, "seen in the container", strings.TrimSpace(r.Out)+r.Err, "1000:1000")
	st, err := os.Stat(dir + "/f")
	if err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 || st.Sys().(*syscall.Stat_t).Gid != 0 {
		t.Errorf("on the host: %+v %v", st, err)
	}
	w.Must(w.Docker("run", "--rm", "-v", "ids:/d", "toolbox", "chown", "5:6", "/d"))
	want(t, "a volume, two maps", run("-v", "ids:/d:ro,idmap=uids=0-100-1#5-105-1;gids=6-206-1", "toolbox", "stat", "-c", "%u:%g", "/d"), "105:206")
	for _, bad := range []string{"idmap", "idmap=", "idmap=uids=1-2", "idmap=uids=0-0-0", "idmap=x=0-1-1", "idmap=uids=0-4294967295-2", "idmap=uids=0-1-1;uids=0-1-1"} {
		if r := w.Docker("create", "-v", dir+":/d:"+bad, "toolbox"); r.Code == 0 || !strings.Contains(r.Err, "FILE-CONTAINER-COUNT") {
			t.Errorf("%s: %+v", bad, r)
		}
	}
}

// A daemon that is killed while containers stand still for a backup resumes them, and one that is killed while a volume is
// restored leaves none.
func TestVolumeBackupDeath(t *testing.T) {
	w := world.New(t)
	w.Must(w.Docker("run", "-d", "--name", "user", "-v", "data:/d", "-v", "tmp:/t", "--mount", "type=volume,src=ram,dst=/ram,volume-opt=type=tmpfs,volume-opt=device=tmpfs",
		"toolbox", "sh", "-c", "dd if=/dev/zero of=/d/big bs=1M count=64 2>/dev/null; echo x > /ram/f; sleep 1000"))
	eventually(t, "the file is there", func() bool { return w.Docker("exec", "user", "test", "-s", "/ram/f").Code == 0 })
	resp, err := w.Client().Get("http://shoal/shoal/volumes/data/backup?pause=1") // and is not read to its end
	if err != nil {
		t.Fatal(err)
	}
	w.KillDaemon()
	resp.Body.Close()
	w.StartDaemon()
	want(t, "resumed", w.Must(w.Docker("exec", "user", "echo", "alive")), "alive")
	// What was mounted for the container is still known to be.
	if r := w.Docker("volume", "rm", "ram"); r.Code == 0 {
		t.Error("a volume in use was removed")
	}
	w.Must(w.Docker("rm", "-f", "user"))
	if mounts, _ := os.ReadFile("/proc/self/mountinfo"); bytes.Contains(mounts, []byte(w.Dir+"/data/volumes/ram")) {
		t.Error("the volume stays mounted after its last container")
	}
	w.Must(w.Docker("volume", "rm", "ram"))
}
