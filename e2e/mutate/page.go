package main

import (
	"fmt"
	"strings"
)

// page is docs/promises.md.
func page(all []promise) string {
	var b strings.Builder
	b.WriteString(`# Promises, and how to break them

What flannel [promises](../README.md#what-it-promises), how to raise a violation by hand, and for each the lines of the code that keep it: when one of
them is changed as below, the test fails with these words. This page is written by ` + "`go run ./e2e/mutate -doc`" + `, and

` + "```" + `
sudo go run ./e2e/mutate
` + "```" + `

tries all of it in a few minutes, without touching the tree.
`)
	for _, p := range all {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| in | this | becomes | and the test | says |\n|---|---|---|---|---|\n", p.name, p.violation)
		for _, m := range p.mutations {
			fmt.Fprintf(&b, "| `%s` | %s | %s | `%s` | %s |\n", m.file, code(m.old), code(m.new), m.test, code(m.says))
		}
	}
	return b.String()
}

// code is a piece of code in a cell of a table, on one line.
func code(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if s == "" {
		return "nothing"
	}
	return "`` " + strings.ReplaceAll(s, "|", `\|`) + " ``"
}
