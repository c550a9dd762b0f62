package initproc

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/openat/openattest"
)

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, mode os.FileMode) {
		os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755)
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	put("a/tool", 0o644)
	put("b/tool", 0o755)
	put("a/plain", 0o644)
	env := []string{"PATH=/nowhere", "PATH=" + dir + "/a:" + dir + "/b"}
	for _, c := range []struct {
		arg, want string
		kind      errs.Kind
	}{
		{"tool", dir + "/b/tool", 0},
		{"./b/tool", dir + "/b/tool", 0},
		{dir + "/b/tool", dir + "/b/tool", 0},
		{"plain", `exec: "plain": permission denied`, errs.Forbidden},
		{"none", `exec: "none": executable file not found in $PATH`, errs.NotFound},
		{dir + "/none", "no such file or directory", errs.NotFound},
		{dir + "/a/plain/x", "not a directory", errs.NotFound},
		{dir + "/a", "is a directory: permission denied", errs.Forbidden},
		{dir + "/a/plain", "permission denied", errs.Forbidden},
	} {
		got, err := lookPath(&specs.Process{Args: []string{c.arg}, Env: env, Cwd: dir})
		if c.kind == 0 {
			if got != c.want || err != nil {
				t.Errorf("%s: got %q, %v", c.arg, got, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !errs.Is(err, c.kind) {
			t.Errorf("%s: got %v, want %q of kind %v", c.arg, err, c.want, c.kind)
		}
	}
}

func TestCompleteEnvKeepsHome(t *testing.T) {
	p := &specs.Process{Env: []string{"HOME=/h"}}
	completeEnv(p)
	if len(p.Env) != 1 {
		t.Error(p.Env)
	}
	p = &specs.Process{User: specs.User{UID: 4294967294}}
	completeEnv(p)
	if len(p.Env) != 1 || p.Env[0] != "HOME=/" {
		t.Error(p.Env)
	}
}

func TestExecErrExplains(t *testing.T) {
	openattest.Need(t)
	for errno, want := range map[error]string{unix.ENOENT: "interpreter", unix.ENOEXEC: "architecture", unix.EACCES: "noexec", unix.E2BIG: "too large"} {
		if err := execErr("/p", errno); !strings.Contains(err.Error(), want) {
			t.Error(err)
		}
	}
	dir := t.TempDir()
	foreign, host := "s390x", "\x7fELF\x02\x02\x01"+strings.Repeat("\x00", 9)+"\x00\x02\x00\x16"
	for _, f := range [][2]string{{"elf", host}, {"script", "#! " + dir + "/elf -x\n"}} { // the script's interpreter first
		name := f[0]
		if err := os.WriteFile(filepath.Join(dir, name), []byte(f[1]), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := execErr(filepath.Join(dir, name), unix.ENOEXEC); !strings.Contains(err.Error(), dir+"/elf is a program for "+foreign) || !strings.Contains(err.Error(), "qemu-user-static") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
