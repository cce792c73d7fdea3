// Command demo runs the overlay on one machine: three hosts in network namespaces,
// each with a daemon and a container behind a bridge made from subnet.env, and an
// etcd in the first host's daemon. It pings every container from every other by IPv4
// and by IPv6, prints the results, and removes everything.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

// network is the overlay, of both families.
const network = "10.5.0.0/16,fd00:5::/48"

// hosts is the number of hosts.
const hosts = 3

// tableTimeout bounds the time from the start to the table.
const tableTimeout = 2 * time.Minute

func main() {
	program := flag.String("flannel", "bin/flannel", "the program to run")
	keep := flag.Bool("keep", false, "stay up until Ctrl-C, to look around")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "demo: argument %q is not a flag (see demo -help)\n", flag.Arg(0))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C kills; the next run removes the leftovers.
	context.AfterFunc(ctx, stop)
	code := 0
	if err := run(ctx, *program, *keep, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		code = 1
	}
	stop()
	os.Exit(code)
}

func run(ctx context.Context, program string, keep bool, stdout, stderr io.Writer) error {
	d := &demo{Program: &netnstest.Program{Log: stderr}, program: program, out: stdout}
	return d.Do(func() error {
		netnstest.Require(d)
		limited, cancel := context.WithTimeout(ctx, tableTimeout)
		defer cancel()
		d.start(limited)
		d.printHosts()
		err := errors.Join(d.printPings(limited, inet.IPv4), d.printPings(limited, inet.IPv6))
		if keep {
			d.printHints()
			<-ctx.Done()
			fmt.Fprintln(stdout)
		}
		return err
	})
}
