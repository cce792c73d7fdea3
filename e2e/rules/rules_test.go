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

const (
	maxLines    = 400 // of a file that a person wrote, tests excepted
	maxFunction = 70  // lines of a function, tests excepted
)

// rule checks one file. A violation is a line with the place and the reason.
type rule struct {
	name  string
	check func(*file) []string
	// breaks are files that the rule must refuse, as name and source.
	breaks [][2]string
}

var rules = []rule{
	{"gofmt", gofmt, [][2]string{{"pkg/x/x.go", "package x\nvar  a int\n"}}},
	{"file length", fileLength, [][2]string{{"pkg/x/x.go", "package x\n" + strings.Repeat("\n", maxLines)}}},
	{"function length", functionLength, [][2]string{{"pkg/x/x.go", "package x\n\nfunc f() {\n" + strings.Repeat("\tf()\n", maxFunction) + "}\n"}}},
	{"exported names are documented", documented, [][2]string{
		{"pkg/x/x.go", "package x\n\n// It adds.\nfunc Add() {}\n"},
		{"pkg/x/x.go", "package x\n\ntype T int\n"},
		{"pkg/x/x.go", "package x\n\n// T is one.\ntype T int\n\nfunc (T) Add() {}\n"},
		{"pkg/x/x.go", "package x\n\nconst (\n\ta = iota\n\tB\n)\n"},
	}},
	{"two Go files at the root", rootFiles, [][2]string{{"options_test.go", "package main\n"}}},
	{"import directions", imports, [][2]string{
		{"pkg/x/x.go", "package x\n"}, // not in the table
		importing("pkg/tun", "subnet"),
		importing("pkg/tun", "pkg/rtnl"),
		importing("subnet", "subnet/etcdv3"),
		importing("subnet/etcdv3", "subnet/etcdv2"),
		importing("backend/vxlan", "backend/hostgw"),
		importing("backend/vxlan", "subnet/etcdv3"),
		importing("cli", "backend/vxlan"),
		importing("cli", "daemon"),
		importing("daemon", "cli"),
		importing("daemon", "pkg/netnstest"),
		{"subnet/x_test.go", "package subnet\nimport _ \"" + module + "/daemon\"\n"},
	}},
	{"package names", packageNames, [][2]string{{"pkg/util/x.go", "package util\n"}}},
	{"no init", noInit, [][2]string{{"pkg/x/x.go", "package x\nfunc init() {}\n"}}},
	{"no root context below main", noBackground, [][2]string{{"pkg/x/x.go", "package x\nimport \"context\"\nvar c = context.Background()\n"}}},
	{"no exit below main", noExit, [][2]string{{"pkg/x/x.go", "package x\nimport \"os\"\nfunc f() { os.Exit(1) }\n"}}},
	{"no panic", noPanic, [][2]string{{"pkg/x/x.go", "package x\nfunc f() { panic(1) }\n"}}},
	{"no cgo", noCgo, [][2]string{{"pkg/x/x.go", "package x\nimport \"C\"\n"}}},
	{"errors.Is", errorsIs, [][2]string{{"pkg/x/x.go", "package x\nimport \"io\"\nfunc f(err error) bool { return err == io.EOF }\n"}}},
	{"no sleep", noSleep, [][2]string{
		{"pkg/x/x.go", "package x\nimport \"time\"\nfunc f() { time.Sleep(1) }\n"},
		{"pkg/x/x_test.go", "package x\nimport \"time\"\nfunc f() { time.Sleep(1) }\n"},
	}},
	{"only pkg/masq, pkg/nftbatch and backend/fastpath change nftables", nftablesReaders, [][2]string{
		{"cli/x.go", "package cli\nimport \"github.com/google/nftables\"\nfunc f(c *nftables.Conn) { c.FlushRuleset() }\n"},
	}},
	{"programs and maps of eBPF", lockedMemory, [][2]string{
		{"pkg/x/x.go", "package x\nimport \"github.com/cilium/ebpf\"\nfunc f(s *ebpf.MapSpec) (*ebpf.Map, error) { return ebpf.NewMap(s) }\n"},
	}},
	{"glog", glog, [][2]string{{"pkg/x/x.go", "package x\nimport \"log\"\nfunc f() { log.Print(1) }\n"}}},
}

