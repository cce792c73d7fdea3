package logpipe

import (
	"flag"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	log "github.com/golang/glog"
	"google.golang.org/grpc/grpclog"
)

// lastLines is how long the end of the program waits for the log's reader.
const lastLines = time.Second

// Start has the logs of all packages go to standard error through a Pipe, for the
// rest of the process. The reader of the log can neither hold up nor end the
// program, nor hold up a crash. flush waits for the last lines, a second at most.
// lost returns the number of lines that the reader has not got.
func Start() (flush func(), lost func() uint64, err error) {
	// Otherwise a write to a standard error that nobody reads ends the process.
	signal.Ignore(syscall.SIGPIPE)
	if err := unblock(int(os.Stderr.Fd())); err != nil { // promise: crash-waits-for-no-reader
		log.V(1).Infof("keep standard error as it is: %v", err)
	}
	pipe, err := New(os.Stderr, Size)
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
