package audit

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRecordsComeBackAndFilesStayBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "audit.log")
	l, err := Open(path, 1000, 2, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	start := time.Unix(1_800_000_000, 0).UTC()
	for i := range 100 {
		l.Add(Record{Time: start.Add(time.Duration(i) * time.Second), Method: "POST", Path: fmt.Sprintf("/x/%d\n", i), Status: 204})
	}
	l.Close()
	files, _ := filepath.Glob(path + "*")
	if len(files) != 3 {
		t.Fatal("files:", files)
	}
	for _, f := range files {
		st, _ := os.Stat(f)
		if st.Size() > 1000 || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %d bytes, %v", f, st.Size(), st.Mode())
		}
	}
	// A line cut off by a crash does not take the next one with it.
	f, _ := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	f.WriteString(`{"time":"20`)
	f.Close()
	if l, err = Open(path, 1000, 2, nil); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.Add(Record{Time: start.Add(time.Hour), Path: "/last"})
	got, err := l.Tail(3, time.Time{})
	if err != nil || len(got) != 3 || got[2].Path != "/last" || got[1].Path != "/x/99\n" {
		t.Fatal(got, err)
	}
	if got, _ := l.Tail(100, start.Add(time.Minute*59)); len(got) != 1 {
		t.Fatal(got)
	}
}

func TestAFullDiskIsToldOnce(t *testing.T) {
	told := 0
	l, err := Open(filepath.Join(t.TempDir(), "a"), 10, 1, func(error) { told++ })
	if err != nil {
		t.Fatal(err)
	}
	l.path = "/proc/nowhere/a" // rotation fails from now on
	for range 3 {
		l.Add(Record{Path: "/x"})
	}
	if told != 1 {
		t.Fatal("told", told)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("{\"time\":\"2026-01-01T00:00:00Z\",\"who\":{\"uid\":0}}\nx\n{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := decode(bytes.NewReader(data), time.Time{}); err != nil {
			t.Fatal(err)
		}
	})
}