// importing is a file of the package from that imports to.
func importing(from, to string) [2]string {
	return [2]string{from + "/x.go", "package " + path.Base(from) + "\nimport _ \"" + module + "/" + to + "\"\n"}
}

func TestRules(t *testing.T) {
	files := tree(t)
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, broken := range r.breaks {
				if len(r.check(parse(t, broken[0], []byte(broken[1])))) == 0 {
					t.Errorf("the rule accepts %s\n%s", broken[0], broken[1])
				}
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
		return []string{fmt.Sprintf("%s: %d lines, more than %d: split it by nouns", f.name, n, maxLines)}
	}
	return nil
}

func packageNames(f *file) []string {
	vague := []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "lib", "types"}
	for part := range strings.SplitSeq(f.dir()+"/"+f.syntax.Name.Name, "/") {
		if slices.Contains(vague, part) {
			return []string{f.name + ": the name " + part + " names no thing"}
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
			bad = append(bad, f.at(fn)+": init; call it from main")
		}
	}
	return bad
}

// noBackground allows one use: the lifetime of an object that a constructor
// makes and that its Close ends.
func noBackground(f *file) []string {
	if f.test() || f.program() || f.generated() {
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
	if f.test() || f.program() || f.generated() {
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
	if f.generated() {
		return nil
	}
	// In a synctest bubble time is not real, and Sleep synchronises.
	if f.test() && slices.Contains(f.allImports(), "testing/synctest") {
		return nil
	}
	instead := "waits for ctx as well"
	if f.test() {
		instead = "waits for a condition, not for a time"
	}
	return calls(f, `^time\.Sleep$`, instead)
}

// glog is the program's log. Package log ignores the flags of glog.
func glog(f *file) []string {
	if f.test() || f.program() || f.generated() || !slices.Contains(f.allImports(), "log") {
		return nil
	}
	return []string{f.name + ": logs through package log, not glog"}
}

// nftablesReaders finds calls that change tables, outside of those three. The methods of
// nftables.Conn that change something have such names.
func nftablesReaders(f *file) []string {
	if f.test() || slices.Contains([]string{"pkg/masq", "pkg/nftbatch", "backend/fastpath"}, f.dir()) || !slices.Contains(f.allImports(), "github.com/google/nftables") {
		return nil
	}
	return calls(f, `^\w+\.(Flush\w*|(Add|Del|Destroy|Insert|Replace|Set)(Table|Chain|Rule|Set|Elem|Obj|Flow)\w*)$`, "only lists tables, chains and rules")
}

// lockedMemory finds files that create objects of eBPF, and do not raise the limit that
// these count against before Linux 5.11. Their tests may depend on the order.
func lockedMemory(f *file) []string {
	if f.test() || f.generated() || calls(f, `^rlimit\.RemoveMemlock$`, "") != nil {
		return nil
	}
	return calls(f, `^(ebpf\.New(Map|Program|Collection)(With\w+)?|\w+\.LoadAndAssign)$`, "raises the limit of locked memory, with rlimit.RemoveMemlock")
}

func noCgo(f *file) []string {
	if slices.Contains(f.allImports(), "C") {
		return []string{f.name + ": cgo"}
	}
	return nil
}

// errorsIs finds comparisons with a named error. They miss a wrapped error.
func errorsIs(f *file) []string {
	var bad []string
	if f.generated() {
		return nil
	}
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

// calls finds calls of functions whose qualified name matches the pattern,
// except those in allowed.
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
			bad = append(bad, f.at(call)+": calls "+selector(call.Fun)+"; code here "+instead)
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
