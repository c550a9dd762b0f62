package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The tests call the tools in process, and the shell as a process of its own: this test program under another name.
func TestMain(m *testing.M) {
	if os.Getenv("TOOLBOX_TEST") != "" {
		os.Exit(run(filepath.Base(os.Args[0]), os.Args[1:]))
	}
	os.Exit(m.Run())
}

func do(t *testing.T, in string, args ...string) (string, error) {
	t.Helper()
	f := lookup(args[0])
	if f == nil {
		t.Fatalf("no tool %s", args[0])
	}
	var out bytes.Buffer
	err := f(&call{args[0], args[1:], strings.NewReader(in), &out, &out})
	return out.String(), err
}

func TestTextTools(t *testing.T) {
	const text = "b 2\na 10\nb 2\nc 3\n"
	for _, c := range []struct {
		args, want string
	}{
		{"head -n 1", "b 2\n"}, {"head -2", "b 2\na 10\n"}, {"tail -1", "c 3\n"}, {"tail -n +3", "b 2\nc 3\n"}, {"head -c 3", "b 2"},
		{"grep a", "a 10\n"}, {"grep -v b", "a 10\nc 3\n"}, {"grep -c b", "2\n"}, {"grep -n c", "4:c 3\n"}, {"grep -E ^(a|c)", "a 10\nc 3\n"}, {"grep -o [0-9][0-9]*", "2\n10\n2\n3\n"},
		{"wc -l", "4\n"}, {"wc", "4 8 17\n"}, {"sort", "a 10\nb 2\nb 2\nc 3\n"}, {"sort -u -r", "c 3\nb 2\na 10\n"}, {"sort -n -k 2", "b 2\nb 2\nc 3\na 10\n"},
		{"cut -d\x00 -f2", "2\n10\n2\n3\n"}, {"tr a-c A-C", "B 2\nA 10\nB 2\nC 3\n"}, {"tr -d 0-9", "b \na \nb \nc \n"}, {"rev", "2 b\n01 a\n2 b\n3 c\n"},
		{"seq 3", "1\n2\n3\n"}, {"seq 5 -2 1", "5\n3\n1\n"}, {"basename /a/b.c .c", "b\n"}, {"dirname /a/b", "/a\n"}, {"sha256sum", "5de4d2e7aa29af2ea2b85d4e1c5ad9ecbb0a25afa1a2fe5bd9e9e1c31c7bd3ac  -\n"},
	} {
		args := strings.Fields(c.args)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "\x00", " ")
		}
		got, err := do(t, text, args...)
		if args[0] == "sha256sum" {
			if len(got) != 68 {
				t.Error(got)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %q %v, want %q", c.args, got, err, c.want)
		}
	}
	if _, err := do(t, text, "grep", "zzz"); err != status(1) {
		t.Error(err)
	}
	if _, err := do(t, text, "sort", "-Z"); err == nil {
		t.Error("an unknown flag was taken")
	}
	if got, _ := do(t, "a\na\nb\n", "uniq", "-c"); got != "      2 a\n      1 b\n" {
		t.Errorf("%q", got)
	}
}

func TestConditions(t *testing.T) {
	dir := t.TempDir()
	for args, want := range map[string]bool{"-d " + dir: true, "-f " + dir: false, "1 -lt 2": true, "a = b": false, "! a = b": true, "x": true, "": false, "-z x": false, "-e /none": false} {
		_, err := do(t, "", append([]string{"test"}, strings.Fields(args)...)...)
		if (err == nil) != want {
			t.Errorf("test %s: %v", args, err)
		}
	}
	if _, err := do(t, "", "test", "1", "-lt", "x"); err != status(2) {
		t.Error(err)
	}
	if _, err := do(t, "", "[", "x"); err != status(2) {
		t.Error(err)
	}
}

