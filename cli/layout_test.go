package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path"
	"strings"
	"testing"
)

// unloaded imports empty packages. The test uses no names of imports.
type unloaded struct{}

func (unloaded) Import(name string) (*types.Package, error) {
	p := types.NewPackage(name, path.Base(name))
	p.MarkComplete()
	return p, nil
}

// TestLayout checks that uses between files run downwards: cli.go, the commands,
// command.go, the helpers. The files of one command, such as doctor.go and
// doctor_host.go, are a group. No group of a command uses another's.
func TestLayout(t *testing.T) {
	const top, commandFiles, commandTypes, helpers = 0, 1, 2, 3
	fset := token.NewFileSet()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	layers := map[string]int{"cli": top, "command": commandTypes} // by group
	group := func(p token.Pos) string {
		g, _, _ := strings.Cut(strings.TrimSuffix(fset.Position(p).Filename, ".go"), "_")
		return g
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, e.Name(), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		if g := group(f.FileStart); layers[g] == 0 && g != "cli" {
			layers[g] = helpers
		}
	}
	info := &types.Info{Uses: make(map[*ast.Ident]types.Object)}
	config := types.Config{Importer: unloaded{}, Error: func(error) {}} // of what imports do not have
	pkg, _ := config.Check("cli", fset, files, info)
	for _, name := range pkg.Scope().Names() {
		if object := pkg.Scope().Lookup(name); strings.HasSuffix(name, "Command") {
			layers[group(object.Pos())] = commandFiles
		}
	}
	seen := 0
	for ident, object := range info.Uses {
		from, to := group(ident.Pos()), group(object.Pos())
		if object.Pkg() != pkg || from == to {
			continue
		}
		seen++
		if layers[to] < layers[from] || layers[to] == layers[from] && layers[to] != helpers {
			t.Errorf("%v: %s uses %s of %s", fset.Position(ident.Pos()), from, object.Name(), to)
		}
	}
	if seen < len(commands()) {
		t.Errorf("%d uses between files, for %d commands", seen, len(commands()))
	}
}
