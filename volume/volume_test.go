package volume

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/lib/clock"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/lib/openat/openattest"
	"github.com/shoalhq/shoal/model"
)

func open(t *testing.T, root string) *Volumes {
	t.Helper()
	return Open(Config{Root: root, Clock: clock.NewFake(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))})
}

func make1(t *testing.T, v *Volumes, vol model.Volume) model.Volume {
	t.Helper()
	out, err := v.Create(t.Context(), vol)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func names(t *testing.T, v *Volumes, f model.Filters) string {
	t.Helper()
	list, _, err := v.List(t.Context(), f, false)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, x := range list {
		out = append(out, x.Name)
	}
	return strings.Join(out, " ")
}

func TestVolumesOutliveTheDaemon(t *testing.T) {
	root := t.TempDir()
	v := open(t, root)
	a := make1(t, v, model.Volume{Name: "data", Labels: map[string]string{"k": "v"}})
	anonymous := make1(t, v, model.Volume{})
	if !ids.Valid(anonymous.Name) || !anonymous.Anonymous {
		t.Fatal(anonymous)
	}
	if err := os.WriteFile(filepath.Join(a.Mountpoint, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	v = open(t, root)
	b, err := v.Inspect(t.Context(), "data")
	if err != nil || b.Labels["k"] != "v" || !b.Created.Equal(a.Created) || b.Mountpoint != filepath.Join(root, "data", "_data") {
		t.Fatal(b, err)
	}
	if again, err := v.Create(t.Context(), model.Volume{Name: "data"}); err != nil || again.Labels["k"] != "v" {
		t.Fatal(again, err)
	}
	if x, err := v.Inspect(t.Context(), anonymous.Name); err != nil || !x.Anonymous {
		t.Fatal(x, err)
	}
}

func TestCreateRefuses(t *testing.T) {
	v := open(t, t.TempDir())
	make1(t, v, model.Volume{Name: "tmp", Options: map[string]string{"type": "tmpfs", "device": "tmpfs"}})
	for _, c := range []struct {
		vol  model.Volume
		kind errs.Kind
		says string
	}{
		{model.Volume{Name: "a/b"}, errs.Invalid, "absolute path"},
		{model.Volume{Name: "../x"}, errs.Invalid, "../x"},
		{model.Volume{Name: "x"}, errs.Invalid, "2 to 255"},
		{model.Volume{Name: strings.Repeat("x", 256)}, errs.Invalid, "255"},
		{model.Volume{Name: "ok", Driver: "nope"}, errs.NotFound, "nope"},
		{model.Volume{Name: "ok", Options: map[string]string{"colour": "red"}}, errs.Invalid, "colour"},
		{model.Volume{Name: "ok", Options: map[string]string{"type": "nfs"}}, errs.Invalid, "device"},
		{model.Volume{Name: "ok", Options: map[string]string{"device": "/x"}}, errs.Invalid, "type"},
		{model.Volume{Name: "ok", Options: map[string]string{"type": "none", "o": "bind", "device": "x"}}, errs.Invalid, "absolute"},
		{model.Volume{Name: "ok", Options: map[string]string{"size": "1x"}}, errs.Invalid, "500m"},
		{model.Volume{Name: "ok", Options: map[string]string{"uid": "-1"}}, errs.Invalid, "uid=1000"},
		{model.Volume{Name: "ok", Options: map[string]string{"mode": "9"}}, errs.Invalid, "mode=0770"},
		{model.Volume{Name: "ok", Options: map[string]string{"size": "1g", "type": "tmpfs", "device": "tmpfs"}}, errs.Invalid, "o=size=1g"},
		{model.Volume{Name: "tmp", Options: map[string]string{"type": "tmpfs", "device": "other"}}, errs.Conflict, "other options"},
	} {
		if _, err := v.Create(t.Context(), c.vol); !errs.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c.vol, err)
		}
	}
	if text := optionText(map[string]string{"type": "cifs", "o": "user=u,password=geheim"}); text != "o=user=u,password=*** type=cifs" {
		t.Error(text)
	}
	if got := names(t, v, nil); got != "tmp" {
		t.Fatal(got)
	}
}

// A container may nest directories as deep as it likes.
func TestRemoveDeepTree(t *testing.T) {
	v := open(t, t.TempDir())
	openattest.Deep(t, make1(t, v, model.Volume{Name: "deep"}).Mountpoint)
	if err := v.Remove(t.Context(), "deep", false); err != nil {
		t.Fatal(err)
	}
}

func TestRemoveAndPrune(t *testing.T) {
	var events []string
	v := Open(Config{Root: t.TempDir(), Events: func(e model.Event) { events = append(events, e.Action+" "+e.ID) }})
	ctx := t.Context()
	make1(t, v, model.Volume{Name: "named", Labels: map[string]string{"keep": "1"}})
	make1(t, v, model.Volume{Name: "used"})
	anonymous := make1(t, v, model.Volume{})
	if err := v.Use(ctx, "used", "c1", false); err != nil {
		t.Fatal(err)
	}
	if err := v.Use(ctx, "none", "c1", false); !errs.Is(err, errs.NotFound) {
		t.Fatal(err)
	}
	for _, force := range []bool{false, true} {
		if err := v.Remove(ctx, "used", force); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "c1") {
			t.Fatal(err)
		}
	}
	if got := names(t, v, model.Filters{"dangling": {"true"}}); !strings.Contains(got, "named") || strings.Contains(got, "used") {
		t.Fatal(got)
	}
	if got := names(t, v, model.Filters{"label": {"keep=1"}, "name": {"am"}}); got != "named" {
		t.Fatal(got)
	}
	if _, _, err := v.List(ctx, model.Filters{"x": {"y"}}, false); !errs.Is(err, errs.Invalid) {
		t.Fatal(err)
	}
	r, err := v.Prune(ctx, nil)
	if err != nil || !slices.Equal(r.Deleted, []string{anonymous.Name}) {
		t.Fatal(r, err)
	}
	if r, err := v.Prune(ctx, model.Filters{"all": {"true"}, "label!": {"keep"}}); err != nil || len(r.Deleted) != 0 {
		t.Fatal(r, err)
	}
	if err := v.Remove(ctx, "named", false); err != nil {
		t.Fatal(err)
	}
	if err := v.Remove(ctx, "named", false); !errs.Is(err, errs.NotFound) {
		t.Fatal(err)
	}
	if err := v.Remove(ctx, "named", true); err != nil {
		t.Fatal(err)
	}
	v.Release(ctx, "used", "c1")
	v.Release(ctx, "used", "c1")
	if err := v.Remove(ctx, "used", false); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(v.cfg.Root); len(left) != 0 {
		t.Fatal("left over:", left)
	}
	if events[len(events)-1] != "destroy used" {
		t.Fatal(events)
	}
}

