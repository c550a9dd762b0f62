package arch

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the lists of linked modules anew")

// TestLinkedModules keeps the list of modules linked into each shipped binary as a file that reviews see change.
func TestLinkedModules(t *testing.T) {
	for _, bin := range []string{"shoal", "shoald", "shoal-runtime"} {
		if _, err := os.Stat(filepath.Join(root, "cmd", bin)); err != nil {
			t.Errorf("cmd/%s is missing", bin)
			continue
		}
		cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./cmd/"+bin)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64") // other processors have other helpers
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("list what cmd/%s links: %v", bin, err)
			continue
		}
		lines := strings.Fields(string(out))
		slices.Sort(lines)
		lines = slices.DeleteFunc(slices.Compact(lines), func(m string) bool { return m == module })
		got := []byte(strings.Join(lines, "\n") + "\n")
		golden := filepath.Join("testdata", bin+".modules")
		if *rewrite {
			os.MkdirAll("testdata", 0o755)
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, _ := os.ReadFile(golden)
		if !bytes.Equal(got, want) {
			t.Errorf("the modules linked into %s changed. If that is wanted: go test ./test/arch -rewrite, and say why in the commit.\ngot:\n%swant:\n%s", bin, got, want)
		}
	}
}