func TestFileTools(t *testing.T) {
	t.Chdir(t.TempDir())
	os.WriteFile("f", []byte("hello"), 0o640)
	for _, c := range []struct{ args, want string }{
		{"stat -c %s/%a/%F f", "5/640/regular\x00file\n"}, {"ln -s f l", ""}, {"readlink l", "f\n"}, {"cat l", "hello"}, {"cp f g", ""}, {"cat g", "hello"},
		{"dd if=f of=h bs=2 count=2 status=none", ""}, {"cat h", "hell"}, {"truncate -s 1k t", ""}, {"stat -c %s t", "1024\n"}, {"mkdir -p a/b", ""}, {"rmdir a/b", ""},
		{"rm -r a", ""}, {"ls", "f\ng\nh\nl\nt\n"}, {"mv g i", ""}, {"tar -c -f x.tar f", ""},
	} {
		got, err := do(t, "", strings.Fields(c.args)...)
		if err != nil || got != strings.ReplaceAll(c.want, "\x00", " ") {
			t.Errorf("%s: %q %v", c.args, got, err)
		}
	}
}

func TestProcessTools(t *testing.T) {
	for args, want := range map[string]string{"ps": "COMMAND", "id": "uid=", "uname -s": "Linux", "date +%Y": "20", "env": "=", "kill -l": "SIGKILL", "free": "Mem:", "caps": "CapEff",
		"hostname": "", "df": "Filesystem", "ip addr": "lo", "ss -a": "Netid", "nproc": "", "uptime": "up"} {
		got, err := do(t, "", strings.Fields(args)...)
		if err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: %q %v", args, got, err)
		}
	}
	if err := func() error { _, err := do(t, "", "kill", "-9", "x"); return err }(); err == nil {
		t.Error("killed x")
	}
}

// sh runs the shell as a process.
func sh(t *testing.T, in string, args ...string) (string, int) {
	t.Helper()
	bin := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "cat", "grep", "seq", "env", "wc", "kill", "id"} {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(bin, "sh"), args...)
	cmd.Env = []string{"TOOLBOX_TEST=1", "PATH=" + bin, "HOME=/home"}
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestShell(t *testing.T) {
	for _, c := range []struct {
		in   string
		args []string
		out  string
		code int
	}{
		{"", []string{"-c", "echo a; exit 3"}, "a\n", 3},
		{"", []string{"-c", "seq 3 | grep -v 2 | wc -l"}, "2\n", 0},
		{"", []string{"-c", `for i in 1 2; do echo "$i $0 $1"; done`, "name", "arg"}, "1 name arg\n2 name arg\n", 0},
		{"echo hi\necho $HOME", nil, "hi\n/home\n", 0},
		{"", []string{"-c", "nosuchcommand"}, "", 127},
		{"", []string{"-ec", "false; echo no"}, "", 1},
		{"", []string{"-c", "exec env X=1 sh -c 'echo $X'"}, "1\n", 0},
		{"", []string{"-c", "if true"}, "", 2},
		{"", []string{"-c", "f() { echo in f; }; f"}, "in f\n", 0},
		{"", []string{"-c", "X=5 env | grep ^X="}, "X=5\n", 0},
		{"", []string{"-c", "X=5 env"}, "X=5", 0},
		{"", []string{"-c", "trap 'echo bye' EXIT; seq 1"}, "1\nbye\n", 0},
		{"", []string{"-c", "seq 2 > /dev/null; cat <<E\nhere\nE"}, "here\n", 0},
		{"bad (\necho after\nexit 4\n", []string{"-i"}, "after\n", 4},
		{"for i in 1 2\ndo echo $i\ndone\n", []string{"-i"}, "1\n2\n", 0},
	} {
		out, code := sh(t, c.in, c.args...)
		if code != c.code || !strings.Contains(out, c.out) {
			t.Errorf("%q %q: %q exit %d, want %q exit %d", c.args, c.in, out, code, c.out, c.code)
		}
	}
	if out, code := sh(t, "", "-c", "kill -TERM $$; echo not reached"); code == 0 {
		t.Errorf("%q %d", out, code)
	}
	if out, _ := sh(t, "", "/does/not/exist"); !strings.Contains(out, "no such file") {
		t.Error(out)
	}
}
