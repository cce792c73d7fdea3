package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// module is the prefix of the imports of our own packages.
const module = "github.com/coreos/flannel"

// file is one Go source file of the tree.
type file struct {
	name   string // relative to the root, e.g. pkg/tun/tun.go
	source []byte
	syntax *ast.File
	set    *token.FileSet
}

func (f *file) dir() string     { return path.Dir(f.name) }
func (f *file) test() bool      { return strings.HasSuffix(f.name, "_test.go") }
func (f *file) generated() bool { return ast.IsGenerated(f.syntax) }
func (f *file) program() bool   { return f.syntax.Name.Name == "main" }

// at returns the place of n in a form that editors know.
func (f *file) at(n ast.Node) string {
	return f.name + ":" + strconv.Itoa(f.set.Position(n.Pos()).Line)
}

// imports returns the packages of this module that f imports, relative to the
// root. "." is the root itself.
func (f *file) imports() []string {
	var own []string
	for _, path := range f.allImports() {
		if path == module {
			own = append(own, ".")
		} else if rest, ok := strings.CutPrefix(path, module+"/"); ok {
			own = append(own, rest)
		}
	}
	return own
}

func (f *file) allImports() []string {
	var all []string
	for _, spec := range f.syntax.Imports {
		if path, err := strconv.Unquote(spec.Path.Value); err == nil {
			all = append(all, path)
		}
	}
	return all
}

func parse(t *testing.T, name string, source []byte) *file {
	t.Helper()
	set := token.NewFileSet()
	syntax, err := parser.ParseFile(set, name, source, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return &file{name: filepath.ToSlash(name), source: source, syntax: syntax, set: set}
}

// root is the path from this package to the root of the repository.
const root = "../.."

// tree reads every Go file of the repository.
func tree(t *testing.T) []*file {
	t.Helper()
	var files []*file
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			base := d.Name()
			if base == "testdata" || base == "bin" || base == "dist" || name != root && strings.HasPrefix(base, ".") {
				return fs.SkipDir
			}
			return nil
		case filepath.Ext(name) != ".go":
			return nil
		}
		source, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		files = append(files, parse(t, rel, source))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("found %d Go files below %s; the rules hold for nothing", len(files), root)
	}
	return files
}

type dirEntry = fs.DirEntry

func rootEntries(t *testing.T) []dirEntry {
	t.Helper()
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}
