package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const (
	module = "github.com/shoalhq/shoal"
	root   = "../.."
)

type pkg struct {
	dir     string // relative to the module's root, with slashes
	doc     bool
	docText string
	imports []string // of files that are not tests
	files   []*file
}

type file struct {
	name  string
	ast   *ast.File
	fset  *token.FileSet
	lines int
	test  bool
}

var load = func() func(t *testing.T) []*pkg {
	once := sync.OnceValues(parseAll)
	return func(t *testing.T) []*pkg {
		t.Helper()
		ps, err := once()
		if err != nil {
			t.Fatal(err)
		}
		return ps
	}
}()

func parseAll() ([]*pkg, error) {
	byDir := map[string]*pkg{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); p != root && (strings.HasPrefix(n, ".") || n == "testdata" || n == "bin" || n == "dist") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		return addFile(byDir, p)
	})
	var ps []*pkg
	for _, p := range byDir {
		ps = append(ps, p)
	}
	return ps, err
}

func addFile(byDir map[string]*pkg, p string) error {
	src, err := os.ReadFile(p)
	if err != nil {
		return err
	}
	f := &file{name: filepath.Base(p), fset: token.NewFileSet(), lines: strings.Count(string(src), "\n"),
		test: strings.HasSuffix(p, "_test.go")}
	if f.ast, err = parser.ParseFile(f.fset, p, src, parser.ParseComments); err != nil {
		return err
	}
	rel, err := filepath.Rel(root, filepath.Dir(p))
	if err != nil {
		return err
	}
	dir := filepath.ToSlash(rel)
	pk := byDir[dir]
	if pk == nil {
		pk = &pkg{dir: dir}
		byDir[dir] = pk
	}
	pk.files = append(pk.files, f)
	if f.test {
		return nil
	}
	if f.ast.Doc != nil && len(strings.Fields(f.ast.Doc.Text())) > 8 {
		pk.doc = true
	}
	for _, imp := range f.ast.Imports {
		name, _ := strconv.Unquote(imp.Path.Value)
		pk.imports = append(pk.imports, name)
	}
	return nil
}

func (f *file) impureUses() (uses []string) {
	if f.test {
		return nil
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			uses = append(uses, "starts a goroutine")
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && (n.Sel.Name == "Now" || n.Sel.Name == "Sleep" || n.Sel.Name == "Since" || n.Sel.Name == "After") {
				uses = append(uses, "uses time."+n.Sel.Name)
			}
		}
		return true
	})
	return uses
}
