// Command mutate shows that the tests of flannel's promises can fail. It
// changes the code at each mark, one mark at a time, and runs the test that must
// fail then. A mark is a comment at the end of a line:
//
//	if q.outranks(p) { // promise: overlap-has-one-winner
//
// The table in promises.go names the change and the test for each mark.
//
//	sudo go run ./e2e/mutate              all; exit code 1 if a test did not fail
//	sudo go run ./e2e/mutate -run Time    promises, marks and tests that match
//
// The tree is not changed: Go builds with an overlay (go help build).
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
)

func main() { os.Exit(run()) }

func run() int {
	only := flag.String("run", "", "`regexp` for the promises, marks and tests to try")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "mutate: argument %q is not a flag (see mutate -help)\n", flag.Arg(0))
		return 2
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintf(os.Stderr, "mutate: -run: %v\n", err)
		return 2
	}
	marks, err := findMarks(".")
	if err != nil {
		fmt.Fprintf(os.Stderr, "mutate: %v\n", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return tryAll(ctx, marks, wanted)
}

// tryAll prints the result of each mutation and returns the exit code.
func tryAll(ctx context.Context, marks marks, wanted *regexp.Regexp) int {
	tried, survived := 0, 0
	for _, p := range promises {
		for _, m := range p.mutations {
			if !wanted.MatchString(p.name) && !wanted.MatchString(m.mark) && !wanted.MatchString(m.test) {
				continue
			}
			tried++
			fmt.Printf("%s: %s: %s ... ", p.name, m.mark, m.test)
			failure, err := m.try(ctx, ".", marks)
			switch {
			case ctx.Err() != nil:
				fmt.Println("stopped")
				return 1
			case err != nil:
				survived++
				fmt.Printf("NOT NOTICED: %v\n", err)
			default:
				fmt.Printf("noticed\n\t%s\n", failure)
			}
		}
	}
	fmt.Printf("%d mutations, %d not noticed\n", tried, survived)
	if survived > 0 || tried == 0 {
		return 1
	}
	return 0
}
