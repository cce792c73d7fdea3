package rules

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxLines is how long a file may be that a person wrote and that ships.
const maxLines = 400

// rule judges one file: each violation is a line that says where and what.
type rule struct {
	name  string
	check func(*file) []string
	// breaks is a file that the rule must refuse, as name and source: a rule
	// that refuses nothing proves nothing.
	breaks [2]string
}

var rules = []rule{
	{"gofmt", gofmt, [2]string{"pkg/x/x.go", "package x\nvar  a int\n"}},
	{"file length", fileLength, [2]string{"pkg/x/x.go", "package x\n" + strings.Repeat("\n", maxLines)}},
	{"import directions", directions, [2]string{"pkg/x/x.go", "package x\nimport _ \"" + module + "/subnet\"\n"}},
	{"backends do not meet", directions, [2]string{"backend/a/x.go", "package a\nimport _ \"" + module + "/backend/b\"\n"}},
	{"backends see no registry", directions, [2]string{"backend/a/x.go", "package a\nimport _ \"" + module + "/subnet/etcdv3\"\n"}},
	{"commands do not reach into backends", directions, [2]string{"cli/x.go", "package x\nimport _ \"" + module + "/backend/vxlan\"\n"}},
	{"leaves know no commands", directions, [2]string{"pkg/x/x.go", "package x\nimport _ \"" + module + "/cli\"\n"}},
	{"package names", packageNames, [2]string{"pkg/util/x.go", "package util\n"}},
	{"no init", noInit, [2]string{"pkg/x/x.go", "package x\nfunc init() {}\n"}},
	{"no root context below main", noBackground, [2]string{"pkg/x/x.go", "package x\nimport \"context\"\nvar c = context.Background()\n"}},
	{"no exit below main", noExit, [2]string{"pkg/x/x.go", "package x\nimport \"os\"\nfunc f() { os.Exit(1) }\n"}},
	{"no panic", noPanic, [2]string{"pkg/x/x.go", "package x\nfunc f() { panic(1) }\n"}},
	{"no cgo", noCgo, [2]string{"pkg/x/x.go", "package x\nimport \"C\"\n"}},
	{"errors.Is", errorsIs, [2]string{"pkg/x/x.go", "package x\nimport \"io\"\nfunc f(err error) bool { return err == io.EOF }\n"}},
	{"no sleep", noSleep, [2]string{"pkg/x/x.go", "package x\nimport \"time\"\nfunc f() { time.Sleep(1) }\n"}},
	{"no sleep in tests", noSleep, [2]string{"pkg/x/x_test.go", "package x\nimport \"time\"\nfunc f() { time.Sleep(1) }\n"}},
	{"glog", glog, [2]string{"pkg/x/x.go", "package x\nimport \"log\"\nfunc f() { log.Print(1) }\n"}},
}

func TestRules(t *testing.T) {
	files := tree(t)
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			if len(r.check(parse(t, r.breaks[0], []byte(r.breaks[1])))) == 0 {
				t.Errorf("the rule does not refuse\n%s", r.breaks[1])
			}
			for _, f := range files {
				for _, violation := range r.check(f) {
					t.Error(violation)
				}
			}
		})
	}
}

func TestEveryPackageHasAComment(t *testing.T) {
	documented := make(map[string]bool)
	for _, f := range tree(t) {
		if !f.test() {
			documented[f.dir()] = documented[f.dir()] || f.syntax.Doc.Text() != ""
		}
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: no package comment", dir)
		}
	}
}

func gofmt(f *file) []string {
	formatted, err := format.Source(f.source)
	if err != nil || !bytes.Equal(formatted, f.source) {
		return []string{f.name + ": not formatted, run gofmt -w"}
	}
	return nil
}

func fileLength(f *file) []string {
	if n := bytes.Count(f.source, []byte("\n")); n > maxLines && !f.test() && !f.generated() {
		return []string{fmt.Sprintf("%s: %d lines, more than %d: find the second noun in it", f.name, n, maxLines)}
	}
	return nil
}

// directions: main → all; pkg/command → subnet/X → subnet → pkg; backend/X →
// backend → subnet → pkg. Tests may use what is made for tests, wherever it lies.
func directions(f *file) []string {
	var bad []string
	for _, to := range f.imports() {
		if f.test() && (to == "pkg/netnstest" || strings.HasPrefix(to, "subnet/subnettest")) {
			continue
		}
		if !mayImport(f.dir(), to) {
			bad = append(bad, fmt.Sprintf("%s: %s may not import %s", f.name, f.dir(), to))
		}
	}
	return bad
}

