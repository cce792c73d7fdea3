// Command demo shows the overlay at work on one machine: three hosts in network
// namespaces, a daemon on each, an etcd inside the first one's, and a container
// on each behind a bridge made from subnet.env. It pings every container from
// every other, prints what it found, and takes all of it down again.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/flannel/pkg/netnstest"
)

// network is the overlay that the hosts share.
const network = "10.5.0.0/16"

// hosts is how many there are.
const hosts = 3

// patience bounds the whole of the way to the table.
const patience = 2 * time.Minute

func main() {
	program := flag.String("flannel", "bin/flannel", "the program to show")
	keep := flag.Bool("keep", false, "stay up until Ctrl-C, to look around")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "demo: argument %q is not a flag (see demo -help)\n", flag.Arg(0))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C kills; the next run clears up then.
	context.AfterFunc(ctx, stop)
	code := 0
	if err := show(ctx, *program, *keep, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		code = 1
	}
	stop()
	os.Exit(code)
}

func show(ctx context.Context, program string, keep bool, stdout, stderr io.Writer) error {
	d := &demo{Program: &netnstest.Program{Log: stderr}, program: program, out: stdout}
	return d.Do(func() error {
		netnstest.Require(d)
		limited, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		d.raise(limited)
		d.printHosts()
		err := d.printPings(limited)
		if keep {
			d.printHints()
			<-ctx.Done()
			fmt.Fprintln(stdout)
		}
		return err
	})
}
