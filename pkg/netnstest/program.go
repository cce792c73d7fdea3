package netnstest

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
)

// Program is the [Scope] and [Skipper] of a program that is not a test. The zero
// value discards its log.
type Program struct {
	// Log receives the lines of Logf.
	Log io.Writer

	cleanups []func()
	err      error
}

// Do runs f and then the functions of Cleanup, last first, also after a Fatalf. It
// returns the error of f or of Fatalf; a skip is an error too.
func (p *Program) Do(f func() error) error {
	done := make(chan struct{})
	go func() { // Fatalf ends the goroutine
		defer close(done)
		defer func() {
			for _, cleanup := range slices.Backward(p.cleanups) {
				cleanup()
			}
		}()
		p.err = errors.Join(f(), p.err)
	}()
	<-done
	return p.err
}

// Helper does nothing.
func (p *Program) Helper() {}

// Cleanup registers f to run when Do ends.
func (p *Program) Cleanup(f func()) { p.cleanups = append(p.cleanups, f) }

// Logf writes a line.
func (p *Program) Logf(format string, args ...any) {
	if p.Log != nil {
		fmt.Fprintf(p.Log, format+"\n", args...)
	}
}

// Fatalf ends Do with an error.
func (p *Program) Fatalf(format string, args ...any) {
	p.err = fmt.Errorf(format, args...)
	runtime.Goexit()
}

// Skipf ends Do with an error, as a program that cannot run has failed.
func (p *Program) Skipf(format string, args ...any) { p.Fatalf(format, args...) }
