//go:build kernel

package overlay

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func mkdirs(t *testing.T, n int) (dirs []string) {
	base := t.TempDir()
	for i := range n {
		d := filepath.Join(base, strconv.Itoa(i))
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "from"+strconv.Itoa(i)), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, d)
	}
	return dirs
}

func names(t *testing.T, f *os.File) int {
	es, err := os.ReadDir("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	if err != nil {
		t.Fatal(err)
	}
	return len(es)
}

func TestMountIsDetachedAndMerged(t *testing.T) {
	for _, mount := range []func(Dirs) (*os.File, error){Mount, MountClassic} {
		d := mkdirs(t, 130)
		f, err := mount(Dirs{Lower: d[2:], Upper: d[0], Work: d[1]})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if n := names(t, f); n != 129 {
			t.Errorf("%d names, want 129", n)
		}
		table, _ := os.ReadFile("/proc/self/mountinfo")
		if strings.Contains(string(table), filepath.Dir(d[0])) {
			t.Error("the mount is in the mount table")
		}
	}
}

func TestReadOnlyAndSingle(t *testing.T) {
	d := mkdirs(t, 2)
	for _, lower := range [][]string{d, d[:1]} {
		f, err := Mount(Dirs{Lower: lower})
		if err != nil {
			t.Fatal(err)
		}
		if n := names(t, f); n != len(lower) {
			t.Errorf("%d names, want %d", n, len(lower))
		}
		if err := os.WriteFile("/proc/self/fd/"+strconv.Itoa(int(f.Fd()))+"/new", nil, 0o644); err == nil {
			t.Error("written to a read-only view")
		}
		f.Close()
	}
}

func TestErrorsSayWhat(t *testing.T) {
	d := mkdirs(t, 1)
	if _, err := Mount(Dirs{Lower: append(d, "/does/not/exist")}); err == nil {
		t.Error("no error")
	} else if !strings.Contains(err.Error(), "/does/not/exist") {
		t.Errorf("the error does not name the directory: %v", err)
	}
}
