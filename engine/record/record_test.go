package record

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/lib/openat/openattest"
	"github.com/shoalhq/shoal/model"
)

func sample() *model.Container {
	c := &model.Container{ID: ids.New(), Name: "web", Created: time.Unix(100, 5).UTC()}
	c.Spec.Process.Entrypoint = []string{}
	c.Spec.Process.Cmd = []string{"sh", "-c", "true"}
	c.Spec.Network.Exposed = []model.Port{{Number: 80, Proto: model.TCP}}
	c.Spec.Security.MaskedPaths = &[]string{}
	c.State = model.State{Status: model.StatusExited, ExitCode: 3}
	return c
}

func create(t *testing.T, s *Store, c *model.Container) {
	t.Helper()
	if _, err := s.Create(c.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveNew(c, true); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveState(c, false); err != nil {
		t.Fatal(err)
	}
}

func TestReadBack(t *testing.T) {
	s, err := Open(t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := sample()
	create(t, s, c)
	got, bad, err := s.Load()
	if err != nil || len(bad) != 0 || len(got) != 1 {
		t.Fatalf("%v %v %v", got, bad, err)
	}
	if d := cmp.Diff(c, got[0]); d != "" {
		t.Fatal(d)
	}
	remove(t, s, c.ID)
	s.Close()
	if names, _ := filepath.Glob(filepath.Join(s.dir, "[0-9a-f]*")); len(names) != 0 {
		t.Fatalf("left: %v", names)
	}
}

func TestDamage(t *testing.T) {
	root := t.TempDir()
	s, _ := Open(root, t.TempDir())
	good, torn, lostState, half := sample(), sample(), sample(), ids.New()
	create(t, s, good)
	create(t, s, torn)
	create(t, s, lostState)
	os.WriteFile(filepath.Join(s.Dir(torn.ID), specFile), []byte(`{"version":1,"contai`), 0o600)
	os.WriteFile(filepath.Join(s.Dir(lostState.ID), stateFile), nil, 0o600)
	s.Create(half)
	got, bad, err := s.Load()
	if err != nil || len(got) != 2 || len(bad) != 1 {
		t.Fatalf("%d good, %v, %v", len(got), bad, err)
	}
	if bad[0].ID != torn.ID || !strings.HasPrefix(bad[0].Now, filepath.Join(root, "damaged")) {
		t.Fatalf("%+v", bad[0])
	}
	if _, err := os.Stat(filepath.Join(bad[0].Now, UpperDir)); err != nil {
		t.Fatal("the writable layer was not kept:", err)
	}
	for _, c := range got {
		if c.ID == lostState.ID && (c.State.Status != model.StatusExited || c.State.ExitCode != 255) {
			t.Fatalf("state %+v", c.State)
		}
	}
	s.Close()
	if _, err := os.Stat(s.Dir(half)); !os.IsNotExist(err) {
		t.Fatal("the half-made directory is still there")
	}
}

func TestBlanksAreReady(t *testing.T) {
	root, run := t.TempDir(), t.TempDir()
	s, _ := Open(root, run)
	s.Load()
	s.Close()
	if len(s.blank) != blanks {
		t.Fatalf("%d ready", len(s.blank))
	}
	for range 2 * blanks {
		dir, err := s.Create(ids.New())
		if err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(filepath.Join(dir, UpperDir)); err != nil || st.Mode().Perm() != 0o755 {
			t.Fatal(st, err)
		}
	}
	s.Close()
	again, _ := Open(root, run)
	again.Load()
	again.Close()
	if all, _ := filepath.Glob(filepath.Join(s.dir, blankMark+"*")); len(all) != len(again.blank) || len(all) < blanks {
		t.Fatalf("%d blanks on disk, %d ready", len(all), len(again.blank))
	}
}

func TestRemovedAtItsEndIsOnTmpfsOnly(t *testing.T) {
	root, run := t.TempDir(), t.TempDir()
	s, _ := Open(root, run)
	c := sample()
	c.Spec.Options.AutoRemove = true
	create(t, s, c)
	if _, err := os.Stat(filepath.Join(s.Dir(c.ID), specFile)); !os.IsNotExist(err) {
		t.Fatal("the record is on disk")
	}
	if got, _, _ := s.Load(); len(got) != 1 || got[0].State.ExitCode != 3 {
		t.Fatal(got)
	}
	s.Close()
	reborn, _ := Open(root, t.TempDir()) // a restart of the machine
	if got, _, _ := reborn.Load(); len(got) != 0 {
		t.Fatal(got)
	}
	reborn.Close()
	if _, err := os.Stat(s.Dir(c.ID)); !os.IsNotExist(err) {
		t.Fatal("the directory is left")
	}
}

func TestOnlyUntouchedLayersAreUsedAgain(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("owners are looked at")
	}
	for name, touch := range map[string]func(upper string) error{
		"nothing":   func(string) error { return nil },
		"file":      func(upper string) error { return os.WriteFile(filepath.Join(upper, "secret"), nil, 0o600) },
		"mode":      func(upper string) error { return os.Chmod(upper, 0o777) },
		"owner":     func(upper string) error { return os.Chown(upper, 5, 5) },
		"attribute": func(upper string) error { return unix.Setxattr(upper, "user.mark", []byte("x"), 0) },
		"volatile": func(upper string) error { // what the kernel leaves there of a mount that was not written back
			return os.MkdirAll(filepath.Join(upper, "..", WorkDir, "work", "incompat", "volatile"), 0o700)
		},
		"log": func(upper string) error { return os.WriteFile(filepath.Join(upper, "../x.log"), nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := Open(t.TempDir(), t.TempDir())
			id := ids.New()
			dir, err := s.Create(id)
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
			if err := touch(filepath.Join(dir, UpperDir)); err != nil {
				t.Skip(err)
			}
			before := len(s.blank)
			remove(t, s, id)
			if again := len(s.blank) > before; again != (name == "nothing" || name == "volatile") {
				t.Fatalf("used again: %v", again)
			}
			if left, _ := filepath.Glob(filepath.Join(s.dir, "*"+id)); len(left) != 0 {
				t.Fatal(left)
			}
		})
	}
}

// A container may nest directories as deep as it likes.
func TestRemoveDeepTree(t *testing.T) {
	s, _ := Open(t.TempDir(), t.TempDir())
	defer s.Close()
	c := sample()
	create(t, s, c)
	openattest.Deep(t, filepath.Join(s.Dir(c.ID), UpperDir))
	remove(t, s, c.ID)
}

func remove(t *testing.T, s *Store, id string) {
	t.Helper()
	dispose, err := s.Remove(id)
	if err == nil {
		err = dispose()
	}
	if err != nil {
		t.Fatal(err)
	}
}
