package rules

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
)

func functionLength(f *file) []string {
	if f.test() || f.generated() {
		return nil
	}
	var bad []string
	for _, d := range f.syntax.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok {
			if n := f.set.Position(fn.End()).Line - f.set.Position(fn.Pos()).Line + 1; n > maxFunction {
				bad = append(bad, fmt.Sprintf("%s: %s has %d lines, more than %d", f.at(fn), fn.Name.Name, n, maxFunction))
			}
		}
	}
	return bad
}

// standardMethods have a meaning that packages fmt and errors define.
var standardMethods = []string{"Error", "String", "Unwrap"}

// documented checks that each exported name has a comment that begins with it.
// In a group of constants or variables the comment of the group is enough.
func documented(f *file) []string {
	if f.test() || f.program() || f.generated() {
		return nil
	}
	var bad []string
	check := func(n ast.Node, name *ast.Ident, doc *ast.CommentGroup) {
		if _, method := n.(*ast.FuncDecl); method && slices.Contains(standardMethods, name.Name) {
			return
		}
		if name.IsExported() && !beginsWith(doc.Text(), name.Name) {
			bad = append(bad, fmt.Sprintf("%s: no comment that begins with %s", f.at(n), name.Name))
		}
	}
	for _, d := range f.syntax.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil || ast.IsExported(receiver(d)) {
				check(d, d.Name, d.Doc)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					check(spec, spec.Name, either(spec.Doc, d.Doc))
				case *ast.ValueSpec:
					if d.Lparen.IsValid() {
						bad = append(bad, undocumentedValue(f, spec, d.Doc)...)
					} else {
						check(spec, spec.Names[0], d.Doc)
					}
				}
			}
		}
	}
	return bad
}

func undocumentedValue(f *file, spec *ast.ValueSpec, group *ast.CommentGroup) []string {
	if spec.Names[0].IsExported() && spec.Doc == nil && spec.Comment == nil && group == nil {
		return []string{fmt.Sprintf("%s: no comment for %s or its group", f.at(spec), spec.Names[0].Name)}
	}
	return nil
}

// receiver returns the name of the type of a method.
func receiver(fn *ast.FuncDecl) string {
	t := fn.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

func either(a, b *ast.CommentGroup) *ast.CommentGroup {
	if a != nil {
		return a
	}
	return b
}

// beginsWith allows an article before the name, as gofmt's tools do.
func beginsWith(doc, name string) bool {
	for _, article := range []string{"", "A ", "An ", "The "} {
		if rest, ok := strings.CutPrefix(doc, article+name); ok && (rest == "" || strings.ContainsAny(rest[:1], " ,.:;'(\n")) {
			return true
		}
	}
	return strings.HasPrefix(doc, "Deprecated: ")
}
