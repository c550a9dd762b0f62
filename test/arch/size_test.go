package arch

import (
	"fmt"
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	maxFile   = 700
	maxFunc   = 100
	maxFields = 12
)

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range load(t) {
		onlyTests := true
		for _, f := range p.files {
			onlyTests = onlyTests && f.test
		}
		if !p.doc && !onlyTests {
			t.Errorf("%s has no package comment of a sentence or more: say what it does and what it must not do", p.dir)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, p := range load(t) {
		for _, f := range p.files {
			where := path.Join(p.dir, f.name)
			if f.lines > maxFile {
				t.Errorf("%s has %d lines; %d is the limit", where, f.lines, maxFile)
			}
			if f.test {
				continue
			}
			for _, d := range f.ast.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					from, to := f.fset.Position(d.Pos()).Line, f.fset.Position(d.End()).Line
					if n := to - from + 1; n > maxFunc {
						t.Errorf("%s: %s has %d lines; %d is the limit", where, d.Name.Name, n, maxFunc)
					}
				case *ast.GenDecl:
					checkStructs(t, where, f, d)
				}
			}
		}
	}
}

// Wire types follow a format of somebody else, however wide it is.
func wire(where string) bool {
	return strings.HasSuffix(where, "_wire.go") || strings.HasPrefix(where, "api/types/")
}

func checkStructs(t *testing.T, where string, f *file, d *ast.GenDecl) {
	for _, s := range d.Specs {
		ts, ok := s.(*ast.TypeSpec)
		if !ok {
			continue
		}
		st, ok := ts.Type.(*ast.StructType)
		if !ok || wire(where) {
			continue
		}
		n := 0
		for _, field := range st.Fields.List {
			n += max(1, len(field.Names))
		}
		if n > maxFields {
			t.Errorf("%s: struct %s has %d fields; %d is the limit", where, ts.Name.Name, n, maxFields)
		}
	}
}

func TestMainsAreShort(t *testing.T) {
	mains, _ := filepath.Glob(filepath.Join(root, "cmd", "shoal*", "*.go"))
	for _, m := range mains {
		if strings.HasSuffix(m, "_test.go") {
			continue
		}
		src, err := os.ReadFile(m)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(src), "\n"); n > 60 {
			t.Errorf("%s has %d lines: a main wires and goes, in under 60", m, n)
		}
	}
}

// Sleeping hides races; unit tests wait for what they need, with a fake clock or a channel.
func TestUnitTestsDoNotSleep(t *testing.T) {
	for _, p := range load(t) {
		for _, f := range p.files {
			if !f.test || kernelOnly(f) {
				continue
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && sel.Sel.Name == "Sleep" {
					t.Errorf("%s sleeps at line %d", path.Join(p.dir, f.name), f.fset.Position(n.Pos()).Line)
				}
				return true
			})
		}
	}
}

// The kernel may ask to repeat an openat2; a bare call fails now and then on a busy machine.
func TestLookupsAreRepeated(t *testing.T) {
	for _, p := range load(t) {
		for _, f := range p.files {
			if p.dir == "lib/openat" {
				continue
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Openat2" {
					t.Errorf("%s calls openat2 itself at line %d; lib/openat repeats lookups", path.Join(p.dir, f.name), f.fset.Position(n.Pos()).Line)
				}
				return true
			})
		}
	}
}

func kernelOnly(f *file) bool {
	for _, group := range f.ast.Comments {
		for _, c := range group.List {
			if strings.HasPrefix(c.Text, "//go:build") && strings.Contains(c.Text, "kernel") {
				return true
			}
		}
	}
	return false
}

// The project speaks of itself alone.
func TestNoForeignWords(t *testing.T) {
	words := []string{"/wo" + "rk/", "proxy.gol" + "ang.org", "deb.deb" + "ian.org", "farm-" + "bench", "farm-" + "studio"}
	bad := regexp.MustCompile(strings.Join(words, "|"))
	err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); p != root && (strings.HasPrefix(n, ".") && n != ".ci" || n == "bin" || n == "dist") {
				return filepath.SkipDir
			}
			return nil
		}
		if ext := filepath.Ext(p); ext != ".go" && ext != ".md" && ext != ".sh" && d.Name() != "Makefile" && d.Name() != "run" {
			return nil
		}
		src, err := os.ReadFile(p)
		if err == nil && bad.Match(src) {
			err = fmt.Errorf("%s holds %q", p, bad.Find(src))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
