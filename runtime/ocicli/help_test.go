package ocicli

import (
	"bytes"
	"strings"
	"testing"
)

func TestEveryVerbHasHelp(t *testing.T) {
	for _, v := range verbs() {
		if strings.HasPrefix(v.help, "not supported") {
			continue
		}
		var out bytes.Buffer
		c := &command{out: &out}
		code, err := c.dispatch([]string{"--root", t.TempDir(), v.name, "--help"})
		if code != 0 || err != nil {
			t.Errorf("%s --help: %d, %v", v.name, code, err)
		}
		if !strings.Contains(out.String(), "usage: shoal-runtime "+v.name) {
			t.Errorf("%s --help prints %q", v.name, out.String())
		}
		_, flags, _ := strings.Cut(out.String(), "flags:\n")
		for line := range strings.Lines(flags) {
			if len(strings.TrimSpace(line)) < 33 {
				t.Errorf("%s --help does not say what this flag does: %s", v.name, line)
			}
		}
	}
}
