// Command flannel gives this host a subnet of a network that many hosts share,
// and carries packets between containers on different hosts.
//
//	main ─► uplink, store, configuration ─► lease ─► network ─► subnet.env, READY=1
//
// This package has flags, signals and exit codes, and chooses between the daemon
// and a command. Package subnet decides which host owns which subnet; the packages
// below backend move packets.
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
	exitOK      = 0 // ended by a signal, or printed help or the version
	exitStart   = 1 // failed before it was ready
	exitRunning = 2 // failed after it was ready
)

func main() {
	// glog registers its flags there, and logs only after this call.
	if err := flag.CommandLine.Parse(nil); err != nil {
		panic(err) // unreachable: there are no arguments
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the daemon or a command, and returns the exit code.
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
	return runDaemon(o, stderr)
}

// withSignals returns a context that the first signal ends. A second signal has
// its default effect: it kills the process. The caller calls stop.
func withSignals() (ctx context.Context, stop context.CancelFunc) {
	ctx, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

func runDaemon(o *daemon.Options, stderr io.Writer) int {
	defer log.Flush()
	if err := flag.CommandLine.Set("logtostderr", "true"); err != nil {
		fmt.Fprintf(stderr, "flannel: log to standard error: %v\n", err)
		return exitStart
	}
	ctx, stop := withSignals()
	defer stop()
	d := daemon.New(o, Version)
	err := d.Run(ctx)
	switch {
	case ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)):
		log.Infof("stopped by a signal; the lease stays until it expires")
		return exitOK
	case err == nil:
		err = errors.New("ended without a reason") // unreachable: the daemon runs until ctx ends
	}
	log.Errorf("%v", err)
	if d.WasReady() {
		return exitRunning
	}
	return exitStart
}

// runCommand runs a command. Its output and its error are all that it prints: the
// log of the daemon's packages, which commands use, would repeat them. glog writes
// to os.Stderr or to files only, so os.Stderr is replaced.
func runCommand(args []string, stdout, stderr io.Writer) int {
	ctx, stop := withSignals()
	defer stop()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err == nil {
		err = flag.CommandLine.Set("logtostderr", "true")
	}
	if err != nil {
		fmt.Fprintf(stderr, "flannel: silence the log: %v\n", err)
		return exitStart
	}
	defer null.Close()
	original := os.Stderr
	os.Stderr = null
	defer func() { os.Stderr = original }()
	return cli.Run(ctx, &cli.Program{
		Stdout: stdout, Stderr: stderr, Version: Version,
		DaemonFlags: daemon.Flags,
	}, args)
}
