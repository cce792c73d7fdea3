package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
)

// A change rewrites the statement, case or expression that begins at a marked line.
// It names no identifier of that line, so a rename does not break it. It keeps
// operands in the code, so the compiler finds no unused variable or import.
type change func(s *source) (edit, error)

// edit replaces the text from one position to another.
type edit struct {
	from, to token.Pos
	text     string
}

// source is a parsed file with the node that begins at the marked line.
type source struct {
	text []byte
	set  *token.FileSet
	node ast.Node
}

// errNoSuchNode reports a change that does not fit the marked line.
var errNoSuchNode = errors.New("the change does not fit the marked line")

// never makes the condition of an if, for, case or return false.
func never(s *source) (edit, error) { return s.wrapCondition("false && (", ")") }

// always makes the condition of an if, for, case or return true.
func always(s *source) (edit, error) { return s.wrapCondition("true || (", ")") }

// withoutOperand takes the last operand of ||, &&, + or - out of the expression.
func withoutOperand(s *source) (edit, error) {
	binary, ok := s.expression().(*ast.BinaryExpr)
	if !ok {
		return edit{}, errNoSuchNode
	}
	return s.neutralise(binary)
}

// withoutLeaf is withoutOperand for the last operand that has no operands itself:
// c in "a && (b || c)".
func withoutLeaf(s *source) (edit, error) {
	binary, ok := s.expression().(*ast.BinaryExpr)
	if !ok {
		return edit{}, errNoSuchNode
	}
	for {
		below, ok := ast.Unparen(binary.Y).(*ast.BinaryExpr)
		if !ok || below.Op != token.LOR && below.Op != token.LAND {
			return s.neutralise(binary)
		}
		binary = below
	}
}

// neutralise keeps the right operand from having an effect.
func (s *source) neutralise(binary *ast.BinaryExpr) (edit, error) {
	neutral := map[token.Token]string{token.LOR: "false && (", token.LAND: "(true || ", token.ADD: "0 * (", token.SUB: "0 * ("}
	before, ok := neutral[binary.Op]
	if !ok {
		return edit{}, errNoSuchNode
	}
	return s.wrap(binary.Y, before, ")"), nil
}

// skip keeps a statement from being executed, or removes an element of a
// composite literal.
func skip(s *source) (edit, error) {
	switch n := s.node.(type) {
	case ast.Stmt:
		return s.wrap(n, "if false {\n", "\n}"), nil
	case ast.Expr:
		end := s.set.Position(n.End()).Offset
		if s.text[end] != ',' {
			return edit{}, errNoSuchNode
		}
		return edit{n.Pos(), n.End() + 1, ""}, nil
	}
	return edit{}, errNoSuchNode
}

// yields replaces the results of a return, or the right side of an assignment.
func yields(text string) change {
	return func(s *source) (edit, error) {
		var values []ast.Expr
		switch n := s.node.(type) {
		case *ast.ReturnStmt:
			values = n.Results
		case *ast.AssignStmt:
			values = n.Rhs
		}
		if len(values) == 0 {
			return edit{}, errNoSuchNode
		}
		return edit{values[0].Pos(), values[len(values)-1].End(), text}, nil
	}
}

// wrapCondition puts text around the condition.
func (s *source) wrapCondition(before, after string) (edit, error) {
	if e := s.expression(); e != nil {
		return s.wrap(e, before, after), nil
	}
	return edit{}, errNoSuchNode
}

func (s *source) wrap(n ast.Node, before, after string) edit {
	from, to := s.set.Position(n.Pos()).Offset, s.set.Position(n.End()).Offset
	return edit{n.Pos(), n.End(), before + string(s.text[from:to]) + after}
}

// expression returns the condition of an if, for or case, the last result of a
// return, or an operation that begins at the line; nil if there is none.
func (s *source) expression() ast.Expr {
	switch n := s.node.(type) {
	case *ast.IfStmt:
		return n.Cond
	case *ast.ForStmt:
		return n.Cond
	case *ast.CaseClause:
		if len(n.List) == 1 {
			return n.List[0]
		}
	case *ast.ReturnStmt:
		if len(n.Results) > 0 {
			return n.Results[len(n.Results)-1]
		}
	case *ast.BinaryExpr:
		return n
	}
	return nil
}

// apply returns text with the change at line, which counts from 1.
func (c change) apply(name string, text []byte, line int) ([]byte, error) {
	s := &source{text: text, set: token.NewFileSet()}
	file, err := parser.ParseFile(s.set, name, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if n == nil || s.node != nil || s.set.Position(n.Pos()).Line != line {
			return s.node == nil
		}
		switch n.(type) {
		case *ast.BlockStmt:
		case ast.Stmt, ast.Expr:
			s.node = n
		}
		return s.node == nil
	})
	if s.node == nil {
		return nil, fmt.Errorf("%s:%d: nothing begins at the marked line", name, line)
	}
	e, err := c(s)
	if err != nil {
		return nil, fmt.Errorf("%s:%d: %w", name, line, err)
	}
	from, to := s.set.Position(e.from).Offset, s.set.Position(e.to).Offset
	changed := append(append(append([]byte{}, text[:from]...), e.text...), text[to:]...)
	if _, err := parser.ParseFile(token.NewFileSet(), name, changed, parser.SkipObjectResolution); err != nil {
		return nil, fmt.Errorf("after the change: %w", err)
	}
	return changed, nil
}
