package daemon

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

// layout is the order of the files: each uses only what it and those after it declare.
var layout = []string{
	"daemon.go", "supervisor.go", "network.go", "rejoin.go", "join.go", "membership.go", "advertise.go", "underlay.go", "identity.go", "backend.go", "checkpoint.go", "peers.go", "node.go", "observer.go",
	"report.go", "check.go", "rekey.go", "loss.go", "state.go", "offload.go", "systemd.go", "firewall.go", "cniconf.go", "options.go", "gc.go", "task.go",
}

// unloaded imports empty packages. The test uses no names of imports.
type unloaded struct{}

func (unloaded) Import(name string) (*types.Package, error) {
	p := types.NewPackage(name, path.Base(name))
	p.MarkComplete()
	return p, nil
}

func TestFilesUseOnlyFilesBelow(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		if !slices.Contains(layout, name) {
			t.Errorf("%s has no place in the layout", name)
		}
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	seen, violations := upwardUses(fset, layout, files)
	for _, v := range violations {
		t.Error(v)
	}
	if seen < 100 {
		t.Errorf("%d uses between files", seen)
	}
	files = files[:0]
	for name, source := range map[string]string{
		"a.go": "package p\ntype a struct{}\nfunc (a) f() {}\nfunc newA() a { return a{} }\n",
		"b.go": "package p\nvar b func() a\nfunc g() { x := b(); x.f() }\n",
	} {
		f, err := parser.ParseFile(fset, name, source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	if _, violations := upwardUses(fset, []string{"a.go", "b.go"}, files); len(violations) != 2 {
		t.Errorf("of a type and a method of a file above the check finds %q", violations)
	}
}

// upwardUses returns how many uses of another file's declarations the files have,
// and those of a file that is before the user's in the order of names.
func upwardUses(fset *token.FileSet, names []string, files []*ast.File) (seen int, violations []string) {
	info := &types.Info{Uses: make(map[*ast.Ident]types.Object)}
	config := types.Config{Importer: unloaded{}, Error: func(error) {}} // of what imports do not have
	pkg, _ := config.Check("p", fset, files, info)
	for ident, object := range info.Uses {
		from, to := fset.Position(ident.Pos()), fset.Position(object.Pos())
		if object.Pkg() != pkg || from.Filename == to.Filename {
			continue
		}
		seen++
		if slices.Index(names, to.Filename) < slices.Index(names, from.Filename) {
			violations = append(violations, fmt.Sprintf("%v: uses %s of %s", from, object.Name(), to.Filename))
		}
	}
	return seen, violations
}
