package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// event is one line of go test -json; see "go doc test2json", and "go help
// buildjson" for the events of the build.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
	Elapsed    float64
}

// test names a test, or with an empty name a package.
type test struct{ pkg, name string }

// counter adds up events. Subtests count, and so does a package that fails with
// no failed test in it: it did not build, crashed, or ran out of time.
type counter struct {
	out                     *bufio.Writer
	passed, failed, skipped int

	output map[test][]string // of what has not ended
	broken map[string]bool   // packages that hold a failed test
}

func newCounter(out *bufio.Writer) *counter {
	return &counter{out: out, output: make(map[test][]string), broken: make(map[string]bool)}
}

// read counts until the end of r. What is not JSON is passed on.
func (c *counter) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(c.out, "%s\n", bytes.TrimSpace(line))
			} else {
				c.add(e)
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read test events: %w", err)
		}
	}
}

func (c *counter) add(e event) {
	at := test{e.Package, e.Test}
	switch e.Action {
	case "output":
		c.output[at] = append(c.output[at], e.Output)
		return
	case "build-output":
		c.out.WriteString(e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	output := strings.Join(c.output[at], "")
	delete(c.output, at)
	if e.Test == "" {
		c.endPackage(e, output)
		return
	}
	switch e.Action {
	case "pass":
		c.passed++
	case "skip":
		c.skipped++
		fmt.Fprintf(c.out, "skip %s %s: %s\n", e.Package, e.Test, reason(output))
	case "fail":
		c.failed++
		c.broken[e.Package] = true
		fmt.Fprintf(c.out, "FAIL %s %s\n%s", e.Package, e.Test, output)
	}
}

func (c *counter) endPackage(e event, output string) {
	switch e.Action {
	case "pass":
		fmt.Fprintf(c.out, "ok   %s %.1fs\n", e.Package, e.Elapsed)
	case "fail":
		if !c.broken[e.Package] {
			c.failed++
		}
		// A test that was running when its process ended has no end of its own.
		for at, lines := range c.output {
			if at.pkg == e.Package {
				output += strings.Join(lines, "")
				delete(c.output, at)
			}
		}
		fmt.Fprintf(c.out, "FAIL %s %.1fs\n%s", e.Package, e.Elapsed, output)
	}
	c.out.Flush() // the reader watches package by package
}

// reason is what the test said when it was skipped: what is between "=== RUN"
// and "--- SKIP".
func reason(output string) string {
	var said []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			said = append(said, line)
		}
	}
	return strings.Join(said, " ")
}
