package health

import (
	"bytes"
	"flag"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write docs/troubles.md anew")

func TestListIsWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, tr := range All() {
		switch {
		case seen[tr.Code]:
			t.Errorf("%s is there twice", tr.Code)
		case !regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`).MatchString(tr.Code), tr.Means == "", tr.Fix == "", tr.Area == "",
			!strings.Contains("error warning info", string(tr.Severity)):
			t.Errorf("%+v", tr)
		}
		seen[tr.Code] = true
	}
	var b bytes.Buffer
	Log(slog.New(slog.NewTextHandler(&b, nil)), "api-open", "open", "address", "x")
	if !strings.Contains(b.String(), "level=WARN msg=open code=api-open") || !strings.Contains(b.String(), "tlsverify") {
		t.Error(b.String())
	}
}

func TestDocumentationIsOfThisList(t *testing.T) {
	const page = "../../docs/troubles.md"
	if *rewrite {
		if err := os.WriteFile(page, []byte(Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(page)
	if err != nil || string(b) != Markdown() {
		t.Errorf("docs/troubles.md is not what the list says (%v): go test ./observe/health -rewrite", err)
	}
}

// TestEveryCodeIsProvoked: some test other than this list's makes each trouble happen and looks for its code.
func TestEveryCodeIsProvoked(t *testing.T) {
	var all strings.Builder
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		all.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range All() {
		if !regexp.MustCompile(`["= ]` + tr.Code + `[" ]`).MatchString(all.String()) {
			t.Errorf("no test provokes %s", tr.Code)
		}
	}
}
