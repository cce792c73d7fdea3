package main

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

func TestCounter(t *testing.T) {
	for _, test := range []struct {
		name                    string
		events                  string
		passed, failed, skipped int
		shows                   []string
	}{
		{
			name: "a pass, a skip with its reason, a package without tests",
			events: `{"Action":"start","Package":"p"}
				{"Action":"run","Package":"p","Test":"A"}
				{"Action":"pass","Package":"p","Test":"A","Elapsed":0}
				{"Action":"run","Package":"p","Test":"B"}
				{"Action":"output","Package":"p","Test":"B","Output":"=== RUN   B\n"}
				{"Action":"output","Package":"p","Test":"B","Output":"    b_test.go:8: needs root\n"}
				{"Action":"output","Package":"p","Test":"B","Output":"--- SKIP: B (0.00s)\n"}
				{"Action":"skip","Package":"p","Test":"B"}
				{"Action":"pass","Package":"p","Elapsed":1.25}
				{"Action":"skip","Package":"empty"}`,
			passed: 1, skipped: 1,
			shows: []string{"skip p B: b_test.go:8: needs root\n", "ok   p 1.2s"},
		},
		{
			name: "a failure counts once, not again for its package",
			events: `{"Action":"output","Package":"p","Test":"A","Output":"    a_test.go:1: no\n"}
				{"Action":"fail","Package":"p","Test":"A"}
				{"Action":"fail","Package":"p"}`,
			failed: 1,
			shows:  []string{"a_test.go:1: no", "FAIL p A"},
		},
		{
			name: "a package that does not build",
			events: `{"ImportPath":"p [p.test]","Action":"build-output","Output":"p.go:1:1: expected 'package'\n"}
				{"ImportPath":"p [p.test]","Action":"build-fail"}
				{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}`,
			failed: 1,
			shows:  []string{"p.go:1:1: expected 'package'"},
		},
		{
			name: "a process that ends in the middle of a test",
			events: `{"Action":"run","Package":"p","Test":"A"}
				{"Action":"output","Package":"p","Test":"A","Output":"WARNING: DATA RACE\n"}
				{"Action":"fail","Package":"p"}`,
			failed: 1,
			shows:  []string{"WARNING: DATA RACE"},
		},
		{name: "what is not an event", events: "go: updates to go.mod needed\n", shows: []string{"go: updates to go.mod needed"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var b bytes.Buffer
			out := bufio.NewWriter(&b)
			c := newCounter(out)
			if err := c.read(strings.NewReader(test.events)); err != nil {
				t.Fatal(err)
			}
			out.Flush()
			if c.passed != test.passed || c.failed != test.failed || c.skipped != test.skipped {
				t.Errorf("counted %d passed, %d failed, %d skipped; want %d, %d, %d",
					c.passed, c.failed, c.skipped, test.passed, test.failed, test.skipped)
			}
			for _, want := range test.shows {
				if !strings.Contains(b.String(), want) {
					t.Errorf("does not show %q:\n%s", want, b.String())
				}
			}
		})
	}
}
