package config

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write docs/daemon-options.md anew")

// TestEveryOptionOfDockerdIsDecided holds the table to dockerd's, so that nothing of it is unknown here.
func TestEveryOptionOfDockerdIsDecided(t *testing.T) {
	data, err := os.ReadFile("testdata/dockerd.txt")
	if err != nil {
		t.Fatal(err)
	}
	docker := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		kind, name, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || kind == "#" {
			continue
		}
		docker[name] = true
		found := false
		for i := range options {
			o := &options[i]
			found = found || kind == "flag" && o.flag == name || kind == "key" && (o.key == name || o.oldKey == name)
		}
		if !found {
			t.Errorf("%s %s of dockerd is not in the table", kind, name)
		}
	}
	for i := range options {
		o := &options[i]
		if o.ours == (docker[o.flag] || docker[o.key]) {
			t.Errorf("%s: ours is %v", o.name(), o.ours)
		}
		if o.help == "" || o.set != nil && o.refused != "" {
			t.Errorf("%s has no help, or is refused and set", o.name())
		}
	}
}

func TestDocumentationIsOfThisTable(t *testing.T) {
	const page = "../../docs/daemon-options.md"
	if *rewrite {
		if err := os.WriteFile(page, []byte(Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(page); err != nil || string(b) != Markdown() {
		t.Errorf("%s is not what the table says (%v): go test ./node/config -rewrite", page, err)
	}
}

func TestWholeHost(t *testing.T) {
	for in, want := range map[string]string{
		"unix://": DefaultHost, "unix:///x": "unix:///x", "/x.sock": "unix:///x.sock", "fd://": "fd://", "tcp://": "tcp://127.0.0.1:2376",
		"tcp://192.0.2.1": "tcp://192.0.2.1:2376", ":2376": "tcp://:2376", "0.0.0.0:": "tcp://0.0.0.0:2376", "tcp://[::1]": "tcp://[::1]:2376",
		"tcp://[::1]:5/": "tcp://[::1]:5", "name": "tcp://name:2376",
	} {
		if got := wholeHost(in, true); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}
