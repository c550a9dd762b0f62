//go:build kernel

package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
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
		{"no such file", "restore -i /nope new"},
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