func mayImport(from, to string) bool {
	if within(from, to) { // a package's own parts, and a test its own package
		return true
	}
	switch top, _, _ := strings.Cut(from, "/"); top {
	case ".":
		return !within("e2e", to)
	case "subnet":
		// subnet/store chooses among its siblings; subnet itself knows none.
		return within("pkg", to) || from != "subnet" && within("subnet", to)
	case "backend":
		if from == "backend/all" {
			return within("backend", to) || within("pkg", to)
		}
		return within("pkg", to) || to == "subnet" || to == "backend" || within(family(from), to)
	case "pkg":
		return within("pkg", to)
	case "daemon", "cli":
		return within("pkg", to) || within("subnet", to) || to == "backend" || to == "backend/all"
	}
	return true // e2e and the tools see everything
}

// family is the folder of the backend that a package is part of.
func family(dir string) string {
	parts := strings.SplitN(dir, "/", 3)
	return path.Join(parts[:min(2, len(parts))]...)
}

func within(dir, name string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

func packageNames(f *file) []string {
	vague := []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "lib", "types"}
	for part := range strings.SplitSeq(f.dir()+"/"+f.syntax.Name.Name, "/") {
		if slices.Contains(vague, part) {
			return []string{f.name + ": the name " + part + " says nothing"}
		}
	}
	return nil
}

func noInit(f *file) []string {
	if f.generated() {
		return nil
	}
	var bad []string
	for _, d := range f.syntax.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			bad = append(bad, f.at(fn)+": init runs before anybody asked for it; call it from main")
		}
	}
	return bad
}

// noBackground leaves one use: the lifetime of what a constructor makes, which
// its Close ends.
func noBackground(f *file) []string {
	if f.test() || f.program() {
		return nil
	}
	lifetimes := make(map[ast.Node]bool)
	for _, d := range f.syntax.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && strings.HasPrefix(fn.Name.Name, "New") {
			ast.Inspect(fn, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok && selector(call.Fun) == "context.WithCancel" {
					lifetimes[call.Args[0]] = true
				}
				return true
			})
		}
	}
	return calls(f, `^context\.(Background|TODO)$`, "takes its context from the caller", lifetimes)
}

func noExit(f *file) []string {
	if f.test() || f.program() {
		return nil
	}
	return calls(f, `^(os\.Exit|log\.(Fatal|Exit).*)$`, "returns an error; only main exits")
}

func noPanic(f *file) []string {
	if f.test() || f.program() || f.generated() {
		return nil
	}
	return calls(f, `^panic$`, "returns an error")
}

func noSleep(f *file) []string {
	// Inside a synctest bubble time is not real, and Sleep does synchronise.
	if f.test() && slices.Contains(f.allImports(), "testing/synctest") {
		return nil
	}
	instead := "waits for ctx beside the time"
	if f.test() {
		instead = "waits for what it wants to see, not for a time"
	}
	return calls(f, `^time\.Sleep$`, instead)
}

// glog is the program's log; the standard one would write around its flags.
func glog(f *file) []string {
	if f.test() || f.program() || !slices.Contains(f.allImports(), "log") {
		return nil
	}
	return []string{f.name + ": logs through package log, not glog"}
}

func noCgo(f *file) []string {
	if slices.Contains(f.allImports(), "C") {
		return []string{f.name + ": cgo"}
	}
	return nil
}

// errorsIs finds comparisons with a named error, which miss a wrapped one.
func errorsIs(f *file) []string {
	var bad []string
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if cmp, ok := n.(*ast.BinaryExpr); ok && (cmp.Op == token.EQL || cmp.Op == token.NEQ) {
			for _, side := range []ast.Expr{cmp.X, cmp.Y} {
				if namedError.MatchString(selector(side)) {
					bad = append(bad, f.at(cmp)+": compares "+selector(side)+" with "+cmp.Op.String()+"; use errors.Is")
				}
			}
		}
		return true
	})
	return bad
}

var namedError = regexp.MustCompile(`^([a-z0-9]+\.)?(Err[A-Z]\w*|io\.EOF)$|^io\.(ErrUnexpected)?EOF$`)

// calls finds calls of functions whose name, with its package's, matches, but
// for those that are allowed.
func calls(f *file, pattern, instead string, allowed ...map[ast.Node]bool) []string {
	re := regexp.MustCompile(pattern)
	var bad []string
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && re.MatchString(selector(call.Fun)) {
			for _, nodes := range allowed {
				if nodes[call] {
					return true
				}
			}
			bad = append(bad, f.at(call)+": calls "+selector(call.Fun)+"; here one "+instead)
		}
		return true
	})
	return bad
}

// selector spells a name or pkg.Name; other expressions give "".
func selector(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		if x, ok := e.X.(*ast.Ident); ok {
			return x.Name + "." + e.Sel.Name
		}
	}
	return ""
}