func TestDamageHidesNoData(t *testing.T) {
	root := t.TempDir()
	v := open(t, root)
	make1(t, v, model.Volume{Name: "aa"})
	make1(t, v, model.Volume{Name: "bb"})
	os.WriteFile(filepath.Join(root, "aa", recordFile), []byte("{torn"), 0o600)
	os.Remove(filepath.Join(root, "bb", recordFile))
	os.Mkdir(filepath.Join(root, "no-volume"), 0o700)
	os.Mkdir(filepath.Join(root, halfMade+"x"), 0o700)
	v = open(t, root)
	if got := names(t, v, nil); got != "aa bb" {
		t.Fatal(got)
	}
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	root := t.TempDir()
	v := open(t, root)
	failpoint.Arm("volume/create/rename=enospc")
	defer failpoint.Arm("")
	if _, err := v.Create(t.Context(), model.Volume{Name: "data"}); !errs.Is(err, errs.Exhausted) {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(root); len(left) != 0 {
		t.Fatal(left)
	}
}

func TestMountDescribesBinds(t *testing.T) {
	v := open(t, t.TempDir())
	ctx := t.Context()
	dir := t.TempDir()
	plain := make1(t, v, model.Volume{Name: "plain"})
	make1(t, v, model.Volume{Name: "elsewhere", Options: map[string]string{"type": "none", "o": "bind,ro", "device": dir}})
	make1(t, v, model.Volume{Name: "gone", Options: map[string]string{"type": "none", "o": "bind", "device": "/does/not/exist"}})
	if m, err := v.Mount(ctx, "plain", "c"); err != nil || m.Source != plain.Mountpoint || m.Type != "bind" {
		t.Fatal(m, err)
	}
	if m, err := v.Mount(ctx, "elsewhere", "c"); err != nil || m.Source != dir || !slices.Contains(m.Options, "ro") {
		t.Fatal(m, err)
	}
	if _, err := v.Mount(ctx, "gone", "c"); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "/does/not/exist") {
		t.Fatal(err)
	}
	if err := v.Unmount(ctx, "plain", "c"); err != nil {
		t.Fatal(err)
	}
}

func TestUsage(t *testing.T) {
	v := open(t, t.TempDir())
	vol := make1(t, v, model.Volume{Name: "data"})
	f := filepath.Join(vol.Mountpoint, "f")
	os.WriteFile(f, make([]byte, 1<<20), 0o600)
	os.Link(f, f+"2")
	list, warnings, err := v.List(t.Context(), nil, true)
	if err != nil || len(warnings) > 0 || list[0].Usage.Size < 1<<20 || list[0].Usage.Size > 1<<20+16384 {
		t.Fatal(list[0].Usage, warnings, err)
	}
}
