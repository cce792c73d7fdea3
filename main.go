// Command flannel gives this host a subnet of a network that many hosts share,
// and carries packets between containers on different hosts.
//
//	main ─► uplink, store, configuration ─► lease ─► network ─► subnet.env, READY=1
//
// This package is the wiring: flags, order of start, exit codes. Who owns which
// subnet is package subnet's business, how packets move that of the packages
// below backend.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/cli"
	"github.com/coreos/flannel/daemon"
)

// Exit codes.
const (
	exitOK      = 0 // ended by a signal, or there was only something to print
	exitStart   = 1 // could not start: wrong input, or something is missing
	exitRunning = 2 // failed after it had been ready
)

func main() {
	// glog registers its flags there and insists on this call.
	if err := flag.CommandLine.Parse(nil); err != nil {
		panic(err) // unreachable: there is nothing to parse
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program; it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return runCommand(args, stdout, stderr)
	}
	o, err := daemon.ParseOptions(args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "flannel: %v\n", err)
		return exitStart
	case o.Version:
		fmt.Fprintln(stdout, Version)
		return exitOK
	}
	defer log.Flush()
	if err := flag.CommandLine.Set("logtostderr", "true"); err != nil {
		fmt.Fprintf(stderr, "flannel: log to standard error: %v\n", err)
		return exitStart
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// From the first signal on, a second one has its default effect: it kills.
	context.AfterFunc(ctx, stop)

	d := daemon.New(o, Version)
	err = d.Run(ctx)
	switch {
	case ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)):
		log.Infof("stopped by a signal; the lease stays until it expires")
		return exitOK
	case err == nil:
		err = errors.New("ended without a reason") // no owner of a goroutine returns nil before ctx ends
	}
	log.Errorf("%v", err)
	if d.WasReady() {
		return exitRunning
	}
	return exitStart
}

// runCommand runs one of the commands that are not the daemon.
func runCommand(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop)
	// What a command has to say, its answer or its error says. The log of the
	// packages that it uses, which are the daemon's, would say it twice; glog
	// writes to this variable or to files, and to nothing else.
	quiet, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err == nil {
		err = flag.CommandLine.Set("logtostderr", "true")
	}
	if err != nil {
		fmt.Fprintf(stderr, "flannel: silence the log: %v\n", err)
		return exitStart
	}
	defer quiet.Close()
	loud := os.Stderr
	os.Stderr = quiet
	defer func() { os.Stderr = loud }()
	return cli.Run(ctx, &cli.Program{
		Stdout: stdout, Stderr: stderr, Version: Version,
		DaemonFlags: daemon.Flags,
	}, args)
}
