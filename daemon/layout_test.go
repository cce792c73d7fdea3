package daemon

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strings"
	"testing"
)

// layout is the order of the files: each uses only what it and those after it declare.
var layout = []string{
	"daemon.go", "supervisor.go", "network.go", "join.go", "identity.go", "backend.go", "checkpoint.go", "peers.go", "observer.go",
	"report.go", "check.go", "rekey.go", "state.go", "systemd.go", "firewall.go", "options.go", "memlimit.go",
}

func TestFilesUseOnlyFilesBelow(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") && !slices.Contains(layout, name) {
			t.Errorf("%s has no place in the layout", name)
		}
	}
	sources := make([]string, len(layout))
	for i, name := range layout {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sources[i] = string(source)
	}
	for _, violation := range upwardUses(t, layout, sources) {
		t.Error(violation)
	}
	if len(upwardUses(t, []string{"a.go", "b.go"}, []string{"package p\ntype a int\n", "package p\nfunc f() { var a a; _ = a }\n"})) != 1 {
		t.Error("the check does not find a use of a type in a file above")
	}
}

// upwardUses returns the identifiers that a file uses and one before it declares.
// Methods need no look: their type's name is in each declaration of a variable.
func upwardUses(t *testing.T, names, sources []string) (violations []string) {
	declaredIn := make(map[string]string)
	for i, name := range names {
		syntax, err := parser.ParseFile(token.NewFileSet(), name, sources[i], 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, use := range syntax.Unresolved { // declared in no scope of this file
			if above, ok := declaredIn[use.Name]; ok {
				violations = append(violations, name+" uses "+use.Name+" of "+above)
			}
		}
		for _, d := range syntax.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					declaredIn[d.Name.Name] = name
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						declaredIn[spec.Name.Name] = name
					case *ast.ValueSpec:
						for _, id := range spec.Names {
							declaredIn[id.Name] = name
						}
					}
				}
			}
		}
	}
	return violations
}
