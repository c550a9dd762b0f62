package state

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shoalhq/shoal/lib/errs"
)

func TestLifeOfARecord(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "root"))
	if ids, err := s.List(); err != nil || len(ids) != 0 {
		t.Fatal(ids, err)
	}
	d, err := s.Create("one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Read(); !errs.Is(err, errs.NotFound) {
		t.Errorf("a record without content: %v", err)
	}
	if _, err := s.Create("one"); !errs.Is(err, errs.Conflict) {
		t.Errorf("made twice: %v", err)
	}
	want := &Record{ID: "one", Bundle: "/b", Pid: os.Getppid()} // an emulator invents /proc of the process itself
	want.PidStart, _, _ = StartTime(want.Pid)
	if err := d.Write(want); err != nil {
		t.Fatal(err)
	}
	d.Close()
	if d, err = s.Lock("one"); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got, err := d.Read()
	if err != nil || got.Bundle != "/b" || !got.Alive() {
		t.Errorf("got %+v, %v", got, err)
	}
	got.PidStart++
	if got.Alive() {
		t.Error("another process with the same pid is taken for ours")
	}
	os.WriteFile(filepath.Join(d.Path(), "state.json"), []byte("{"), 0o600)
	if _, err := d.Read(); !errs.Is(err, errs.Damaged) {
		t.Errorf("a damaged record: %v", err)
	}
	os.WriteFile(filepath.Join(d.Path(), "state.json"), []byte(`{"version":99}`), 0o600)
	if _, err := d.Read(); !errs.Is(err, errs.Unsupported) {
		t.Errorf("a newer record: %v", err)
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Peek("one"); !errs.Is(err, errs.NotFound) {
		t.Errorf("after removal: %v", err)
	}
}

func TestCheckID(t *testing.T) {
	for id, ok := range map[string]bool{"a": true, "A_b-c.d+1": true, "": false, ".": false, "..": false, "a/b": false, "a b": false, "a\n": false, "é": false} {
		if (CheckID(id) == nil) != ok {
			t.Errorf("%q: %v", id, CheckID(id))
		}
	}
}

func TestParseStat(t *testing.T) {
	ticks, letter, ok := parseStat("12 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21")
	if ticks != 777 || letter != 'S' || !ok {
		t.Error(ticks, letter, ok)
	}
	if _, _, ok := parseStat("12 (a"); ok {
		t.Error("nonsense is taken")
	}
}
