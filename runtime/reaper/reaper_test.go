package reaper

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestMain lets the test program be the init itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Name {
		os.Exit(Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func run(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("/proc/self/exe", append([]string{Name, "--"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

func TestEndsAsItsProgram(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		out  string
	}{
		{[]string{"sh", "-c", "echo hi; exit 7"}, 7, "hi"},
		{[]string{"sh", "-c", "kill -9 $$"}, 137, ""},
		{[]string{"sh", "-c", "(sleep 0.05; true) & exit 3"}, 3, ""},
		{[]string{"sh", "-c", "trap 'echo term; exit 4' TERM; kill -TERM $PPID; while :; do sleep 0.01; done"}, 4, "term"},
		{[]string{"no-such-program"}, 127, "no-such-program"},
	} {
		out, code := run(t, c.args...)
		if code != c.code || !strings.Contains(out, c.out) {
			t.Errorf("%v: exit code %d, output %q", c.args, code, out)
		}
	}
}
