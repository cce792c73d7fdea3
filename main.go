// Command flannel gives this host a subnet of a network that many hosts share,
// and carries packets between containers on different hosts.
//
//	main ─► uplink, store, configuration ─► lease ─► network ─► subnet.env, READY=1
//
// This package has signals and exit codes, and chooses between the daemon, a
// command and a CNI plugin. Package subnet decides which host owns which subnet;
// the packages below backend move packets.
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
	"github.com/coreos/flannel/cni"
	"github.com/coreos/flannel/daemon"
	"github.com/coreos/flannel/pkg/logpipe"
)

// Exit codes.
const (
	exitOK      = 0 // ended by a signal, or printed help or the version
	exitStart   = 1 // failed before it was ready
	exitRunning = 2 // failed after it was ready
)

func main() {
	if cni.IsPlugin(os.Args[0]) {
		ctx, stop := withSignals()
		code := cni.Run(ctx, os.Args[0])
		stop()
		os.Exit(code)
	}
	_ = flag.CommandLine.Parse(nil) // glog registers its flags there, and logs only after this call
	stdout := &cli.Output{File: os.Stdout}
	code := run(cli.Arguments(os.Args[0], os.Args[1:]), stdout, os.Stderr)
	if stdout.Err != nil && code == exitOK {
		fmt.Fprintf(os.Stderr, "flannel: %v\n", stdout.Err)
		code = exitStart
	}
	os.Exit(code)
}

// run runs the daemon or a command, and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		ctx, stop := withSignals()
		defer stop()
		return cli.Run(ctx, &cli.Program{Stdout: stdout, Stderr: stderr, Version: Version, DaemonFlags: daemon.Flags}, args)
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
	ctx, stop = signal.NotifyContext(context.Background(), endingSignals()...)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

func runDaemon(o *daemon.Options, stderr io.Writer) int {
	flush, lost, err := logpipe.Start()
	if err != nil {
		fmt.Fprintf(stderr, "flannel: log to standard error: %v\n", err)
		return exitStart
	}
	defer flush()
	ctx, stop := withSignals()
	defer stop()
	d := daemon.New(o, Version, lost)
	err = d.Run(ctx)
	switch {
	case ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)):
		log.Infof("stopped by a signal")
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

// endingSignals are the signals that end the program. A signal that is ignored
// at the start stays ignored: nohup ignores SIGHUP, and a shell SIGINT of a job in
// the background.
func endingSignals() []os.Signal {
	signals := []os.Signal{syscall.SIGTERM}
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signals = append(signals, s)
		}
	}
	return signals
}
