package store

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoalhq/shoal/lib/clock"
	"github.com/shoalhq/shoal/model"
)

// Unused images go, those named longest ago first, until the low mark; used and new ones stay.
func TestReclaim(t *testing.T) {
	now := clock.NewFake(time.Now().Add(2 * reclaimGrace)) // the images are older than the grace
	s := New(Config{Root: filepath.Join(t.TempDir(), "images"), Driver: DriverNative, Clock: now})
	t.Cleanup(func() { s.Close() })
	ctx := context.Background()
	var ids []string
	for i := range 5 {
		id, err := s.Commit(ctx, model.ImageCommit{Ref: fmt.Sprintf("image%d:1", i), Config: model.ImageConfig{User: fmt.Sprint(i)}, Upper: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := s.Use(ctx, "container", ids[0]); err != nil {
		t.Fatal(err)
	}
	percent := 95
	full := func(string) (int, error) { percent -= 5; return percent + 5, nil }
	if n, err := s.reclaim(ctx, Watermarks{}, full); n != 0 || err != nil {
		t.Fatal("off, but", n, err)
	}
	percent = 80
	if n, err := s.reclaim(ctx, Watermarks{85, 70}, full); n != 0 || err != nil {
		t.Fatal("below the mark, but", n, err)
	}
	percent = 90
	if n, err := s.reclaim(ctx, Watermarks{85, 80}, full); n != 2 || err != nil {
		t.Fatal("want two images removed:", n, err)
	}
	for i, want := range []bool{true, false, false, true, true} {
		if _, err := s.Resolve(ctx, ids[i], ""); (err == nil) != want {
			t.Errorf("image%d: %v", i, err)
		}
	}
	percent = 1000
	if n, err := s.reclaim(ctx, Watermarks{85, 80}, full); n != 2 || err != nil {
		t.Fatal("everything that is not used:", n, err)
	}
	if _, err := s.Resolve(ctx, ids[0], ""); err != nil {
		t.Fatal("an image that a container uses was removed:", err)
	}
	fresh := New(Config{Root: filepath.Join(t.TempDir(), "images"), Driver: DriverNative})
	t.Cleanup(func() { fresh.Close() })
	if _, err := fresh.Commit(ctx, model.ImageCommit{Upper: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	if n, err := fresh.reclaim(ctx, Watermarks{1, 1}, func(string) (int, error) { return 99, nil }); n != 0 || err != nil {
		t.Fatal("an image of this moment was removed:", n, err)
	}
	if p, err := full(t.TempDir()); err != nil || p < 0 {
		t.Fatal(p, err)
	}
}
