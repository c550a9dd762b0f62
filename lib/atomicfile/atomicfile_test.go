package atomicfile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteReplacesAndLeavesNothingElse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.json")
	for _, v := range []map[string]int{{"a": 1}, {"b": 2}} {
		if err := WriteJSON(path, v, 0o640, Durable); err != nil {
			t.Fatal(err)
		}
	}
	var got map[string]int
	if err := ReadJSON(path, &got); err != nil || got["b"] != 2 || len(got) != 1 {
		t.Fatalf("read back %v, %v", got, err)
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o640 {
		t.Fatalf("mode %v", st.Mode())
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Fatalf("left over: %v", names)
	}
}

func TestFailedWriteKeepsTheOldContent(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "d")
	if err := os.MkdirAll(filepath.Join(path, "x"), 0o755); err != nil { // rename onto a full directory fails
		t.Fatal(err)
	}
	if err := Write(path, []byte("x"), 0o600, Durable); err == nil {
		t.Fatal("no error")
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Fatalf("left over: %v", names)
	}
}

func TestIsTemp(t *testing.T) {
	if !IsTemp(".a.json.tmp-123") || IsTemp("a.json") || IsTemp(".hidden") {
		t.Fatal("wrong")
	}
}
