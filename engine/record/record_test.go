package record

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalhq/shoal/lib/ids"
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
	if err := s.SaveSpec(c, true); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveState(c, false); err != nil {
		t.Fatal(err)
	}
}

func TestReadBack(t *testing.T) {
	s, err := Open(t.TempDir())
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
	if err := s.Remove(c.ID); err != nil {
		t.Fatal(err)
	}
	if names, _ := os.ReadDir(s.dir); len(names) != 0 {
		t.Fatalf("left: %v", names)
	}
}

func TestDamage(t *testing.T) {
	root := t.TempDir()
	s, _ := Open(root)
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
	if _, err := os.Stat(s.Dir(half)); !os.IsNotExist(err) {
		t.Fatal("the half-made directory is still there")
	}
}
