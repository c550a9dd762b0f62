package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestEveryVerbOfDocker walks the recorded verbs and flags of the docker command line: each is there, or refused with a reason.
// It works without docker; `docker VERB --help` is where the list is from.
func TestEveryVerbOfDocker(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	t.Setenv("SHOAL_HOST", "unix:///nonexistent/shoal.sock")
	data, err := os.ReadFile("testdata/docker28.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		verb, flags, _ := strings.Cut(strings.TrimSpace(line), ":")
		words := strings.Fields(verb)[1:]
		if len(words) > 0 && absent[words[0]] != "" {
			code, said := runFor(append(words, "--some-flag", "x"))
			if code == 0 || !strings.Contains(said, absent[words[0]]) {
				t.Errorf("shoal %s: exit code %d, %q; want the reason why it is not here", strings.Join(words, " "), code, said)
			}
			continue
		}
		cmd := commandFor(words)
		if got := strings.Fields(cmd.CommandPath()); len(got) != len(words)+1 || cmd.DisableFlagParsing {
			t.Errorf("shoal %s is not there", strings.Join(words, " "))
			continue
		}
		for flag := range strings.FieldsSeq(flags) {
			long, short, _ := strings.Cut(flag, "/")
			f := cmd.Flags().Lookup(strings.TrimPrefix(long, "--"))
			if f == nil {
				t.Errorf("%s has no flag %s", cmd.CommandPath(), long)
			} else if f.Shorthand != strings.TrimPrefix(short, "-") {
				t.Errorf("%s %s has the short form %q, want %q", cmd.CommandPath(), long, f.Shorthand, short)
			}
		}
	}
}

func commandFor(words []string) *cobra.Command {
	a := &App{args: words}
	cmd := a.root()
	for len(words) > 0 {
		next := cmd
		for _, c := range cmd.Commands() {
			if c.Name() == words[0] || c.HasAlias(words[0]) {
				next = c
			}
		}
		if next == cmd {
			return cmd
		}
		cmd, words = next, words[1:]
	}
	return cmd
}

func runFor(args []string) (int, string) {
	var out bytes.Buffer
	code := Main(args, Streams{In: strings.NewReader(""), Out: &out, Err: &out})
	return code, out.String()
}
