package hooks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalhq/shoal/lib/errs"
)

func sh(script string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}}
}

func TestRun(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	state := &specs.State{ID: "x", Pid: 7}
	if err := Run("step", []specs.Hook{sh("cat >" + out + "; test -z \"$HOME\"")}, state); err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(out)
	if !strings.Contains(string(data), `"pid":7`) {
		t.Errorf("on standard input: %s", data)
	}
	err := Run("step", []specs.Hook{sh("true"), sh("echo why >&2; exit 3"), sh("echo >>" + out)}, state)
	if err == nil || !strings.Contains(err.Error(), "step hook #1 (/bin/sh): exit status 3; it printed: why") {
		t.Errorf("got %v", err)
	}
	if again, _ := os.ReadFile(out); len(again) != len(data) {
		t.Error("a hook ran after one had failed")
	}
	if err := RunAll("step", []specs.Hook{sh("exit 1"), sh("echo >>" + out)}, state); err == nil {
		t.Error("no error")
	}
	if again, _ := os.ReadFile(out); len(again) == len(data) {
		t.Error("RunAll stopped")
	}
}

func TestTimeout(t *testing.T) {
	one := 1
	h := sh("sleep 100 & wait")
	h.Timeout = &one
	if err := Run("step", []specs.Hook{h}, &specs.State{}); !errs.Is(err, errs.Deadline) {
		t.Errorf("got %v", err)
	}
}
