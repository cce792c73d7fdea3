// Command mutate shows that the tests of what flannel promises can fail: it
// takes out of the code, one after the other, the lines that keep a promise, and
// runs the test that must notice.
//
//	sudo go run ./e2e/mutate              all; exit code 1 if a test did not notice
//	sudo go run ./e2e/mutate -run Time    those of promises, files or tests that match
//	go run ./e2e/mutate -doc              print docs/promises.md
//
// The tree is not touched: Go builds with an overlay (go help build).
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
	only := flag.String("run", "", "`regexp` for the promises, files and tests to try")
	doc := flag.Bool("doc", false, "print the page of promises, and run nothing")
	flag.Parse()
	if *doc {
		fmt.Print(page(promises))
		return 0
	}
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "mutate: argument %q is not a flag (see mutate -help)\n", flag.Arg(0))
		return 2
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintf(os.Stderr, "mutate: -run: %v\n", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	tried, survived := 0, 0
	for _, p := range promises {
		for _, m := range p.mutations {
			if !wanted.MatchString(p.name) && !wanted.MatchString(m.file) && !wanted.MatchString(m.test) {
				continue
			}
			tried++
			fmt.Printf("%s: %s: %s ... ", p.name, m.file, m.test)
			failure, err := m.try(ctx, ".")
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
