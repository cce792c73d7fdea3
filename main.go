// Command flannel gives this host a subnet of a network that many hosts share,
// and carries packets between containers on different hosts.
//
//	main ─► uplink, store, configuration ─► lease ─► network ─► subnet.env, READY=1
//
// This package has signals and exit codes, and chooses between the daemon and a
// command. Package subnet decides which host owns which subnet; the packages
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
	"time"

	log "github.com/golang/glog"
	"google.golang.org/grpc/grpclog"

	"github.com/coreos/flannel/cli"
	"github.com/coreos/flannel/daemon"
	"github.com/coreos/flannel/pkg/logpipe"
)

// Exit codes.
const (
	exitOK      = 0 // ended by a signal, or printed help or the version
	exitStart   = 1 // failed before it was ready
	exitRunning = 2 // failed after it was ready
)

// lastLines is how long the end of the program waits for the log's reader.
const lastLines = time.Second

func main() {
	// glog registers its flags there, and logs only after this call.
	if err := flag.CommandLine.Parse(nil); err != nil {
		panic(err) // unreachable: there are no arguments
	}
	stdout := &output{file: os.Stdout}
	code := run(os.Args[1:], stdout, os.Stderr)
	if stdout.err != nil && code == exitOK {
		fmt.Fprintf(os.Stderr, "flannel: %v\n", stdout.err)
		code = exitStart
	}
	os.Exit(code)
}

// output remembers the first error of a write. A command that cannot print its
// answer, as on a full disk, must not exit as if it had.
type output struct {
	file *os.File
	err  error
}

// Fd is for those who ask whether this is a terminal.
func (o *output) Fd() uintptr { return o.file.Fd() }

func (o *output) Write(p []byte) (int, error) {
	n, err := o.file.Write(p)
	if o.err == nil {
		o.err = err
	}
	return n, err
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
	ctx, stop = signal.NotifyContext(context.Background(), endingSignals()...)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

func runDaemon(o *daemon.Options, stderr io.Writer) int {
	flush, lost, err := startLog()
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

// startLog has the logs of all packages go to standard error in such a way that
// the reader of the log cannot hold up or end the program. A crash writes its
// trace to standard error itself. flush waits for the last lines; lost counts the
// lines that the reader has not got.
func startLog() (flush func(), lost func() uint64, err error) {
	// Otherwise a write to a standard error that nobody reads ends the process.
	signal.Ignore(syscall.SIGPIPE)
	pipe, err := logpipe.New(os.Stderr, logpipe.Size)
	if err != nil {
		return nil, nil, err
	}
	// glog writes to this variable, and ends the process if that fails.
	os.Stderr = pipe.File()
	// net/http logs by package log, and gRPC by itself.
	log.CopyStandardLogTo("WARNING")
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr))
	flush = func() {
		log.Flush()
		pipe.Flush(lastLines)
	}
	return flush, pipe.Lost, flag.CommandLine.Set("logtostderr", "true")
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
