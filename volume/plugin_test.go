package volume

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/lib/plugin"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/volume/plugintest"
)

// foreignWorld is a room with a plug-in called ext, and a way to restart the daemon.
type foreignWorld struct {
	root, sockets string
	ext           *plugintest.Plugin
}

func newForeign(t *testing.T) *foreignWorld {
	sockets, err := os.MkdirTemp("", "plug") // short: the path of a socket is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	return &foreignWorld{t.TempDir(), sockets, plugintest.Start(t, sockets, "ext")}
}

func (w *foreignWorld) open(patience time.Duration) *Volumes {
	return Open(Config{Root: w.root, Log: slog.New(slog.DiscardHandler), Plugins: plugin.New(plugin.Config{Dirs: []string{w.sockets}, Call: patience})})
}

func TestPluginVolumes(t *testing.T) {
	w := newForeign(t)
	ctx := t.Context()
	c1, c2 := ids.New(), ids.New()
	v := w.open(time.Minute)
	if _, err := v.Create(ctx, model.Volume{Name: "x1", Driver: "ext", Options: map[string]string{"bad": "very"}}); err == nil || !strings.Contains(err.Error(), "bad=very") {
		t.Fatal(err)
	}
	vol := make1(t, v, model.Volume{Name: "data", Driver: "ext", Labels: map[string]string{"k": "v"}, Options: map[string]string{"o": "p"}})
	if vol.Driver != "ext" || vol.Scope != "global" {
		t.Fatal(vol)
	}
	for _, again := range []model.Volume{{Name: "data"}, {Name: "data", Driver: "ext"}} {
		if got := make1(t, v, again); got.Labels["k"] != "v" {
			t.Fatal(got)
		}
	}
	if _, err := v.Create(ctx, model.Volume{Name: "data", Driver: "local"}); !errs.Is(err, errs.Conflict) {
		t.Fatal(err)
	}
	for _, c := range []string{c1, c1, c2} { // c1 has it at two places
		m, err := v.Mount(ctx, "data", c)
		if err != nil || m.Source != filepath.Join(w.ext.Root, "data") || m.Type != "bind" {
			t.Fatal(m, err)
		}
	}
	if got := w.ext.Mounts("data"); !slices.Equal(got, []string{c1, c2}) {
		t.Fatal(got)
	}
	// The daemon is restarted: c1 runs on, c2 has ended meanwhile, and the plug-in knows one volume more.
	v = w.open(time.Minute)
	must1(t, v.Use(ctx, "data", c1, false))
	must1(t, v.Use(ctx, "data", c2, false))
	must1(t, v.Use(ctx, "data", c1, true))
	must1(t, v.Unmount(ctx, "data", c2))
	must1(t, v.Unmount(ctx, "data", c2))
	v.background.Wait()
	if got := w.ext.Mounts("data"); !slices.Equal(got, []string{c1}) {
		t.Fatal(got)
	}
	os.Mkdir(filepath.Join(w.ext.Root, "other"), 0o755)
	if got := names(t, v, nil); got != "data other" {
		t.Fatal(got)
	}
	if got := names(t, v, model.Filters{"driver": {"local"}}); got != "" {
		t.Fatal(got)
	}
	if d, err := v.Describe(ctx, "data"); err != nil || d.Mountpoint == "" || d.Status["mounts"] != 1.0 || d.Labels["k"] != "v" {
		t.Fatal(d, err)
	}
	if d, err := v.Describe(ctx, "other"); err != nil || d.Driver != "ext" {
		t.Fatal(d, err)
	}
	if found := make1(t, v, model.Volume{Name: "other"}); found.Driver != "ext" {
		t.Fatal("a volume that a plug-in has is not used without its driver being named:", found)
	}
	if err := v.Remove(ctx, "data", true); !errs.Is(err, errs.Conflict) {
		t.Fatal(err)
	}
	must1(t, v.Unmount(ctx, "data", c1))
	v.background.Wait()
	v.Release(ctx, "data", c1)
	v.Release(ctx, "data", c2)
	if r, err := v.Prune(ctx, model.Filters{"all": {"true"}}); err != nil || len(r.Deleted) > 0 {
		t.Fatal("prune is for local volumes:", r, err)
	}
	must1(t, v.Remove(ctx, "data", false))
	must1(t, v.Remove(ctx, "other", false))
	if left, _ := os.ReadDir(w.ext.Root); len(left) > 0 {
		t.Fatal(left)
	}
	if left, _ := os.ReadDir(w.root); len(left) > 0 {
		t.Fatal(left)
	}
}

func must1(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestPluginTrouble: a plug-in that refuses, hangs, dies or is not there has a clear end, and nothing stays mounted.
func TestPluginTrouble(t *testing.T) {
	w := newForeign(t)
	ctx := t.Context()
	v := w.open(time.Second) // is waited for twice; a busy machine needs some of it for what works
	if _, err := v.Create(ctx, model.Volume{Name: "data", Driver: "nope"}); !errs.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "nope") {
		t.Fatal(err)
	}
	make1(t, v, model.Volume{Name: "data", Driver: "ext"})
	w.ext.Refuse("Mount", "the array is on fire")
	if _, err := v.Mount(ctx, "data", "c1"); err == nil || !strings.Contains(err.Error(), "the array is on fire") {
		t.Fatal(err)
	}
	w.ext.Refuse("Mount", "")
	w.ext.Hang("Mount", true)
	if _, err := v.Mount(ctx, "data", "c1"); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "hang") {
		t.Fatal(err)
	}
	w.ext.Hang("Mount", false)
	failpoint.Arm("volume/plugin/mounted=error(cut)")
	w.ext.Calls()
	if _, err := v.Mount(ctx, "data", "c1"); err == nil {
		t.Fatal("no error")
	}
	failpoint.Arm("")
	if got := w.ext.Calls(); !slices.Contains(got, "Unmount data") {
		t.Fatal("a mount that failed is not given back:", got)
	}
	// An end does not wait for a plug-in that hangs, but the next mount waits for the unmount.
	must1(t, errOf(v.Mount(ctx, "data", "c1")))
	w.ext.Hang("Unmount", true)
	must1(t, v.Unmount(ctx, "data", "c1"))
	w.ext.Hang("Unmount", false)
	must1(t, errOf(v.Mount(ctx, "data", "c1")))
	must1(t, v.Unmount(ctx, "data", "c1"))
	v.background.Wait()
	// It dies. Lists say so, and a start has the reason at once.
	w.ext.Die()
	if _, err := v.Mount(ctx, "data", "c1"); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "does not run") {
		t.Fatal(err)
	}
	list, warnings, err := v.List(ctx, nil, false)
	if err != nil || len(list) != 1 || len(warnings) != 1 || !strings.Contains(warnings[0], "ext") {
		t.Fatal(list, warnings, err)
	}
	if d, err := v.Describe(ctx, "data"); err != nil || !strings.Contains(d.Status["error"].(string), "does not run") {
		t.Fatal(d, err)
	}
	if err := v.Remove(ctx, "data", false); !errs.Is(err, errs.Unavailable) {
		t.Fatal(err)
	}
	if got := names(t, v, nil); got != "data" {
		t.Fatal("a failed removal forgets the volume:", got)
	}
	must1(t, v.Remove(ctx, "data", true))
	w.ext.Revive(t)
	if got := names(t, v, nil); got != "data" { // it has it still
		t.Fatal(got)
	}
	must1(t, v.Remove(ctx, "data", false))
	if got := names(t, v, nil); got != "" {
		t.Fatal(got)
	}
}

func errOf(_ model.VolumeMount, err error) error { return err }
