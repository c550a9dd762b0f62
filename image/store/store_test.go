package store_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalhq/shoal/image/imagetest"
	"github.com/shoalhq/shoal/image/store"
	"github.com/shoalhq/shoal/image/transfer"
	"github.com/shoalhq/shoal/lib/clock"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/failpoint"
	"github.com/shoalhq/shoal/model"
)

var epoch = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

func open(t testing.TB, root string) *store.Store {
	s := store.New(store.Config{Root: root, Driver: store.DriverNative, Clock: clock.NewFake(epoch)})
	t.Cleanup(func() { s.Close() })
	return s
}

func fresh(t testing.TB) *store.Store { return open(t, filepath.Join(t.TempDir(), "images")) }

// app is an image of one layer that is all its own besides a shared base.
func app(t testing.TB, name string, day int, labels ...string) imagetest.Image {
	img := imagetest.Image{Tags: []string{name}, Created: epoch.AddDate(0, 0, day-30), Config: ocispec.ImageConfig{Labels: map[string]string{}},
		Layers: [][]byte{
			imagetest.Layer(t, imagetest.File{Name: "base", Data: strings.Repeat("b", 5000)}),
			imagetest.Layer(t, imagetest.File{Name: "app", Data: name + strings.Repeat("a", 3000)})}}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		img.Config.Labels[k] = v
	}
	return img
}

func load(t testing.TB, s *store.Store, images ...imagetest.Image) []string {
	t.Helper()
	out, err := transfer.Load(t.Context(), s, bytes.NewReader(imagetest.Docker(images...)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, l := range out {
		ids = append(ids, l.ID)
	}
	return ids
}

func list(t testing.TB, s *store.Store, f model.Filters) string {
	t.Helper()
	l, err := s.List(t.Context(), store.ListOptions{Filters: f})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, i := range l {
		out = append(out, strings.Join(i.RepoTags, "+"))
	}
	return strings.Join(out, " ")
}

func TestNothingIsOpenedBeforeUse(t *testing.T) {
	root := filepath.Join(t.TempDir(), "images")
	s := open(t, root)
	if _, err := s.Resolve(t.Context(), "none", ""); !errs.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "pull") {
		t.Fatal(err)
	}
	if list(t, s, nil) != "" {
		t.Fatal("images?")
	}
	if _, err := os.Stat(root); !os.IsNotExist(err) {
		t.Fatal("the directory was made")
	}
}

func TestResolve(t *testing.T) {
	root := filepath.Join(t.TempDir(), "images")
	s := open(t, root)
	id := load(t, s, app(t, "app:1", 1))[0]
	hex := strings.TrimPrefix(id, "sha256:")
	for range 2 {
		img, err := s.Resolve(t.Context(), "app:1", "")
		if err != nil {
			t.Fatal(err)
		}
		for _, ref := range []string{id, hex, hex[:12], "sha256:" + hex[:7], "docker.io/library/app:1", img.Target.Digest, "app@" + img.Target.Digest, "app:1@" + img.Target.Digest} {
			got, err := s.Resolve(t.Context(), ref, "")
			if err != nil || got.ID != id {
				t.Errorf("%s: %v", ref, err)
			}
		}
		if _, err := s.Resolve(t.Context(), "app:1", "linux/amd64"); err != nil {
			t.Error(err)
		}
		for ref, kind := range map[string]errs.Kind{"app": errs.NotFound, "app:2": errs.NotFound, "App": errs.Invalid, "other@" + img.Target.Digest: errs.NotFound,
			"sha256:" + strings.Repeat("0", 64): errs.NotFound, "": errs.Invalid, "a b": errs.Invalid} {
			if _, err := s.Resolve(t.Context(), ref, ""); !errs.Is(err, kind) {
				t.Errorf("%q: %v", ref, err)
			}
		}
		if _, err := s.Resolve(t.Context(), "app:1", "linux/s390x"); !errs.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "s390x") {
			t.Error(err)
		}
		s.Close()
		s = open(t, root) // as well after a restart
	}
}

