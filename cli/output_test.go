package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// full is an output on which nothing fits.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// What a full disk swallows is told, and the exit code says so, unless the container's own says that something else went wrong.
func TestLostOutput(t *testing.T) {
	for _, tt := range []struct {
		args string
		code int
		want int
	}{{"run img", 0, 1}, {"run img", 7, 7}, {"completion bash", 0, 1}, {"--help", 0, 1}, {"version --client", 0, 1}} {
		p := &pretendRun{code: tt.code, stdin: make(chan string, 1), ended: make(chan struct{})}
		r := newRecorder(t, p.serve)
		t.Setenv("SHOAL_HOST", r.host)
		t.Setenv("DOCKER_CONFIG", t.TempDir())
		var errb bytes.Buffer
		code := Main(words(tt.args), Streams{In: strings.NewReader(""), Out: full{}, Err: &errb})
		if code != tt.want || strings.Count(errb.String(), "no space left on device") != 1 {
			t.Errorf("%s: code %d, want %d; %q", tt.args, code, tt.want, errb.String())
		}
	}
}

func TestInterrupted(t *testing.T) {
	var errb bytes.Buffer
	a := &App{Streams: Streams{Err: &errb}}
	if code := a.report(fmt.Errorf("Put http://%%2Frun: %w", interrupted(syscall.SIGTERM))); code != 128+15 || errb.String() != "interrupted: terminated\n" {
		t.Error(code, errb.String())
	}
}

// A file that is being written has no name that could stay behind when the process is killed.
func TestHiddenFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.tar")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, appear, done, err := hiddenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	f.WriteString("new")
	if names, _ := filepath.Glob(dir + "/.*tmp*"); len(names) > 0 {
		t.Skipf("%s: this filesystem cannot have files without a name", names)
	}
	if old, _ := os.ReadFile(path); string(old) != "old" {
		t.Errorf("%q", old)
	}
	if err := appear(); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if got, _ := os.ReadFile(path); string(got) != "new" || err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%q %v %v", got, st, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Error(entries)
	}
}
