//go:build kernel

package e2e

import (
	"strings"
	"testing"

	"github.com/shoalhq/shoal/test/world"
	"github.com/shoalhq/shoal/volume/plugintest"
)

// Volumes of a plug-in, as a user has them, and what happens when it dies.
func TestVolumePlugin(t *testing.T) {
	dir := t.TempDir()
	ext := plugintest.Start(t, dir, "ext")
	w := world.New(t, "--plugin-dir", dir)
	w.Must(w.Docker("volume", "create", "-d", "ext", "-o", "a=b", "--label", "l=1", "data"))
	want(t, "ls", w.Must(w.Docker("volume", "ls", "--format", "{{.Driver}} {{.Name}} {{.Scope}}")), "ext data global")
	want(t, "inspect", w.Must(w.Docker("volume", "inspect", "-f", "{{.Driver}} {{.Options.a}} {{.Labels.l}} {{.Status.mounts}}", "data")), "ext b 1 0")
	w.Must(w.Docker("run", "-d", "--name", "user", "-v", "data:/etc", "toolbox", "sh", "-c", "echo kept > /etc/kept; sleep 1000"))
	eventually(t, "it wrote", func() bool { return w.Docker("exec", "user", "test", "-s", "/etc/kept").Code == 0 })
	w.Must(w.Docker("exec", "user", "test", "-s", "/etc/passwd")) // copied up
	w.Must(w.Docker("run", "--rm", "--volume-driver", "ext", "-v", "second:/v", "toolbox", "touch", "/v/x"))
	want(t, "another container sees it", w.Must(w.Docker("run", "--rm", "--mount", "type=volume,src=data,dst=/m,volume-driver=ext", "toolbox", "cat", "/m/kept")), "kept")
	want(t, "/info", w.Must(w.Docker("info", "-f", "{{.Plugins.Volume}}")), "[ext local]")
	if got := ext.Mounts("data"); len(got) != 1 {
		t.Errorf("mounted by %v", got)
	}
	w.KillDaemon()
	w.StartDaemon()
	if r := w.Docker("volume", "rm", "data"); r.Code == 0 || !strings.Contains(r.Err, "in use") {
		t.Errorf("removed while in use: %+v", r)
	}
	w.Must(w.Docker("restart", "-t", "0", "user"))
	ext.Die()
	want(t, "it runs on", w.Must(w.Docker("exec", "user", "cat", "/etc/kept")), "kept")
	r := w.Shoal("volume", "ls")
	if r.Code != 0 || !strings.Contains(r.Out, "data") || !strings.Contains(r.Err, "does not run") {
		t.Errorf("ls with a dead plug-in: %+v", r)
	}
	for _, args := range []string{"restart -t 0 user", "volume create -d ext more", "volume rm second", "volume create -d nope x1"} {
		r := w.Docker(strings.Fields(args)...)
		if r.Code == 0 || !strings.Contains(r.Err, "does not run") && !strings.Contains(r.Err, "not found") {
			t.Errorf("%s with a dead plug-in: %+v", args, r)
		}
	}
	want(t, "not half-started", w.Must(w.Docker("inspect", "-f", "{{.State.Status}}", "user")), "exited")
	if e := w.Must(w.Docker("inspect", "-f", "{{.State.Error}}", "user")); !strings.Contains(e, "ext") {
		t.Errorf("the reason: %q", e)
	}
	ext.Revive(t)
	w.Must(w.Docker("cp", "user:/etc/kept", w.Dir+"/kept")) // of a container that does not run
	eventually(t, "given back after cp", func() bool { return !strings.Contains(strings.Join(ext.Mounts("data"), " "), "copy-") })
	w.Must(w.Docker("start", "user"))
	w.Must(w.Docker("rm", "-f", "user"))
	eventually(t, "given back", func() bool { return len(ext.Mounts("data")) == 0 })
	w.Must(w.Docker("volume", "rm", "data", "second"))
	want(t, "ls", w.Must(w.Docker("volume", "ls", "-q")), "")
}