func TestRetagKeepsTheOldImageWithoutName(t *testing.T) {
	s := fresh(t)
	old := load(t, s, app(t, "app:1", 1))[0]
	load(t, s, app(t, "other:1", 2))
	if err := s.Tag(t.Context(), "other:1", "app:1"); err != nil {
		t.Fatal(err)
	}
	if got := list(t, s, nil); got != "app:1+other:1 " {
		t.Fatalf("%q", got)
	}
	if img, err := s.Resolve(t.Context(), old, ""); err != nil || !img.Dangling() {
		t.Fatal(img, err)
	}
	if err := s.Tag(t.Context(), old, "back:1"); err != nil { // has a name again
		t.Fatal(err)
	}
	if got := list(t, s, model.Filters{"dangling": {"true"}}); got != "" {
		t.Fatalf("%q", got)
	}
	for name, kind := range map[string]errs.Kind{"A B": errs.Invalid, "x@" + old: errs.Invalid} {
		if err := s.Tag(t.Context(), "app:1", name); !errs.Is(err, kind) {
			t.Error(name, err)
		}
	}
	if err := s.Tag(t.Context(), "none", "x"); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
}

func TestRemove(t *testing.T) {
	s := fresh(t)
	ctx := t.Context()
	id := load(t, s, app(t, "app:1", 1))[0]
	keep := load(t, s, app(t, "keep:1", 2))[0]
	s.Tag(ctx, "app:1", "app:2")
	s.Tag(ctx, "app:1", "second:1")
	if _, err := s.Remove(ctx, id, model.ImageRemoveOptions{}); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "app:1, app:2, second:1") {
		t.Fatal(err)
	}
	if out, err := s.Remove(ctx, "second:1", model.ImageRemoveOptions{}); err != nil || len(out) != 1 || out[0].Untagged != "second:1" {
		t.Fatal(out, err)
	}
	s.Use(ctx, "c0ffee", id)
	for _, ref := range []string{id, "app:1"} {
		_, err := s.Remove(ctx, ref, model.ImageRemoveOptions{})
		if ref == "app:1" { // another name is left
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Remove(ctx, "app:2", model.ImageRemoveOptions{})
		}
		if !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "c0ffee") {
			t.Fatal(ref, err)
		}
	}
	lower, err := s.Lowers(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.Remove(ctx, "app:2", model.ImageRemoveOptions{Force: true}); err != nil || len(out) != 1 {
		t.Fatal(out, err)
	}
	if r, err := s.Prune(ctx, nil); err != nil || len(r.Deleted) != 0 {
		t.Fatal("pruned what a container uses:", r, err)
	}
	if _, err := os.Stat(lower[0] + "/app"); err != nil {
		t.Fatal("the container's layers are gone")
	}
	s.Release(ctx, "c0ffee")
	s.Release(ctx, "c0ffee")
	r, err := s.Prune(ctx, nil)
	if err != nil || len(r.Deleted) != 1 || r.Deleted[0].Deleted != id || r.Reclaimed == 0 {
		t.Fatal(r, err)
	}
	if _, err := os.Stat(lower[0]); !os.IsNotExist(err) {
		t.Fatal("layers stay:", err)
	}
	if _, err := s.Lowers(ctx, id); !errs.Is(err, errs.NotFound) {
		t.Fatal(err)
	}
	if d, err := s.Lowers(ctx, keep); err != nil {
		t.Fatal(err)
	} else if _, err := os.Stat(d[0] + "/base"); err != nil {
		t.Fatal("the shared base is gone:", err)
	}
	if _, err := s.Remove(ctx, "app:2", model.ImageRemoveOptions{Force: true}); !errs.Is(err, errs.NotFound) {
		t.Fatal(err)
	}
	if out, err := s.Remove(ctx, keep[:19], model.ImageRemoveOptions{}); err != nil || len(out) != 2 {
		t.Fatal(out, err)
	}
	if u, err := s.DiskUsage(ctx); err != nil || u.ContentSize+u.LayersSize != 0 {
		t.Fatal(u, err)
	}
}

