package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
)

// scope is a run's life: what was made is unmade at its end, last first, also
// after a failure. It is a netnstest.Scope.
type scope struct {
	log      io.Writer
	cleanups []func()
	err      error
}

// do runs f in the scope and says how it ended: with f's error, or with what
// Fatalf was told.
func (s *scope) do(f func() error) error {
	done := make(chan struct{})
	go func() { // Fatalf ends the goroutine
		defer close(done)
		defer func() {
			for _, cleanup := range slices.Backward(s.cleanups) {
				cleanup()
			}
		}()
		s.err = errors.Join(f(), s.err)
	}()
	<-done
	return s.err
}

func (s *scope) Helper() {}

func (s *scope) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

func (s *scope) Logf(format string, args ...any) { fmt.Fprintf(s.log, format+"\n", args...) }

func (s *scope) Fatalf(format string, args ...any) {
	s.err = fmt.Errorf(format, args...)
	runtime.Goexit()
}

// Skipf is for whom cannot run at all.
func (s *scope) Skipf(format string, args ...any) { s.Fatalf(format, args...) }
