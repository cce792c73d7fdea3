// Command testcount reads what "go test -json" prints, shows what failed and
// what was skipped and why, and ends with one line:
//
//	412 passed, 0 failed, 3 skipped
//
// It exits with 1 where something failed, and with -strict where something was
// skipped, so that a test does not go unnoticed because a tool is missing.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
)

func main() {
	strict := flag.Bool("strict", false, "a skipped test is a failure")
	flag.Parse()
	out := bufio.NewWriter(os.Stdout)
	c := newCounter(out)
	err := c.read(os.Stdin)
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", c.passed, c.failed, c.skipped)
	if flushed := out.Flush(); err == nil {
		err = flushed
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "testcount: %v\n", err)
		os.Exit(1)
	}
	if c.failed > 0 || c.passed == 0 || *strict && c.skipped > 0 {
		os.Exit(1)
	}
}