func TestFilters(t *testing.T) {
	s := fresh(t)
	load(t, s, app(t, "old:1", 1, "tier=web"), app(t, "team/mid:2", 5, "tier=db", "x=y"), app(t, "new:3", 9))
	for _, c := range []struct {
		f    model.Filters
		want string
	}{
		{nil, "new:3 team/mid:2 old:1"},
		{model.Filters{"label": {"tier"}}, "team/mid:2 old:1"},
		{model.Filters{"label": {"tier=web"}}, "old:1"},
		{model.Filters{"label": {"tier", "x=y"}}, "team/mid:2"},
		{model.Filters{"label!": {"tier"}}, "new:3"},
		{model.Filters{"before": {"team/mid:2"}}, "old:1"},
		{model.Filters{"since": {"team/mid:2"}}, "new:3"},
		{model.Filters{"reference": {"old", "new:*"}}, "new:3 old:1"},
		{model.Filters{"reference": {"*/mid"}}, "team/mid:2"},
		{model.Filters{"until": {fmt.Sprint(epoch.AddDate(0, 0, -26).Unix())}}, "old:1"},
		{model.Filters{"until": {"600h"}}, "old:1"}, // the clock stands at the epoch
		{model.Filters{"dangling": {"true"}}, ""},
		{model.Filters{"dangling": {"false"}, "label": {"x"}}, "team/mid:2"},
	} {
		if got := list(t, s, c.f); got != c.want {
			t.Errorf("%v: %q, want %q", c.f, got, c.want)
		}
	}
	for _, f := range []model.Filters{{"nope": {"x"}}, {"dangling": {"x"}}, {"until": {"x"}}, {"reference": {"["}}} {
		if _, err := s.List(t.Context(), store.ListOptions{Filters: f}); !errs.Is(err, errs.Invalid) {
			t.Error(f, err)
		}
	}
	if r, err := s.Prune(t.Context(), model.Filters{"dangling": {"false"}, "until": {"600h"}}); err != nil || len(r.Deleted) != 2 {
		t.Fatal(r, err)
	}
	if got := list(t, s, nil); got != "new:3 team/mid:2" {
		t.Fatal(got)
	}
}

func TestSizesAddUp(t *testing.T) {
	s := fresh(t)
	load(t, s, app(t, "a:1", 1), app(t, "b:1", 2))
	u, err := s.DiskUsage(t.Context())
	if err != nil || len(u.Images) != 2 {
		t.Fatal(u, err)
	}
	for _, i := range u.Images {
		if i.SharedSize <= 0 || i.SharedSize >= i.Size {
			t.Errorf("%s: %d shared of %d", i.RepoTags, i.SharedSize, i.Size)
		}
	}
	if u.Reclaimable != u.LayersSize+u.ContentSize {
		t.Error(u.Reclaimable, u.LayersSize, u.ContentSize)
	}
	h, err := s.History(t.Context(), "a:1", "")
	if err != nil || len(h) != 2 || h[0].Size == 0 || h[0].CreatedBy != "test" {
		t.Error(h, err)
	}
}

