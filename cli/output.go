package cli

import (
	"flag"
	"os"
)

// Output is standard output. It keeps the first error of a write: a command that
// cannot print its answer, as on a full disk, must not exit as if it had.
type Output struct {
	File *os.File
	Err  error
}

// Fd returns the descriptor; it shows whether Output is a terminal.
func (o *Output) Fd() uintptr { return o.File.Fd() }

// Write writes to File.
func (o *Output) Write(p []byte) (int, error) {
	n, err := o.File.Write(p)
	if o.Err == nil {
		o.Err = err
	}
	return n, err
}

// silenceLog discards the log until restore is called. The log of the daemon's
// packages, which commands use, would repeat their output and errors. glog writes to
// os.Stderr or to files only, so os.Stderr is replaced.
func silenceLog() (restore func(), err error) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	original := os.Stderr
	os.Stderr = null
	restore = func() {
		os.Stderr = original
		null.Close()
	}
	return restore, flag.CommandLine.Set("logtostderr", "true")
}