func TestImport(t *testing.T) {
	s := fresh(t)
	plain := imagetest.Layer(t, imagetest.File{Name: "etc/motd", Data: "hi"})
	for name, archive := range map[string][]byte{"plain:1": plain, "gzip:1": imagetest.Gzip(plain), "zstd:1": imagetest.Zstd(plain)} {
		id, err := s.Import(t.Context(), bytes.NewReader(archive), model.ImageImport{Ref: name, Message: "mine", Changes: []string{"CMD [\"/x\"]", "ENV A=b"}})
		if err != nil {
			t.Fatal(err)
		}
		img, err := s.Resolve(t.Context(), name, "")
		if err != nil || img.ID != id || img.Config.Cmd[0] != "/x" || img.Origin.Comment != "mine" || img.Platform.OS != "linux" || img.DiffIDs[0] == "" {
			t.Fatalf("%+v %v", img, err)
		}
		dirs, err := s.Lowers(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(dirs[0] + "/etc/motd"); string(b) != "hi" {
			t.Fatal("content")
		}
	}
	for ref, archive := range map[string][]byte{"junk:1": []byte(strings.Repeat("junk", 1000)), "A B": plain, "torn:1": plain[:300]} {
		if _, err := s.Import(t.Context(), bytes.NewReader(archive), model.ImageImport{Ref: ref}); !errs.Is(err, errs.Invalid) {
			t.Error(ref, err)
		}
	}
}

func TestCommit(t *testing.T) {
	s := fresh(t)
	base := load(t, s, app(t, "app:1", 1))[0]
	upper := t.TempDir()
	os.WriteFile(upper+"/new", []byte("new"), 0o600)
	os.Link(upper+"/new", upper+"/same")
	os.Symlink("new", upper+"/link")
	id, err := s.Commit(t.Context(), model.ImageCommit{Ref: "mine:1", Base: base, Upper: upper, Author: "me", Comment: "why",
		Config: model.ImageConfig{Env: []string{"A=1"}, Cmd: []string{"x"}}, Changes: []string{"ENV A=2", "EXPOSE 80 53/udp"}, Command: "x"})
	if err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve(t.Context(), "mine:1", "")
	if err != nil || img.ID != id || len(img.DiffIDs) != 3 || !slices.Equal(img.Config.Env, []string{"A=2"}) || !slices.Equal(img.Config.ExposedPorts, []string{"53/udp", "80/tcp"}) ||
		img.Origin.Author != "me" || img.Origin.Comment != "why" || len(img.History) != 3 || !img.Created.Equal(epoch) {
		t.Fatalf("%+v %v", img, err)
	}
	dirs, err := s.Lowers(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	a, err1 := os.Stat(dirs[0] + "/new")
	b, err2 := os.Stat(dirs[0] + "/same")
	if err1 != nil || err2 != nil || !os.SameFile(a, b) {
		t.Fatal(err1, err2)
	}
	if _, err := os.Stat(dirs[0] + "/base"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), "app:1", model.ImageRemoveOptions{}); err != nil { // the base may go
		t.Fatal(err)
	}
	if _, err := os.Stat(dirs[0] + "/base"); err != nil {
		t.Fatal(err)
	}
	empty, err := s.Commit(t.Context(), model.ImageCommit{Base: id, Upper: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if img, err := s.Resolve(t.Context(), empty, ""); err != nil || len(img.DiffIDs) != 3 || !img.Dangling() {
		t.Fatal(img, err)
	}
	if _, err := s.Commit(t.Context(), model.ImageCommit{Base: id, Changes: []string{"FLY me"}}); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "FLY") {
		t.Fatal(err)
	}
}

// A failure at any point of an unpack leaves nothing that is not whole, and the next try works.
func TestUnpackFailsCleanly(t *testing.T) {
	defer failpoint.Arm("")
	for _, point := range []string{"image/unpack/sync", "image/unpack/commit"} {
		s := fresh(t)
		img := app(t, "app:1", 1)
		failpoint.Arm(point + "=1*enospc") // the second layer
		_, err := transfer.Load(t.Context(), s, bytes.NewReader(imagetest.Docker(img)), nil, nil)
		if !errs.Is(err, errs.Exhausted) || !strings.Contains(err.Error(), "app:1") {
			t.Fatal(err)
		}
		failpoint.Arm("")
		if got := list(t, s, nil); got != "" {
			t.Fatal(got)
		}
		id := load(t, s, img)[0]
		if _, err := s.Lowers(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	s := fresh(t)
	ctx := t.Context()
	var all sync.WaitGroup
	for i := range 8 {
		archive := imagetest.Docker(app(t, fmt.Sprintf("app:%d", i%4), i%4))
		all.Go(func() {
			if _, err := transfer.Load(ctx, s, bytes.NewReader(archive), nil, nil); err != nil {
				t.Error(err)
				return
			}
			img, err := s.Resolve(ctx, fmt.Sprintf("app:%d", i%4), "")
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := s.Lowers(ctx, img.ID); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := len(strings.Fields(list(t, s, nil))); got != 4 {
		t.Fatal(got)
	}
}

func TestTwoDaemonsAndDrivers(t *testing.T) {
	root := filepath.Join(t.TempDir(), "images")
	s := open(t, root)
	load(t, s, app(t, "app:1", 1))
	if _, err := open(t, root).Resolve(t.Context(), "app:1", ""); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "another daemon") {
		t.Fatal(err)
	}
	s.Close()
	other := store.New(store.Config{Root: root, Driver: store.DriverOverlay})
	if _, err := other.Driver(t.Context()); !errs.Is(err, errs.Conflict) {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(root, "metadata.db"), []byte("this is not a database"), 0o600)
	s = open(t, root) // what is damaged is set aside, with the layers that belong to it, and the store takes images again
	if _, err := s.Resolve(t.Context(), "app:1", ""); !errs.Is(err, errs.NotFound) {
		t.Fatal(err)
	}
	if aside, _ := filepath.Glob(filepath.Join(root, "*.damaged-*")); len(aside) != 2 {
		t.Fatal("set aside:", aside)
	}
	load(t, s, app(t, "app:1", 1))
	if _, err := s.Resolve(t.Context(), "app:1", ""); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := store.New(store.Config{Root: t.TempDir(), Driver: "zfs"}).Driver(t.Context()); !errs.Is(err, errs.Invalid) {
		t.Fatal(err)
	}
}

func TestDeviceEntriesNeedRootOnly(t *testing.T) {
	s := fresh(t)
	img := imagetest.Image{Tags: []string{"dev:1"}, Layers: [][]byte{imagetest.Layer(t, imagetest.File{Name: "dev/null", Kind: tar.TypeChar})}}
	_, err := transfer.Load(t.Context(), s, bytes.NewReader(imagetest.Docker(img)), nil, nil)
	if err != nil && !errs.Is(err, errs.Forbidden) {
		t.Fatal(err)
	}
}
